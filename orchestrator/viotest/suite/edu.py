# SPDX-License-Identifier: GPL-2.0-or-later
"""QEMU's ``edu`` device: an endpoint inside QEMU, to compare ours with.

Its DMA engine moves up to 4 KiB between memory and a buffer of its own; QEMU's
docs/specs/edu.rst describes the registers.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from viotest.suite.judgement import CheckFailed
from viotest.suite.observe import expect_guest_fault
from viotest.suite.passthrough import PAGE
from viotest.suite.steps import GUARD, mapped

if TYPE_CHECKING:
    from viotest.suite.passthrough import Passthrough

_DMA_SOURCE, _DMA_DESTINATION, _DMA_COUNT, _DMA_COMMAND = 0x80, 0x88, 0x90, 0x98
_START, _TO_MEMORY = 1, 2
#: Where its buffer is for its DMA engine.
_BUFFER = 0x40000
#: It starts 100 ms of the guest's time after it was told.
_TIMEOUT = 20.0


def prove_edu(pt: Passthrough) -> None:
    """Move a page through two mappings.

    :raise CheckFailed: When other bytes arrive, or none.
    """
    with (
        mapped(pt, "src", PAGE, flags="r", byte=0) as src,
        mapped(pt, "dst", PAGE, flags="w", byte=0) as dst,
    ):
        pt.fill("src", seed=1)
        _move(pt, src, _BUFFER, 0)
        _move(pt, _BUFFER, dst, _TO_MEMORY)
        pt.expect_equal("src", "dst", PAGE)


def expect_edu_fault(pt: Passthrough) -> None:
    """Let it write to what it may only read: nothing changes, and the guest is told.

    :raise CheckFailed: When memory changes, or no fault is reported.
    """
    with mapped(pt, "rom", PAGE, flags="r", byte=GUARD) as rom:
        _move(pt, _BUFFER, rom, _TO_MEMORY)
        expect_guest_fault(
            pt.probe,
            pt.endpoint.endpoint_id,
            rom,
            lambda: _move(pt, _BUFFER, rom, _TO_MEMORY),
        )
        pt.expect_untouched("rom", GUARD)


def _move(pt: Passthrough, source: int, destination: int, direction: int) -> None:
    for register, value in (
        (_DMA_SOURCE, source),
        (_DMA_DESTINATION, destination),
        (_DMA_COUNT, PAGE),
        (_DMA_COMMAND, _START | direction),
    ):
        pt.probe.call("bar-write", bar=0, offset=register, size=8, value=value)
    deadline = time.monotonic() + _TIMEOUT
    # Its interrupt would be another thing that must work; each look is a round trip.
    while _busy(pt):
        if time.monotonic() > deadline:
            raise CheckFailed(f"edu's DMA has not ended within {_TIMEOUT:.0f} s")


def _busy(pt: Passthrough) -> bool:
    seen = pt.probe.call("bar-read", bar=0, offset=_DMA_COMMAND, size=8)
    return bool(int(str(seen["value"])) & _START)
