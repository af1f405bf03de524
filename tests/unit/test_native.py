# SPDX-License-Identifier: GPL-2.0-or-later
"""What the checks of native drivers read out of the guest."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from viotest.guest.ssh import ExecResult
from viotest.suite.judgement import CheckFailed
from viotest.suite.native import DmatestSummary, Shell, parse_dmatest

if TYPE_CHECKING:
    from viotest.suite.context import Context

_DMESG = """
[    6.2] dmatest: Started 1 threads using dma0chan1
[    6.7] dmatest: dma0chan0-copy0: summary 40 tests, 0 failures 51.80 iops 16 KB/s (0)
[    6.9] dmatest: dma0chan1-copy0: result #3: 'data error' with src_off=0x0 (7)
[    7.0] dmatest: dma0chan1-copy0: summary 40 tests, 2 failures 48.77 iops 15 KB/s (0)
"""


class _Guest:
    def __init__(self, status: int) -> None:
        self._status = status

    def exec(self, command: str, *, timeout: float) -> ExecResult:
        assert command
        assert timeout
        return ExecResult(self._status, b"out", b"no such thing")


def _shell(status: int) -> Shell:
    guest: Context = _Guest(status)  # type: ignore[assignment]
    return Shell(guest)


def test_dmatest_summaries_are_read() -> None:
    assert parse_dmatest(_DMESG) == [
        DmatestSummary("dma0chan0-copy0", 40, 0),
        DmatestSummary("dma0chan1-copy0", 40, 2),
    ]


def test_command_that_fails_fails_the_check() -> None:
    assert _shell(0).run("true") == "out"
    with pytest.raises(CheckFailed) as caught:
        _shell(3).run("false")
    assert "exit status 3: no such thing" in caught.value.details


@pytest.mark.parametrize(("status", "there"), [(0, True), (2, False), (127, False)])
def test_module_that_a_guest_lacks_is_no_failure(status: int, there: bool) -> None:
    assert _shell(status).has_module("ioatdma") is there


def test_module_that_cannot_be_loaded_is_one() -> None:
    with pytest.raises(CheckFailed, match="cannot be loaded"):
        _shell(1).has_module("ioatdma")
