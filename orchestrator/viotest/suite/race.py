# SPDX-License-Identifier: GPL-2.0-or-later
"""Memory is taken away from an endpoint that is writing to it.

The moment that matters is the return of the call that takes it away: from then on not
a byte may change. The loop is the probe's (``race`` in guest-images/probe), because
from out here that moment would be milliseconds late.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pytest

from viotest.scenario.topology import own_id
from viotest.suite.judgement import CheckFailed, expect
from viotest.suite.mapping import GIB, HUGE_PAGE, has_huge_pages
from viotest.suite.steps import GUARD, KIB, MIB

if TYPE_CHECKING:
    from collections.abc import Mapping

    from viotest.suite.observe import DeviceWatch
    from viotest.suite.passthrough import Passthrough

_TIMEOUT = 200.0
_MORE_SLOTS = (32, 128)
# enum dma_engine_status: whatever ended DMA before its time.
_CUT = (3, 5, 6)


@dataclass(frozen=True)
class Load:
    """How hard it is tried."""

    #: How often the memory is taken away.
    rounds: int
    #: Transactions at once, each over all of it.
    slots: int
    #: Before the last round's call; before the first one's none.
    delay_us: int
    #: How much each transaction writes.
    size: int


#: A few transactions only: each one that is cut off makes the guest's driver report a
#: fault, and of those it prints ten in five seconds.
SHORT = Load(rounds=3, slots=8, delay_us=12_000, size=256 * MIB)
LONG = Load(rounds=25, slots=128, delay_us=100_000, size=GIB)
#: What is open can be closed once.
CLOSE = Load(rounds=1, slots=16, delay_us=0, size=256 * MIB)


def unmap_race(pt: Passthrough, load: Load) -> None:
    """The mapping goes, all at once, while the endpoint writes through it."""
    _race_often(pt, "unmap", load)


def detach_race(pt: Passthrough, load: Load) -> None:
    """The endpoint is detached while it writes; the mapping stays."""
    _race_often(pt, "detach", load)


def close_race(pt: Passthrough, watch: DeviceWatch) -> None:
    """Everything is closed while the endpoint writes; opened again at the end.

    :param watch: The device's log since before.
    """
    size, distinct = _victim(pt, CLOSE)
    seen = _race(pt, "close", size, CLOSE)
    _expect_clean(seen, "close", distinct)
    pt.open()
    # Whatever was still on its way has been stopped by the reset of opening.
    pt.expect_untouched("victim", GUARD, size=distinct)
    own = own_id(pt.endpoint)
    ended = [r.status for r in watch.records("dma") if r.endpoint == own]
    expect(len(ended), CLOSE.slots, "transactions that ended")
    if not any(status in _CUT for status in ended):
        pytest.skip(_TOO_LATE)
    pt.free("victim")


_TOO_LATE = "all DMA was over before the memory was taken away: the host is too busy"


def _race_often(pt: Passthrough, how: str, load: Load) -> None:
    size, distinct = _victim(pt, load)
    # On a busy host the DMA may be over before its memory goes: then more of it.
    for slots in (load.slots, *_MORE_SLOTS):
        seen = _race(pt, how, size, replace(load, slots=slots))
        _expect_clean(seen, how, distinct)
        expect(seen["rounds"], load.rounds, "rounds")
        expect(seen["nr_other"], 0, "transactions that ended otherwise than by a fault")
        if seen["nr_cut"]:
            break
    else:
        pytest.skip(_TOO_LATE)
    pt.free("victim")


def _victim(pt: Passthrough, load: Load) -> tuple[int, int]:
    # A large range over little memory: DMA takes long, and the guard is there at once.
    huge = has_huge_pages(pt, 1)
    size = load.size if huge else min(load.size, 16 * MIB)
    distinct = min(size, HUGE_PAGE if huge else 256 * KIB)
    pt.buffer("victim", size, huge=huge, alias=distinct)
    return size, distinct


def _race(pt: Passthrough, how: str, size: int, load: Load) -> Mapping[str, Any]:
    return pt.probe.call(
        "race",
        name="victim",
        iova=pt.fresh_iova(size),
        how=how,
        slots=load.slots,
        rounds=load.rounds,
        delay_us=load.delay_us,
        guard=GUARD,
        timeout=_TIMEOUT,
    )


def _expect_clean(seen: Mapping[str, Any], how: str, distinct: int) -> None:
    if seen["first_dirty"] is None:
        return
    raise CheckFailed(
        f"memory was written after the {how} had returned, in round {seen['rounds']}",
        expected="DMA in flight ends before the call returns",
        seen=f"byte {seen['first_dirty']:#x} of {distinct:#x} changed afterwards;"
        f" {seen['nr_cut']} transactions were stopped, {seen['nr_ok']} were not",
        cause=f"the IOMMU was not told of the {how}, or nobody waited for its answer",
    )
