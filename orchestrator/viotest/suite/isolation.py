# SPDX-License-Identifier: GPL-2.0-or-later
"""What two open endpoints may reach of each other's memory, as steps over both."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from viotest.suite.judgement import CheckFailed, expect
from viotest.suite.passthrough import PAGE
from viotest.suite.steps import GUARD, WORD, mapped

if TYPE_CHECKING:
    from collections.abc import Iterator

    from viotest.report.device_log import DeviceRecord
    from viotest.suite.observe import DeviceWatch
    from viotest.suite.passthrough import Passthrough
    from viotest.suite.steps import FaultReasons

_LEAK = "an endpoint is translated by the mappings of another one's domain"


@contextmanager
def _mapped_at(pt: Passthrough, name: str, iova: int) -> Iterator[None]:
    pt.buffer(name, PAGE, byte=GUARD)
    pt.map(name, iova)
    yield
    pt.unmap(iova, PAGE)
    pt.free(name)


def _expect_lands_in(pt: Passthrough, iova: int, mine: str, others: str) -> None:
    # Both begin as GUARD, and so they are left.
    pt.expect_dma("fill", iova, PAGE, operand=0)
    pt.expect_untouched(mine, 0)
    pt.expect_untouched(others, GUARD)
    pt.expect_dma("fill", iova, PAGE, operand=GUARD * 0x0101010101010101)
    pt.expect_untouched(mine, GUARD)


def apart(first: Passthrough, second: Passthrough, reasons: FaultReasons) -> None:
    """Two address spaces: what is mapped in one means nothing in the other.

    The same address leads each to its own page; and an address that only one has
    mapped is refused to the other, in both directions, before and after the other
    has been there.
    """
    iova = max(pt.fresh_iova(PAGE) for pt in (first, second))
    with _mapped_at(first, "first", iova), _mapped_at(second, "second", iova):
        _expect_lands_in(first, iova, "first", "second")
        _expect_lands_in(second, iova, "second", "first")
    for owner, other in ((first, second), (second, first)):
        iova = max(pt.fresh_iova(PAGE) for pt in (first, second))
        with _mapped_at(owner, "owned", iova):
            _expect_refused(other, iova, reasons)
            owner.expect_dma("fill", iova, PAGE, operand=0)
            owner.probe.call("set", name="owned", byte=GUARD)
            _expect_refused(other, iova, reasons)
            owner.expect_untouched("owned", GUARD)


def _expect_refused(pt: Passthrough, iova: int, reasons: FaultReasons) -> None:
    for op in ("read", "fill"):
        try:
            pt.expect_fault(op, iova, WORD, address=iova, reasons=reasons.unmapped)
        except CheckFailed as failure:
            raise CheckFailed(
                f"{pt.endpoint.name} reached what only another endpoint has mapped:"
                f" {failure.reason}",
                expected=f"a fault of EP {pt.endpoint.endpoint_id} at {iova:#x}",
                seen=failure.reason,
                cause=_LEAK,
            ) from failure


def together(
    first: Passthrough, second: Passthrough, reasons: FaultReasons, before: int
) -> None:
    """One address space: whoever maps, both reach it, and unmapping is for both.

    :param before: Address of the page ``before``, which was mapped before the
        second endpoint came.
    """
    for pt in (first, second):
        pt.expect_dma("fill", before, PAGE, operand=0)
        pt.expect_untouched("before", 0)
        pt.probe.call("set", name="before", byte=GUARD)
    with mapped(first, "after", PAGE, flags="rw", byte=GUARD) as after:
        for pt in (second, first):
            pt.expect_dma("fill", after, PAGE, operand=0)
            pt.expect_untouched("after", 0)
            pt.probe.call("set", name="after", byte=GUARD)
        # From one to the other, through memory.
        first.fill("before", seed=PAGE)
        second.expect_dma("copy", before, PAGE, operand=after)
        first.expect_equal("before", "after", PAGE)
        seen = first.expect_dma("checksum", after, PAGE).result
        expect(seen, first.crc("before"), "CRC-32 of what the other endpoint wrote")
    for pt in (first, second):
        pt.expect_fault("fill", after, WORD, address=after, reasons=reasons.unmapped)


def alone_again(
    first: Passthrough, second: Passthrough, reasons: FaultReasons, before: int
) -> None:
    """The second endpoint leaves; the mappings stay with the first, and only there.

    Opened again on its own, the second finds nothing of them.
    """
    second.close()
    first.expect_dma("fill", before, PAGE, operand=0)
    second.open()
    _expect_refused(second, before, reasons)


def expect_one_domain(watch: DeviceWatch, first: int, second: int) -> None:
    """Fail unless the second endpoint was attached to the domain of the first.

    :param watch: The device's log since before the first was opened.
    """
    records = watch.records("attach")
    domains = [_last_domain(records, endpoint_id) for endpoint_id in (first, second)]
    expect(domains[1], domains[0], f"domain of EP {second}, which shares EP {first}'s")


def _last_domain(records: list[DeviceRecord], endpoint_id: int) -> int:
    found = [r.domain for r in records if (r.endpoint, r.status) == (endpoint_id, 0)]
    if not found:
        raise CheckFailed(
            f"the device saw no ATTACH of EP {endpoint_id}",
            expected="opening the endpoint attaches it",
        )
    return found[-1]
