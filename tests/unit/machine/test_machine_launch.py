# SPDX-License-Identifier: GPL-2.0-or-later
"""start_machine() with small real processes in the place of QEMU and the device."""

from __future__ import annotations

import dataclasses
import gc
import os
import stat
import time
from typing import TYPE_CHECKING

import pytest

from viotest.machine.errors import AbnormalShutdownError, LaunchError, MonitorError
from viotest.machine.launch import Launch, start_machine
from viotest.machine.owner import State
from viotest.machine.watch import GuestLostError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.unit.machine.conftest import Timeline


def sockets(folder: Path) -> list[str]:
    """Return the sockets and FIFOs in a folder."""
    modes = {p.name: p.lstat().st_mode for p in folder.iterdir()}
    return [n for n, m in modes.items() if stat.S_ISSOCK(m) or stat.S_ISFIFO(m)]


def open_fds() -> int:
    gc.collect()  # what other tests have left to it
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208


def test_machine_runs_and_ends(make_launch: Callable[..., Launch]) -> None:
    launch = make_launch()
    with start_machine(launch) as running:
        states = [running.device.state, running.machine.state]
        assert states == [State.RUNNING, State.RUNNING]
        status = running.machine.monitor.execute("query-status", timeout=5)
        assert status == {"status": "running", "running": True}
        assert running.device.monitor.execute("query-status", timeout=5) == {}
        # Whatever happens to us now, no socket can stay behind.
        assert sockets(launch.folder) == []
    assert running.machine.state is State.IDLE
    assert running.machine.process.returncode == 0
    assert running.device.process.returncode == 0
    assert running.watch.loss is None
    assert sockets(launch.folder) == []


def test_machine_leaves_no_descriptor(make_launch: Callable[..., Launch]) -> None:
    with start_machine(make_launch()):
        pass
    before = open_fds()
    # Several times: descriptors of other tests may still be on their way out, and
    # must not hide what is left here.
    for _ in range(4):
        with start_machine(make_launch()):
            pass
        with pytest.raises(LaunchError), start_machine(make_launch(qemu="early")):
            pass
    assert open_fds() <= before


def test_launch_qemu_refuses(make_launch: Callable[..., Launch]) -> None:
    launch = make_launch(qemu="broken")
    with pytest.raises(LaunchError) as caught, start_machine(launch):
        pass
    assert str(caught.value) == (
        "QEMU exited with status 1 while starting: "
        "qemu: -device vfio-user-pci: Connection refused"
    )
    assert caught.value.argv == launch.qemu_argv
    assert sockets(launch.folder) == []


def test_launch_qemu_exits_while_negotiating(
    make_launch: Callable[..., Launch],
) -> None:
    with (
        pytest.raises(LaunchError, match="QEMU exited with status 1 while starting"),
        start_machine(make_launch(qemu="early")),
    ):
        pass


def test_launch_qemu_hangs(make_launch: Callable[..., Launch]) -> None:
    launch = make_launch(qemu="hang", timeout=0.5)
    with (
        pytest.raises(LaunchError, match="QEMU: qmp monitor: no session"),
        start_machine(launch),
    ):
        pass


def test_launch_device_refuses(make_launch: Callable[..., Launch]) -> None:
    with (
        pytest.raises(LaunchError) as caught,
        start_machine(make_launch(device="broken")),
    ):
        pass
    assert "viotest-device exited with status 3" in str(caught.value)
    assert "sokcet" in caught.value.output


@pytest.mark.parametrize(
    ("mode", "reason"), [("mute", "not ready in time"), ("confused", "b'hello")]
)
def test_launch_device_not_ready(
    make_launch: Callable[..., Launch], mode: str, reason: str
) -> None:
    launch = make_launch(device=mode, timeout=0.5)
    with pytest.raises(LaunchError, match=reason), start_machine(launch):
        pass


def test_launch_device_dies_under_qemu(make_launch: Callable[..., Launch]) -> None:
    begin = time.monotonic()
    with (
        pytest.raises(LaunchError) as caught,
        start_machine(make_launch(qemu="hang", device="brief")),
    ):
        pass
    assert "viotest-device exited with status 7 while QEMU" in str(caught.value)
    assert time.monotonic() - begin < 5


def test_launch_no_such_binary(make_launch: Callable[..., Launch]) -> None:
    launch = dataclasses.replace(make_launch(), qemu_argv=("/nonexistent/qemu",))
    with (
        pytest.raises(LaunchError, match="No such file or directory: /nonexistent"),
        start_machine(launch),
    ):
        pass


def test_exception_kills_without_asking(make_launch: Callable[..., Launch]) -> None:
    launch = make_launch(qemu="stubborn", device="stubborn")
    begin = time.monotonic()
    with pytest.raises(KeyboardInterrupt), start_machine(launch) as running:
        raise KeyboardInterrupt
    assert time.monotonic() - begin < 1
    assert running.machine.process.status == "was killed by SIGKILL"
    assert running.device.process.status == "was killed by SIGKILL"


def test_shutdown_unheard_kills(make_launch: Callable[..., Launch]) -> None:
    with (
        pytest.raises(AbnormalShutdownError, match="QEMU did not end within 1 s"),
        start_machine(make_launch(qemu="stubborn")) as running,
    ):
        pass
    assert running.machine.process.status == "was killed by SIGKILL"
    assert not running.device.process.alive


def test_shutdown_bad_status(make_launch: Callable[..., Launch]) -> None:
    with (
        pytest.raises(AbnormalShutdownError, match="QEMU exited with status 9"),
        start_machine(make_launch(qemu="leaky")),
    ):
        pass


def test_monitor_refusal(make_launch: Callable[..., Launch]) -> None:
    with start_machine(make_launch()) as running:
        with pytest.raises(MonitorError, match="no such command") as caught:
            running.machine.monitor.execute("x-refuse", timeout=5)
        assert caught.value.command == "x-refuse"
        assert caught.value.error_class == "CommandNotFound"


def test_monitor_silence(make_launch: Callable[..., Launch]) -> None:
    with (
        pytest.raises(MonitorError, match=r"quit: no answer within 0\.1 s"),
        start_machine(make_launch(qemu="stubborn")) as running,
    ):
        running.machine.monitor.execute("quit", timeout=0.1)


def test_monitor_peer_dies(make_launch: Callable[..., Launch]) -> None:
    with start_machine(make_launch()) as running:
        monitor = running.machine.monitor
        with pytest.raises(MonitorError, match="x-exit"):
            monitor.execute("x-exit", {"status": 4}, timeout=5)
        assert monitor.closed.wait(5)
        with pytest.raises(MonitorError):
            monitor.execute("query-status", timeout=5)
        with pytest.raises(GuestLostError, match="QEMU exited with status 4"):
            running.watch.check(5)


def test_monitor_events_are_recorded(
    make_launch: Callable[..., Launch], timeline: Timeline
) -> None:
    with start_machine(make_launch(), record=timeline) as running:
        event = {"name": "RTC_CHANGE", "data": {"offset": 1}}
        running.machine.monitor.execute("x-event", event, timeout=5)
        running.machine.monitor.execute("query-status", timeout=5)
    assert timeline.named("qmp", "RTC_CHANGE") == [{"offset": 1}]
