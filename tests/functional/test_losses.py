# SPDX-License-Identifier: GPL-2.0-or-later
"""What ends a run early: told apart, named, and recognised in time."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.functional.harness import Finished, Run, Viotest

_RUN_WITH_SUITE = Path(__file__).with_name("run_with_suite.py")

#: The moment at which checks are running, and the guest is busy with them.
CHECKING = r"pass +bar"
BEACON = "VIOTEST-BEACON"
#: The loss is what is looked at, not what comes after it.
ONE_GUEST = ("--reboots", "0")


def kill(run: Run, name: str, number: signal.Signals) -> int:
    """Send a signal to ``qemu`` or ``device``; return when, CLOCK_MONOTONIC ns."""
    pid = run.child(name)
    before = time.monotonic_ns()
    os.kill(pid, number)
    return before


def lost(done: Finished) -> dict[str, Any]:
    """Return the one event that tells of the loss."""
    [event] = done.events("watch", "lost")
    return event


def running_check(done: Finished) -> dict[str, Any]:
    """Return the last check's result; fail if others were put after it."""
    checks = done.results["checks"]
    started = done.events("check", "start")
    assert started[-1]["data"]["id"] == checks[-1]["id"]
    assert isinstance(checks[-1], dict)
    return checks[-1]


@pytest.mark.parametrize(
    ("name", "number", "kind", "text", "limit"),
    [
        ("qemu", signal.SIGKILL, "qemu-exited", "QEMU was killed by SIGKILL", 0.1),
        (
            "device",
            signal.SIGKILL,
            "device-exited",
            "viotest-device was killed by SIGKILL",
            0.1,
        ),
        (
            "device",
            signal.SIGSTOP,
            "device-stalled",
            "viotest-device was stopped (state T)",
            1.0,
        ),
        ("qemu", signal.SIGSTOP, "qemu-stalled", "QEMU was stopped (state T)", 1.0),
    ],
    ids=["qemu-killed", "device-killed", "device-stopped", "qemu-stopped"],
)
def test_process_lost_in_checks_is_untested(
    viotest: Viotest,
    name: str,
    number: signal.Signals,
    kind: str,
    text: str,
    limit: float,
) -> None:
    run = viotest.start(*ONE_GUEST)
    run.wait_for_line(CHECKING)
    when = kill(run, name, number)
    done = run.finish()
    results = done.expect("UNTESTED", 125)
    assert results["cause"]["category"] == "infra"
    assert results["cause"]["text"] == text
    assert BEACON in "\n".join(results["cause"]["console"])
    assert f"cause    infra: {text}" in done.stdout
    event = lost(done)
    assert event["data"] == {"kind": kind, "detail": text}
    assert 0 < event["ns"] - when < limit * 1e9
    check = running_check(done)
    assert (check["outcome"], check["reason"]) == ("error", text)
    # Nothing waited for a timeout on the way out.
    assert time.monotonic_ns() - event["ns"] < 5e9


def write_suite(viotest: Viotest, *body: str) -> tuple[str, ...]:
    """Write a suite whose first check does ``body``; return how to run it."""
    folder = viotest.folder / "suite"
    folder.mkdir()
    lines = [
        "def test_bind(viotest_context):",
        "    call = viotest_context.probe().call",
        *(f"    {line}" for line in body),
        "    call('dmesg', clear=1)",
        "    call('dmesg', timeout_ms=60000, timeout=60)",
        "",
        "def test_open(viotest_context):",
        "    raise AssertionError('a check was put to a guest that is lost')",
    ]
    (folder / "test_loss.py").write_text("\n".join(lines) + "\n")
    return sys.executable, os.fspath(_RUN_WITH_SUITE), os.fspath(folder)


def sysrq(key: str) -> str:
    """Return the line that has the guest's kernel carry out a SysRq command."""
    return f"call('write', path='/proc/sysrq-trigger', data='{key}')"


def test_guest_panic_in_check_is_fail(viotest: Viotest) -> None:
    done = viotest.run(*ONE_GUEST, command=write_suite(viotest, sysrq("c")))
    results = done.expect("FAIL", 1)
    assert results["cause"]["category"] == "fail"
    assert "Kernel panic - not syncing: sysrq triggered" in results["cause"]["text"]
    assert "RIP:" in "\n".join(results["cause"]["console"])
    event = lost(done)
    assert event["data"]["kind"] == "guest-panic"
    # From the guest's own word of it to ours.
    [panic] = done.events("console", "panic")
    assert event["ns"] - panic["ns"] < 100e6
    check = running_check(done)
    assert check["outcome"] == "fail"
    assert "Kernel panic" in check["reason"]


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("o", "the guest powered off by itself"),
        ("b", "the guest rebooted by itself"),
    ],
    ids=["poweroff", "reboot"],
)
def test_guest_gone_in_check_is_fail(viotest: Viotest, key: str, text: str) -> None:
    done = viotest.run(*ONE_GUEST, command=write_suite(viotest, sysrq(key)))
    results = done.expect("FAIL", 1)
    assert results["cause"]["category"] == "fail"
    assert results["cause"]["text"] == f"bind: {text}"
    assert results["cause"]["console"]
    event = lost(done)
    assert event["data"]["kind"] == "guest-poweroff"
    [shutdown] = done.events("qmp", "SHUTDOWN")
    assert event["ns"] - shutdown["ns"] < 100e6
    assert running_check(done)["outcome"] == "fail"


def test_guest_hang_in_check_is_fail_by_timeout(viotest: Viotest) -> None:
    # Suspended to idle, with nothing that would ever wake it.
    hang = "call('write', path='/sys/power/state', data='freeze')"
    command = write_suite(viotest, hang)
    done = viotest.run(*ONE_GUEST, "--timeout", "check=3", command=command)
    results = done.expect("FAIL", 1)
    assert results["cause"]["category"] == "timeout"
    assert results["cause"]["text"] == "bind: check: not done within 3 s"
    assert "Suspending console" in results["cause"]["console"][-1]
    event = lost(done)
    assert event["data"]["kind"] == "deadline"
    [start] = done.events("check", "start")
    [connected] = done.events("guest", "connected")
    assert 3e9 <= event["ns"] - max(start["ns"], connected["ns"]) < 4e9


def test_guest_that_answers_no_more_is_fail_by_timeout(viotest: Viotest) -> None:
    # The caller's patience ends before the check's deadline.
    hang = "call('write', path='/sys/power/state', data='freeze', timeout=2)"
    done = viotest.run(*ONE_GUEST, command=write_suite(viotest, hang))
    results = done.expect("FAIL", 1)
    assert results["cause"]["category"] == "timeout"
    assert "no answer from the guest within 2 s" in results["cause"]["text"]
    assert "Suspending console" in results["cause"]["console"][-1]


NO_INIT = ("--append", "rdinit=/nonexistent")
#: The guest's shell waits for a command on a console that gives it none.
NO_BEACON = ("--append", "rdinit=/bin/sh", "--timeout", "boot=5")


@pytest.mark.parametrize("bad", [False, True], ids=["untested", "bad"])
@pytest.mark.parametrize(
    ("args", "kind", "text"),
    [
        (NO_INIT, "guest-panic", "Kernel panic - not syncing"),
        (NO_BEACON, "deadline", "boot: not done within 5 s"),
    ],
    ids=["panic", "no-beacon"],
)
def test_boot_failure_is_told_apart(
    viotest: Viotest, args: tuple[str, ...], kind: str, text: str, bad: bool
) -> None:
    more = ("--boot-fail-is", "bad") if bad else ()
    done = viotest.run(*args, *more)
    results = done.expect(*(("FAIL", 1) if bad else ("UNTESTED", 125)))
    assert results["cause"]["category"] == "boot-fail"
    assert text in results["cause"]["text"]
    assert results["cause"]["console"]
    assert lost(done)["data"]["kind"] == kind
    assert results["checks"] == []
    assert "beacon" not in results["phases"]
    assert done.lines[-1].startswith(results["verdict"])


def test_qemu_that_does_not_start_is_infra_even_if_boot_fail_is_bad(
    viotest: Viotest,
) -> None:
    done = viotest.run("--qemu-arg=-bogus", "--boot-fail-is", "bad")
    results = done.expect("UNTESTED", 125)
    assert results["cause"]["category"] == "infra"
    assert "QEMU exited with status 1" in results["cause"]["text"]
    assert "-bogus: invalid option" in results["cause"]["text"]
    assert results["checks"] == []


def test_qemu_that_dies_in_boot_is_infra(viotest: Viotest) -> None:
    run = viotest.start()
    kill(run, "qemu", signal.SIGKILL)
    results = run.finish().expect("UNTESTED", 125)
    assert results["cause"]["category"] == "infra"
    assert "QEMU was killed by SIGKILL" in results["cause"]["text"]


def write_two_checks(viotest: Viotest, first: str) -> tuple[str, ...]:
    """Write a suite whose second check wants a guest that is well."""
    command = write_suite(viotest)
    lines = [
        "def test_bind(viotest_context):",
        "    call = viotest_context.probe().call",
        f"    {first}",
        "",
        "def test_open(viotest_context):",
        "    viotest_context.probe().call('hello')",
    ]
    (Path(command[-1]) / "test_loss.py").write_text("\n".join(lines) + "\n")
    return command


def test_another_guest_takes_the_place_of_one_that_panicked(viotest: Viotest) -> None:
    panic = sysrq("c").replace("')", "', timeout=30)")
    done = viotest.run(command=write_two_checks(viotest, panic))
    results = done.expect("FAIL", 1)
    checks = [(c["id"], c["outcome"], c["guest"]) for c in results["checks"]]
    assert checks == [("bind", "fail", ""), ("open", "pass", "guest-2")]
    assert "Kernel panic" in results["cause"]["text"]
    assert "RIP:" in "\n".join(results["cause"]["console"])
    first, second = results["guests"]
    assert "Kernel panic" in first["lost"]["text"]
    assert second["booted"]
    assert second["lost"] is None
    assert BEACON in (done.out / "guest-2" / "console.log").read_text()


def test_complaint_of_the_guests_kernel_fails_its_check(viotest: Viotest) -> None:
    # A line as WARN() begins, from user space: /dev/kmsg is the same log.
    text = "WARNING: CPU: 0 PID: 1 at drivers/iommu/virtio-iommu.c:1 test+0x1/0x2"
    warn = f"call('write', path='/dev/kmsg', data='{text}\\n')"
    done = viotest.run(command=write_two_checks(viotest, warn))
    results = done.expect("FAIL", 1)
    bind, opened = results["checks"]
    assert bind["reason"] == f"the guest's kernel said: {text}"
    assert f"dmesg    {text}" in bind["details"]
    # And what such a guest says next is not relied upon.
    assert (opened["outcome"], opened["guest"]) == ("pass", "guest-2")
