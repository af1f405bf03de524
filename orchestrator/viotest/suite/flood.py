# SPDX-License-Identifier: GPL-2.0-or-later
"""Many faults and many requests in a row, as steps over an open endpoint."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from viotest.suite.judgement import CheckFailed, expect
from viotest.suite.observe import DeviceWatch, expect_guest_fault
from viotest.suite.passthrough import PAGE
from viotest.suite.steps import GUARD, WORD

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from viotest.report.device_log import DeviceLog, DeviceRecord
    from viotest.suite.passthrough import Passthrough
    from viotest.suite.steps import FaultReasons

# The event queues of our virtio-iommu and of QEMU's have room for 256 and for 64.
_BURST = 64
_NR_BURSTS = 5

_NR_UNMAPS = 32
# Far above what an UNMAP takes on any host, the guest's part of it included.
_SLOW_NS = 20_000_000


def fault_flood(pt: Passthrough, reasons: FaultReasons, log: DeviceLog | None) -> None:
    """More faults than there are event buffers; then one that must be heard of.

    The kernel's log cannot be counted: all but ten messages in five seconds are
    dropped by its rate limit. The device counts, and the last fault is made again
    until the limit lets it through.

    :param log: The log of our virtio-iommu; None if the guest's is QEMU's.
    """
    before = log.counters() if log else {}
    iova = pt.fresh_iova(_BURST * _NR_BURSTS * PAGE)
    for burst in range(_NR_BURSTS):
        refused = _burst(pt, iova + burst * _BURST * PAGE)
        expect(refused, _BURST, f"accesses of {_BURST} that were refused")
    if log:
        told, dropped = _told(before, log.counters())
        made = _BURST * _NR_BURSTS
        expect(told + dropped, made, "faults that the device told of, or dropped")
    last = pt.fresh_iova(PAGE)

    def access() -> object:
        return pt.expect_fault(
            "fill", last, WORD, address=last, reasons=reasons.unmapped
        )

    access()
    expect_guest_fault(pt.probe, pt.endpoint.endpoint_id, last, access)


def _burst(pt: Passthrough, iova: int) -> int:
    seen = pt.probe.call(
        "dma-many",
        op="fill",
        iova=iova,
        length=WORD,
        stride=PAGE,
        count=_BURST,
        operand=0,
        timeout_ms=10000,
    )
    failures = seen["failures"]
    assert isinstance(failures, list)
    return sum(failure.get("status") == "fault" for failure in failures)


def _told(before: Mapping[str, int], after: Mapping[str, int]) -> tuple[int, int]:
    names = ("faults-reported", "faults-dropped")
    told, dropped = (after[name] - before[name] for name in names)
    return told, dropped


def unmap_time(pt: Passthrough, log: DeviceLog) -> None:
    """Many mappings taken away by one call: the device answers each UNMAP at once.

    What counts is the shortest time between the answers to two of them. A busy host
    makes many of them long, and hardly all.
    """
    iova = pt.fresh_iova(_NR_UNMAPS * PAGE)
    pt.buffer("one", PAGE, byte=GUARD)
    for i in range(_NR_UNMAPS):
        pt.map("one", iova + i * PAGE)
    watch = DeviceWatch(log)
    pt.unmap(iova, _NR_UNMAPS * PAGE)
    pt.free("one")
    unmaps = watch.records("unmap")
    expect(len(unmaps), _NR_UNMAPS, "UNMAP requests for as many mappings")
    fastest = shortest_gap(unmaps)
    if fastest > _SLOW_NS:
        raise CheckFailed(
            f"no UNMAP of {_NR_UNMAPS} was answered within {_SLOW_NS // 10**6} ms",
            expected="well below a millisecond, for which the kernel spins",
            seen=f"the fastest took {fastest / 1e6:.1f} ms",
            cause="the device holds requests back",
        )


def shortest_gap(records: Sequence[DeviceRecord]) -> int:
    """Return the shortest time between two neighbours, in nanoseconds.

    :param records: At least two, oldest first.
    """
    return min(b.ns - a.ns for a, b in itertools.pairwise(records))
