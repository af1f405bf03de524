# SPDX-License-Identifier: GPL-2.0-or-later
"""The watch names what happened, in time: real processes are killed and stopped."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING

import pytest

from viotest.machine.launch import Launch, RunningMachine, start_machine
from viotest.machine.watch import GuestLostError, Loss, LossKind
from viotest.scenario.model import Phase

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.unit.machine.conftest import Timeline

PANIC = "[    1.5] Kernel panic - not syncing: Fatal exception\r\n"


def wait_for_loss(running: RunningMachine, timeout: float = 5.0) -> Loss:
    # As a caller does who is blocked on something that never comes.
    reader, writer = os.pipe()
    try:
        with pytest.raises(GuestLostError) as caught:
            running.watch.wait_readable(reader, timeout)
    finally:
        os.close(reader)
        os.close(writer)
    return caught.value.loss


def say(running: RunningMachine, text: str) -> None:
    running.machine.monitor.execute("x-say", {"text": text}, timeout=5)


def shut_down(running: RunningMachine, reason: str) -> None:
    event = {"name": "SHUTDOWN", "data": {"guest": True, "reason": reason}}
    running.machine.monitor.execute("x-event", event, timeout=5)


def test_qemu_killed(make_launch: Callable[..., Launch], timeline: Timeline) -> None:
    with start_machine(make_launch(), record=timeline) as running:
        begin = time.monotonic_ns()
        os.kill(running.machine.process.pid, signal.SIGKILL)
        loss = wait_for_loss(running)
    assert loss.kind is LossKind.QEMU_EXITED
    assert loss.detail == "QEMU was killed by SIGKILL: up"
    assert loss.time_ns - begin < 100e6
    assert timeline.named("watch", "lost")[0]["kind"] == "qemu-exited"


def test_qemu_crashes(make_launch: Callable[..., Launch]) -> None:
    with start_machine(make_launch()) as running:
        os.kill(running.machine.process.pid, signal.SIGSEGV)
        assert "SIGSEGV" in wait_for_loss(running).detail


def test_qemu_stopped(make_launch: Callable[..., Launch]) -> None:
    with start_machine(make_launch()) as running:
        begin = time.monotonic_ns()
        os.kill(running.machine.process.pid, signal.SIGSTOP)
        loss = wait_for_loss(running)
    assert loss.kind is LossKind.QEMU_STALLED
    assert loss.time_ns - begin < 1e9


def test_device_killed(make_launch: Callable[..., Launch]) -> None:
    with start_machine(make_launch()) as running:
        begin = time.monotonic_ns()
        os.kill(running.device.process.pid, signal.SIGKILL)
        loss = wait_for_loss(running)
    assert loss.kind is LossKind.DEVICE_EXITED
    assert loss.detail == "viotest-device was killed by SIGKILL"
    assert loss.time_ns - begin < 100e6


def test_device_stopped(make_launch: Callable[..., Launch]) -> None:
    with start_machine(make_launch()) as running:
        begin = time.monotonic_ns()
        os.kill(running.device.process.pid, signal.SIGSTOP)
        loss = wait_for_loss(running)
    assert loss.kind is LossKind.DEVICE_STALLED
    assert loss.detail == "viotest-device was stopped (state T)"
    assert loss.time_ns - begin < 1e9
    assert running.device.process.status == "was killed by SIGKILL"


def test_device_silent(make_launch: Callable[..., Launch]) -> None:
    with start_machine(make_launch(device="heartless")) as running:
        loss = wait_for_loss(running)
    assert loss.kind is LossKind.DEVICE_STALLED
    assert "no sign of life" in loss.detail


def test_device_stopped_briefly_is_no_loss(make_launch: Callable[..., Launch]) -> None:
    with start_machine(make_launch()) as running:
        os.kill(running.device.process.pid, signal.SIGSTOP)
        time.sleep(0.2)
        os.kill(running.device.process.pid, signal.SIGCONT)
        time.sleep(0.8)
        assert running.watch.loss is None


def test_guest_panics(make_launch: Callable[..., Launch]) -> None:
    with start_machine(make_launch()) as running:
        say(running, "[    1.4] BUG: kernel NULL pointer dereference\r\n")
        begin = time.monotonic_ns()
        say(running, PANIC)
        loss = wait_for_loss(running)
    assert loss.kind is LossKind.GUEST_PANIC
    assert "Fatal exception, after: [    1.4] BUG: kernel NULL" in loss.detail
    assert loss.time_ns - begin < 100e6


def test_guest_panics_and_qemu_exits(make_launch: Callable[..., Launch]) -> None:
    # The console holds more than is read at once, the panic last.
    flood = "".join(f"[    1.0] line {i}\r\n" for i in range(5000))
    with start_machine(make_launch()) as running:
        say(running, flood + PANIC)
        running.machine.process.kill()
        assert wait_for_loss(running).kind is LossKind.GUEST_PANIC


def test_guest_panic_event(make_launch: Callable[..., Launch]) -> None:
    with start_machine(make_launch()) as running:
        event = {"name": "GUEST_PANICKED", "data": {"action": "shutdown"}}
        running.machine.monitor.execute("x-event", event, timeout=5)
        assert wait_for_loss(running).kind is LossKind.GUEST_PANIC


def test_guest_panic_before_reset_is_the_cause(
    make_launch: Callable[..., Launch],
) -> None:
    with start_machine(make_launch()) as running:
        shut_down(running, "guest-reset")
        say(running, PANIC)
        assert wait_for_loss(running).kind is LossKind.GUEST_PANIC


@pytest.mark.parametrize(
    ("reason", "words"),
    [("guest-reset", "rebooted by itself"), ("guest-shutdown", "powered off")],
)
def test_guest_ends_by_itself(
    make_launch: Callable[..., Launch], reason: str, words: str
) -> None:
    with start_machine(make_launch()) as running:
        shut_down(running, reason)
        loss = wait_for_loss(running)
    assert loss.kind is LossKind.GUEST_POWEROFF
    assert words in loss.detail


def test_guest_init_fails(make_launch: Callable[..., Launch]) -> None:
    with start_machine(make_launch()) as running:
        say(running, "VIOTEST-INIT-FAILED modules: vfio_pci: no such file\r\n")
        loss = wait_for_loss(running)
    assert loss.kind is LossKind.GUEST_INIT_FAILED
    assert loss.detail.endswith("modules: vfio_pci: no such file")


def test_beacon_arrives(make_launch: Callable[..., Launch]) -> None:
    with start_machine(make_launch()) as running:
        say(running, 'VIOTEST-BEACON {"monotonic_ns": 5, "release": "6.12"}\r\n')
        beacon = running.watch.wait_for_beacon(5)
    assert (beacon.monotonic_ns, beacon.release) == (5, "6.12")


def test_beacon_deadline(make_launch: Callable[..., Launch]) -> None:
    with start_machine(make_launch()) as running:
        say(running, "rcu: INFO: rcu_sched self-detected stall on CPU\r\n")
        with pytest.raises(GuestLostError) as caught:
            running.watch.wait_for_beacon(0.3)
    assert caught.value.loss.kind is LossKind.DEADLINE
    assert caught.value.loss.detail.startswith("boot: not done within 0.3 s")
    assert "rcu_sched" in caught.value.loss.detail
    assert caught.value.console_tail[-1].startswith("rcu: INFO")


def test_phase_in_time_is_no_loss(make_launch: Callable[..., Launch]) -> None:
    with start_machine(make_launch()) as running:
        with running.watch.phase(Phase.CHECK, 0.2):
            pass
        time.sleep(0.4)
        running.watch.check()


def test_reply_before_loss_is_read(make_launch: Callable[..., Launch]) -> None:
    reader, writer = os.pipe()
    os.write(writer, b"answer")
    with start_machine(make_launch()) as running:
        os.kill(running.machine.process.pid, signal.SIGKILL)
        wait_for_loss(running)
        assert running.watch.wait_readable(reader, 1)
    os.close(reader)
    os.close(writer)
