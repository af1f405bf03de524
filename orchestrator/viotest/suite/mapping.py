# SPDX-License-Identifier: GPL-2.0-or-later
"""Mappings at their limits: size, number, place, overlap, and what asks for them.

As in :mod:`viotest.suite.steps`, every step cleans up behind itself.
"""

from __future__ import annotations

import re
import zlib
from typing import TYPE_CHECKING

import pytest

from viotest.conformance.wire import Status
from viotest.guest.probe import ProbeError
from viotest.scenario.model import TYPE1_MODES, Mode
from viotest.suite.judgement import CheckFailed, expect
from viotest.suite.observe import DeviceWatch
from viotest.suite.passthrough import PAGE
from viotest.suite.steps import GUARD, KIB, LOAD_SLOTS, MIB, WORD, mapped, refusal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from viotest.report.device_log import DeviceLog, DeviceRecord
    from viotest.suite.passthrough import Passthrough
    from viotest.suite.steps import FaultReasons

GIB = 1024 * MIB
HUGE_PAGE = 2 * MIB

#: The kernel's limit of mappings in a type1 container, for those opened from now on.
TYPE1_LIMIT = "/sys/module/vfio_iommu_type1/parameters/dma_entry_limit"

_POOL = "/proc/sys/vm/nr_hugepages"
_REFUSED = ("EINVAL", "EADDRINUSE", "EOVERFLOW")
# VIRTIO_IOMMU_MAP_F_READ and _WRITE (virtio 1.2, 5.13.6.5).
_MAP_FLAGS = {"r": 1, "w": 2, "rw": 3}


def has_huge_pages(pt: Passthrough, count: int) -> bool:
    """Ask the guest's kernel for huge pages; return whether it has so many."""
    try:
        pt.probe.call("write", path=_POOL, data=str(count))
        pool = int(str(pt.probe.call("read", path=_POOL)["text"]))
    except ProbeError:
        return False  # CONFIG_HUGETLBFS is not set
    return pool >= count


# -- where


def aperture(pt: Passthrough, reasons: FaultReasons) -> None:
    """The first and the last page that may be mapped, and none beyond them."""
    first, last = pt.iova_ranges[0][0], pt.iova_ranges[-1][1]
    edges = {"first": first, "last": last + 1 - PAGE}
    pt.buffer("beyond", 2 * PAGE)
    _expect_refused(pt, edges["last"], "map across the end of the aperture")
    if last < (1 << 64) - 1:
        _expect_refused(pt, last + 1, "map beyond the aperture")
    pt.free("beyond")
    for name, iova in edges.items():
        pt.buffer(name, PAGE, byte=GUARD)
        try:
            pt.map(name, iova)
        except ProbeError as error:
            raise CheckFailed(
                f"the {name} page of the aperture, {iova:#x}, cannot be mapped",
                expected=f"{error.op} succeeds: iova_ranges has it",
                seen=error.error,
                cause="an end of a range is computed as start + size, which overflows",
            ) from error
        pt.expect_dma("fill", iova, PAGE, operand=0)
        pt.expect_filled(name, 0)
    for name, iova in edges.items():
        _unmap_edge(pt, iova)
        pt.probe.call("set", name=name, byte=GUARD)
        pt.expect_fault("fill", iova, WORD, address=iova, reasons=reasons.unmapped)
        pt.expect_untouched(name, GUARD)
        pt.free(name)


def _unmap_edge(pt: Passthrough, iova: int) -> None:
    if iova + PAGE == 1 << 64 and pt.mode in TYPE1_MODES and _release(pt) < _TOP_MENDED:
        seen = pt.probe.call("unmap", iova=iova, size=PAGE)["unmapped"]
        if not seen:
            # It stays mapped: after a skip the endpoint is opened anew.
            pytest.skip(
                "the last page of 64 bits can be mapped and not be unmapped: known of"
                " type1 before Linux 6.18; all else of the check passed"
            )
        expect(seen, PAGE, "bytes that the unmap took away")
        return
    pt.unmap(iova, PAGE)


# vfio_find_dma() compared with the end of the range, which is 0 there.
_TOP_MENDED = (6, 18)


def _release(pt: Passthrough) -> tuple[int, ...]:
    release = str(pt.probe.call("hello")["release"])
    return tuple(int(number) for number in re.findall(r"\d+", release)[:2])


def _expect_refused(pt: Passthrough, iova: int, what: str) -> None:
    seen = refusal(pt, "map", name="beyond", iova=iova)
    if seen not in _REFUSED:
        raise CheckFailed(
            f"{what}, at {iova:#x}: {seen}",
            expected=" or ".join(_REFUSED),
            seen=seen,
        )


def unaligned(pt: Passthrough) -> None:
    """Neither memory nor addresses nor sizes that are no whole pages."""
    iova = pt.fresh_iova(2 * PAGE)
    pt.buffer("odd", 2 * PAGE)
    for what, args in (
        ("memory at an odd address", {"offset": 1, "size": PAGE}),
        ("memory at half a page", {"offset": PAGE // 2, "size": PAGE}),
        ("an IOVA at half a page", {"iova": iova + PAGE // 2, "size": PAGE}),
        ("half a page", {"size": PAGE // 2}),
        ("nothing", {"size": 0}),
    ):
        seen = refusal(pt, "map", **{"name": "odd", "iova": iova, **args})
        expect(seen, "EINVAL", f"map of {what}")
    # Nothing of it may be left: the whole range still is free.
    pt.map("odd", iova)
    pt.unmap(iova, 2 * PAGE)
    pt.free("odd")


# -- what the IOMMU is asked for


def map_requests(pt: Passthrough, log: DeviceLog) -> None:
    """MAP and UNMAP are about exactly the range, and have its permissions."""
    for size, flags in ((4 * KIB, "r"), (64 * KIB, "w"), (2 * MIB, "rw")):
        watch = DeviceWatch(log)
        with mapped(pt, "exact", size, flags=flags, byte=0) as iova:
            maps = watch.records("map")
            _expect_exact(maps, iova, size, f"MAP of {size} bytes")
            seen = {record.flags for record in maps}
            expect(seen, {_MAP_FLAGS[flags]}, f"flags of MAP for {flags!r}")
        _expect_exact(watch.records("unmap"), iova, size, f"UNMAP of {size} bytes")


def _expect_exact(
    records: Sequence[DeviceRecord], iova: int, size: int, what: str
) -> None:
    bad = [record.status for record in records if record.status != Status.OK]
    refusals = ", ".join(sorted({Status(status).name for status in bad}))
    expect(refusals, "", f"{what}: the device answered")
    at = iova
    for record in sorted(records, key=lambda record: record.start):
        if record.start != at:
            break
        at = record.end + 1
    else:
        if at == iova + size:
            return
    spans = [f"{record.start:#x}-{record.end:#x}" for record in records]
    raise CheckFailed(
        f"{what} at {iova:#x} is not what the IOMMU was asked for",
        expected=f"{iova:#x}-{iova + size - 1:#x}, each address once",
        seen=", ".join(spans[:4]) + (", ..." if len(spans) > 4 else "") or "nothing",
        cause="viommu_map_pages() or viommu_unmap_pages(), or who calls them, is off"
        " at an end of the range",
    )


def huge_page(pt: Passthrough, log: DeviceLog) -> None:
    """A huge page is contiguous, and goes to the IOMMU in one request."""
    iova = pt.fresh_iova(HUGE_PAGE)
    pt.buffer("huge", HUGE_PAGE, huge=True)
    pt.fill("huge", seed=HUGE_PAGE)
    watch = DeviceWatch(log)
    pt.map("huge", iova)
    maps = watch.records("map")
    _expect_exact(maps, iova, HUGE_PAGE, "MAP of a huge page")
    expect(len(maps), 1, "MAP requests for a huge page")
    seen = pt.expect_dma("checksum", iova, HUGE_PAGE)
    expect(seen.result, pt.crc("huge"), "CRC-32 of a huge page")
    watch = DeviceWatch(log)
    pt.unmap(iova, HUGE_PAGE)
    _expect_exact(watch.records("unmap"), iova, HUGE_PAGE, "UNMAP of a huge page")
    pt.free("huge")


def map_gigabyte(pt: Passthrough, reasons: FaultReasons) -> None:
    """1 GiB at once: the same huge page, so that the guest need not have as much."""
    iova = pt.fresh_iova(GIB)
    pt.buffer("giant", GIB, huge=True, alias=HUGE_PAGE)
    pt.probe.call("set", name="giant", size=HUGE_PAGE, byte=GUARD)
    pt.map("giant", iova)
    # Its ends, and both sides of the middle: each is that page in another place.
    for at in (0, GIB // 2 - PAGE, GIB // 2, GIB - PAGE):
        pt.expect_dma("fill", iova + at, PAGE, operand=at)
        inside = at % HUGE_PAGE
        expect(
            pt.peek("giant", inside, 8),
            at.to_bytes(8, "little").hex(),
            f"what was written at {at:#x} of 1 GiB",
        )
    pt.expect_untouched("giant", GUARD, offset=PAGE, size=HUGE_PAGE - 2 * PAGE)
    pt.unmap(iova, GIB)
    for at in (0, GIB - PAGE):
        address = iova + at
        pt.expect_fault(
            "fill", address, WORD, address=address, reasons=reasons.unmapped
        )
    pt.free("giant")


# -- overlap and parts


def map_conflict(pt: Passthrough) -> None:
    """A mapping over a part of another one is refused, and that one stays."""
    with mapped(pt, "old", 2 * PAGE, flags="rw", byte=GUARD) as iova:
        pt.buffer("new", 2 * PAGE, byte=GUARD)
        for at in (-PAGE, 0, PAGE):
            seen = refusal(pt, "map", name="new", iova=iova + at)
            expect(seen, "EEXIST", f"map {at:+#x} bytes from the start of another one")
        pt.expect_dma("fill", iova, 2 * PAGE, operand=0)
        pt.expect_filled("old", 0)
        pt.expect_untouched("new", GUARD)
        pt.free("new")


def unmap_part(pt: Passthrough, reasons: FaultReasons) -> None:
    """Nobody gets half an unmap.

    A part of a mapping is refused, and all of it stays; but for the first version of
    type1, in which an unmap that begins with a mapping takes all of that away, and any
    other nothing.
    """
    iova = pt.fresh_iova(2 * PAGE)
    pt.buffer("whole", 2 * PAGE, byte=GUARD)
    pt.map("whole", iova)
    behind = _part(pt, iova + PAGE)
    expect(behind, _unmap_of_part(pt, 0), "unmap of the second of two pages")
    pt.expect_dma("fill", iova, 2 * PAGE, operand=0)
    pt.expect_filled("whole", 0)
    pt.probe.call("set", name="whole", byte=GUARD)
    before = _part(pt, iova)
    expect(before, _unmap_of_part(pt, 2 * PAGE), "unmap of the first of two pages")
    if pt.mode is Mode.TYPE1:
        last = iova + PAGE
        pt.expect_fault("fill", last, WORD, address=last, reasons=reasons.unmapped)
        pt.expect_untouched("whole", GUARD)
    else:
        pt.expect_dma("fill", iova, 2 * PAGE, operand=0)
        pt.expect_filled("whole", 0)
        pt.unmap(iova, 2 * PAGE)
    pt.free("whole")


def _part(pt: Passthrough, iova: int) -> str:
    try:
        return f"{pt.probe.call('unmap', iova=iova, size=PAGE)['unmapped']} bytes"
    except ProbeError as error:
        return error.error


def _unmap_of_part(pt: Passthrough, type1: int) -> str:
    if pt.mode is Mode.TYPE1:
        return f"{type1} bytes"
    # vfio_dma_do_unmap() and iopt_unmap_iova() call it by different names.
    return "EINVAL" if pt.mode is Mode.TYPE1V2 else "ENOENT"


# -- under load

_NR_REMAPS = 8


def remap_under_load(pt: Passthrough, loads: Sequence[int] = LOAD_SLOTS) -> None:
    """A page changes its place in memory while DMA runs on both sides of it.

    :param loads: How many transactions, 64 MiB each (without huge pages 16); the next
        if all of them were over too soon.
    """
    huge = has_huge_pages(pt, 2)
    size, alias = (64 * MIB, HUGE_PAGE) if huge else (16 * MIB, 256 * KIB)
    iova = pt.fresh_iova(2 * size + PAGE)
    middle, right = iova + size, iova + size + PAGE
    pt.buffer("load", size, huge=huge, alias=alias)
    for at in (iova, right):
        pt.map("load", at)
    for name in ("even", "odd"):
        pt.buffer(name, PAGE)
    for nr_slots in loads:
        pt.probe.call("set", name="load", byte=GUARD, size=alias)
        for slot in range(nr_slots):
            pt.submit(slot, "fill", right if slot % 2 else iova, size)
        if _remap_often(pt, middle, nr_slots):
            break
    pt.expect_filled("load", 0, size=alias)
    for at in (iova, right):
        pt.unmap(at, size)
    for name in ("load", "even", "odd"):
        pt.free(name)


def _remap_often(pt: Passthrough, middle: int, nr_slots: int) -> bool:
    # Whether there was any load left after one remap at least.
    busy = 0
    for i in range(_NR_REMAPS):
        names = ("odd", "even") if i % 2 else ("even", "odd")
        _remap(pt, middle, *names, slot=nr_slots)
        busy = busy or pt.in_flight()
    for slot in range(nr_slots):
        expect(pt.wait(slot).status, "ok", "DMA beside the page that was remapped")
    return busy > 0


def _remap(pt: Passthrough, iova: int, name: str, other: str, *, slot: int) -> None:
    for page in (name, other):
        pt.probe.call("set", name=page, byte=GUARD)
    pt.map(name, iova)
    seen = pt.dma("fill", iova, PAGE, slot=slot)
    expect(seen.status, "ok", "DMA to the page that was remapped")
    pt.expect_filled(name, 0)
    pt.expect_untouched(other, GUARD)
    pt.unmap(iova, PAGE)


# -- how many

_PAGES = 16


def map_many(pt: Passthrough, count: int, limit: int | None) -> None:
    """Single pages until the kernel refuses, which it does at its limit, not earlier.

    :param count: Try so many.
    :param limit: Where it should refuse; None: nowhere.
    """
    pages = _PAGES * PAGE
    iova = pt.fresh_iova(count * PAGE)
    pt.buffer("pages", pages)
    pt.fill("pages", seed=count)
    seen = pt.probe.call(
        "map-many", name="pages", iova=iova, count=count, timeout=_MANY_TIMEOUT
    )
    done = count if limit is None else limit
    expect(seen["mapped"], done, "mappings that the kernel made")
    expect(seen["refusal"], "" if limit is None else "ENOSPC", "refusal of the next")
    # All of them translate: one transaction through them all.
    content = bytes.fromhex(
        "".join(pt.peek("pages", at, PAGE) for at in range(0, pages, PAGE))
    )
    whole, part = divmod(done, _PAGES)
    crc = zlib.crc32(content[: part * PAGE], zlib.crc32(content * whole))
    through = pt.expect_dma("checksum", iova, done * PAGE)
    expect(through.result, crc, f"CRC-32 through {done} mappings")
    taken = pt.probe.call(
        "unmap", iova=iova, size=count * PAGE, timeout=_MANY_TIMEOUT
    ).get("unmapped")
    expect(taken, done * PAGE, "bytes that were unmapped")
    pt.free("pages")


_MANY_TIMEOUT = 470.0
