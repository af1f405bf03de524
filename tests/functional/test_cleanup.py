# SPDX-License-Identifier: GPL-2.0-or-later
"""Nothing survives a run, however it ends; and runs do not meet one another.

What is left is looked for by the ``viotest`` fixture, after each test.
"""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from tests.functional.harness import wait_for
from tests.functional.test_losses import CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.functional.harness import Run, Viotest

    Start = Callable[[Viotest], Run]

EXIT_INTERRUPTED = 130
#: The guest's shell waits for a command: the boot never ends.
BOOTING = ("--append", "rdinit=/bin/sh")


def start_checking(viotest: Viotest) -> Run:
    run = viotest.start()
    run.wait_for_line(CHECKING)
    return run


def start_booting(viotest: Viotest) -> Run:
    run = viotest.start(*BOOTING)
    run.child("qemu")
    return run


STARTS = pytest.mark.parametrize("start", [start_checking, start_booting])


def expect_interrupted(viotest: Viotest, run: Run) -> None:
    done = run.finish(timeout=30)
    assert done.returncode == EXIT_INTERRUPTED
    assert done.stderr == (
        "viotest: interrupted; nothing was left running; what was recorded until then"
        f" is in {run.out.name}\n"
    )
    # It is true at once, not only soon.
    viotest.expect_gone(timeout=0.0)
    # What was seen until then is kept, in order.
    stamps = [event["ns"] for event in done.timeline]
    assert stamps == sorted(stamps)


@STARTS
def test_ctrl_c_ends_everything(viotest: Viotest, start: Start) -> None:
    run = start(viotest)
    os.killpg(run.popen.pid, signal.SIGINT)
    expect_interrupted(viotest, run)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_polite_signal_ends_everything(
    viotest: Viotest, number: signal.Signals
) -> None:
    run = start_checking(viotest)
    run.popen.send_signal(number)
    expect_interrupted(viotest, run)


@STARTS
def test_killed_orchestrator_takes_all_with_it(viotest: Viotest, start: Start) -> None:
    run = start(viotest)
    run.child("qemu")
    run.child("device")
    run.popen.kill()
    assert run.finish().returncode == -signal.SIGKILL
    viotest.expect_gone()


@pytest.mark.parametrize("name", ["initrd.cpio", "ep0.sock", "qmp.sock"])
def test_orchestrator_killed_in_launch_leaves_nothing(
    viotest: Viotest, name: str
) -> None:
    run = viotest.start()
    file = run.out / name
    wait_for(lambda: 1 if file.exists() else None, name)
    run.popen.kill()
    run.finish()
    viotest.expect_gone()
    assert not file.exists()


def test_killed_orchestrator_ends_a_stopped_device(viotest: Viotest) -> None:
    run = start_checking(viotest)
    os.kill(run.child("device"), signal.SIGSTOP)
    run.popen.kill()
    run.finish()
    viotest.expect_gone()


def test_four_runs_at_once_pass(viotest: Viotest) -> None:
    runs = [viotest.start() for _ in range(4)]
    for run in runs:
        run.finish().expect("PASS", 0)


@pytest.mark.nightly
def test_twenty_runs_in_a_row_pass(viotest: Viotest) -> None:
    for _ in range(20):
        viotest.run().expect("PASS", 0)
        viotest.expect_nothing_left()
