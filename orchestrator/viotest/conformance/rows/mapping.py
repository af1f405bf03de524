# SPDX-License-Identifier: GPL-2.0-or-later
"""MAP and UNMAP: M1 to M8, U1 to U6."""

from __future__ import annotations

from typing import TYPE_CHECKING

from viotest.conformance.driver import (
    REACHED,
    REFUSED,
    describe,
    expect,
    expect_equal,
    expect_not_ok,
    open_viommu,
    status_of,
)
from viotest.conformance.errors import MismatchError, NotApplicableError
from viotest.conformance.lab import MODERN
from viotest.conformance.row import Section, Strength
from viotest.conformance.wire import (
    ATTACH_F_BYPASS,
    MAP_F_MMIO,
    MAP_F_READ,
    MAP_F_WRITE,
    MAP_RW,
    Feature,
    Status,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from viotest.conformance.driver import Viommu
    from viotest.conformance.lab import Lab

MAP = Section("5.13.6 Device operations: MAP request")
UNMAP = Section("5.13.6 Device operations: UNMAP request")

_ALL = 2**64 - 1
_VALUE = 0x1122334455667788


@MAP.row("M1", Strength.SHOULD, "misaligned on the granule: RANGE")
def check_m1(lab: Lab) -> None:
    """virt_start, virt_end + 1 and phys_start, each alone."""
    viommu = open_viommu(lab)
    granule = viommu.granule
    if granule == 1:
        raise NotApplicableError("the granule is one byte")
    domain = viommu.domain()
    viommu.attached(domain, viommu.endpoints[0])
    half = granule // 2
    for name, start, end, phys in (
        ("virt_start", half, 2 * granule, 0),
        ("virt_end", 0, granule + half, 0),
        ("phys_start", 0, granule, half),
    ):
        iova, page = viommu.iova(3), viommu.page(3)
        answer = viommu.map_to(domain, iova + start, iova + end - 1, page + phys)
        expect(answer, Status.RANGE, f"MAP, {name} misaligned")


@MAP.row("M2", Strength.SHOULD, "overlapping a mapping: INVAL")
def check_m2(lab: Lab) -> None:
    """Same, inside, covering, each edge; what only touches it maps."""
    viommu = open_viommu(lab)
    granule, domain, endpoint = viommu.granule, viommu.domain(), viommu.endpoints[0]
    viommu.attached(domain, endpoint)
    iova, phys, other = viommu.iova(8), viommu.page(8), viommu.page(8)
    base = iova + 2 * granule
    expect(viommu.map(domain, base, phys, 3 * granule), Status.OK, "MAP")
    for name, first, count in (
        ("the same", 0, 3),
        ("inside", 1, 1),
        ("covering", -1, 5),
        ("over its start", -1, 2),
        ("over its end", 2, 2),
    ):
        answer = viommu.map(domain, base + first * granule, other, count * granule)
        expect(answer, Status.INVAL, f"MAP of {name}")
        viommu.expect_access(endpoint, base, phys, REACHED, "as mapped before")
    for first in (-1, 3):
        answer = viommu.map(domain, base + first * granule, other)
        expect(answer, Status.OK, "MAP beside a mapping")


@MAP.row("M3", Strength.MUST, "unknown flags: INVAL")
def check_m3(lab: Lab) -> None:
    """MMIO is one of them unless negotiated."""
    for features, flags in (
        (MODERN, MAP_RW | 8),
        (MODERN, MAP_RW | 1 << 31),
        (MODERN & ~Feature.MMIO, MAP_RW | MAP_F_MMIO),
    ):
        viommu = open_viommu(lab, features=features)
        domain = viommu.domain()
        viommu.attached(domain, viommu.endpoints[0])
        answer = viommu.map(domain, viommu.iova(), viommu.page(), flags=flags)
        what = f"MAP with flags {flags:#x}"
        if flags & MAP_F_MMIO:
            what += ", MMIO not negotiated"
        expect(answer, Status.INVAL, what)
    viommu = open_viommu(lab)
    if viommu.features & Feature.MMIO:
        domain = viommu.domain()
        viommu.attached(domain, viommu.endpoints[0])
        flags = MAP_RW | MAP_F_MMIO
        answer = viommu.map(domain, viommu.iova(), viommu.page(), flags=flags)
        expect(answer, Status.OK, "MAP with MMIO negotiated")


@MAP.row("M4", Strength.SHOULD, "unknown domain: NOENT")
def check_m4(lab: Lab) -> None:
    """A domain that no endpoint is attached to does not exist."""
    viommu = open_viommu(lab)
    answer = viommu.map(viommu.domain(), viommu.iova(), viommu.page())
    expect(answer, Status.NOENT, "MAP to an unknown domain")


@MAP.row("M5", Strength.SHOULD, "bypass domain: INVAL")
def check_m5(lab: Lab) -> None:
    """There is nothing to map in it."""
    viommu = open_viommu(lab)
    viommu.require(Feature.BYPASS_CONFIG)
    domain = viommu.domain()
    viommu.attached(domain, viommu.endpoints[0], ATTACH_F_BYPASS)
    answer = viommu.map(domain, viommu.iova(), viommu.page())
    expect(answer, Status.INVAL, "MAP to a bypass domain")


@MAP.row("M6a", Strength.MUST, "no write through a mapping without WRITE")
def check_m6a(lab: Lab) -> None:
    """Neither through a readable one nor through one with no flag."""
    viommu = open_viommu(lab)
    domain, endpoint = viommu.domain(), viommu.endpoints[0]
    for flags in (MAP_F_READ, 0):
        iova, phys = viommu.mapped(domain, endpoint, flags)
        before = _VALUE.to_bytes(8, "little")
        viommu.device.memory_write(phys, before)
        accepted = viommu.device.dma_write(endpoint, iova, 0)
        what = f"a write through a mapping with flags {flags}"
        expect_equal(viommu.device.memory_read(phys, 8), before, f"memory after {what}")
        expect_equal(accepted, False, f"{what} succeeds")
        if flags:
            expect_equal(viommu.device.dma_read(endpoint, iova), _VALUE, "a read")


@MAP.row("M6b", Strength.MAY, "a mapping with WRITE alone may be readable")
def check_m6b(lab: Lab) -> str:
    """It is accepted and written through: Linux maps DMA_FROM_DEVICE so."""
    viommu = open_viommu(lab)
    domain, endpoint = viommu.domain(), viommu.endpoints[0]
    iova, phys = viommu.mapped(domain, endpoint, MAP_F_WRITE)
    viommu.device.memory_write(phys, bytes(8))
    accepted = viommu.device.dma_write(endpoint, iova, _VALUE)
    expect_equal(accepted, True, "a write through it succeeds")
    seen = int.from_bytes(viommu.device.memory_read(phys, 8), "little")
    expect_equal(seen, _VALUE, "memory after that write")
    value = viommu.device.dma_read(endpoint, iova)
    if value not in (None, _VALUE):
        raise MismatchError("a read is refused, or right", f"{value:#x}")
    return "not readable" if value is None else "readable"


@MAP.row("M7", Strength.TEXT, "inverted: refused; all 64 bits: no overflow")
def check_m7(lab: Lab) -> str | None:
    """The whole span is mapped, or refused."""
    viommu = open_viommu(lab, features=MODERN & ~Feature.INPUT_RANGE)
    granule, domain = viommu.granule, viommu.domain()
    # The endpoint without reserved regions, if there is one.
    endpoint = viommu.endpoints[-1]
    viommu.attached(domain, endpoint)
    iova, phys = viommu.iova(4), viommu.page()
    for end in (iova - 1, iova - granule - 1, 0):
        expect_not_ok(viommu.map_to(domain, iova, end, phys), "MAP, end below start")
    answer = viommu.map_to(domain, 0, _ALL, 0)
    if status_of(answer) != Status.OK:
        expect_not_ok(answer, "MAP of all 64 bits, if not OK")
        return f"MAP of all 64 bits: {describe(answer)}"
    viommu.expect_access(endpoint, phys, phys, REACHED, "with all 64 bits mapped")
    again = viommu.map(domain, iova, phys)
    expect(again, Status.INVAL, "MAP over all 64 bits")
    expect(viommu.unmap_to(domain, 0, _ALL), Status.OK, "UNMAP of all 64 bits")
    viommu.expect_access(endpoint, phys, phys, REFUSED, "after UNMAP")
    return None


@MAP.row("M8", Strength.SHOULD, "over a reserved region of an endpoint: refused")
def check_m8(lab: Lab) -> None:
    """Same, inside, covering, each edge; what only touches it maps."""
    viommu = open_viommu(lab)
    viommu.require(Feature.PROBE)
    granule, endpoint = viommu.granule, viommu.endpoints[0]
    regions = viommu.resv_mem(endpoint)
    if not regions:
        raise NotApplicableError("PROBE tells of no RESV_MEM region")
    domain = viommu.domain()
    viommu.attached(domain, endpoint)
    for region in regions:
        start, end = region.start, region.end
        phys = viommu.page(2)
        for name, first, last in (
            ("the same", start, end),
            ("inside", start, start + granule - 1),
            ("covering", start - granule, end + granule),
            ("over its start", start - granule, start + granule - 1),
            ("over its end", end + 1 - granule, end + granule),
        ):
            answer = viommu.map_to(domain, first, last, phys)
            what = f"MAP of {name}, region {start:#x} to {end:#x}"
            expect_not_ok(answer, what)
        for first in (start - granule, end + 1):
            expect(viommu.map(domain, first, phys), Status.OK, "MAP beside a region")


@UNMAP.row("U1", Strength.MAY, "reserved bytes set: INVAL, or unmapped")
def check_u1(lab: Lab) -> str:
    """Either way the answer is true."""
    viommu = open_viommu(lab)
    domain, endpoint = viommu.domain(), viommu.endpoints[0]
    iova, phys = viommu.mapped(domain, endpoint)
    answer = viommu.unmap(domain, iova, reserved=b"\xff" * 4)
    expect(answer, (Status.OK, Status.INVAL), "UNMAP with reserved bytes set")
    seen = viommu.access(endpoint, iova, phys)
    if status_of(answer) == Status.OK:
        expect_equal(seen, REFUSED, "DMA after that UNMAP was OK")
        return "ignored, unmapped"
    return f"INVAL, {'unmapped' if seen == REFUSED else 'nothing unmapped'}"


@UNMAP.row("U2", Strength.SHOULD, "unknown domain: NOENT")
def check_u2(lab: Lab) -> None:
    """As M4."""
    viommu = open_viommu(lab)
    answer = viommu.unmap(viommu.domain(), viommu.iova())
    expect(answer, Status.NOENT, "UNMAP in an unknown domain")


@UNMAP.row("U3", Strength.SHOULD, "bypass domain: INVAL")
def check_u3(lab: Lab) -> None:
    """As M5."""
    viommu = open_viommu(lab)
    viommu.require(Feature.BYPASS_CONFIG)
    domain = viommu.domain()
    viommu.attached(domain, viommu.endpoints[0], ATTACH_F_BYPASS)
    answer = viommu.unmap(domain, viommu.iova())
    expect(answer, Status.INVAL, "UNMAP in a bypass domain")


@UNMAP.row("U4", Strength.SHOULD, "part of a mapping: RANGE, and nothing is removed")
def check_u4(lab: Lab) -> None:
    """Not even what the range covers in full, at either end."""
    viommu = open_viommu(lab)
    granule, endpoint = viommu.granule, viommu.endpoints[0]
    for first, count in ((0, 5), (1, 5)):
        domain = viommu.domain()
        viommu.attached(domain, endpoint)
        iova, phys = viommu.iova(6), viommu.page(6)
        # Three mappings of two granules, side by side.
        _map_all(viommu, domain, iova, phys, [(0, 1), (2, 3), (4, 5)])
        answer = viommu.unmap(domain, iova + first * granule, count * granule)
        what = f"UNMAP of granules {first} to {first + count - 1} of 2 + 2 + 2"
        expect(answer, Status.RANGE, what)
        for page in range(6):
            at = page * granule
            when = f"after {what}"
            viommu.expect_access(endpoint, iova + at, phys + at, REACHED, when)


@UNMAP.row("U5", Strength.SHOULD, "holes and empty ranges are fine")
def check_u5(lab: Lab) -> None:
    """Every mapping that is covered goes."""
    viommu = open_viommu(lab)
    granule, endpoint = viommu.granule, viommu.endpoints[0]
    domain = viommu.domain()
    viommu.attached(domain, endpoint)
    iova, phys = viommu.iova(8), viommu.page(8)
    expect(viommu.unmap(domain, iova, 8 * granule), Status.OK, "UNMAP of nothing")
    _map_all(viommu, domain, iova, phys, [(1, 1), (3, 4), (6, 6)])
    expect(viommu.unmap(domain, iova, 8 * granule), Status.OK, "UNMAP with holes")
    for page in (1, 3, 4, 6):
        at = page * granule
        viommu.expect_access(endpoint, iova + at, phys + at, REFUSED, "after UNMAP")


#: The worked examples of the text: mapped ranges, the range to unmap, what is left.
_EXAMPLES: tuple[
    tuple[Sequence[tuple[int, int]], tuple[int, int], Sequence[tuple[int, int]]], ...
] = (
    ([], (0, 4), []),
    ([(0, 8)], (0, 8), []),
    ([(0, 4), (5, 9)], (0, 9), []),
    ([(0, 8)], (0, 4), [(0, 8)]),
    ([(0, 4), (5, 9)], (0, 4), [(5, 9)]),
    ([(0, 4)], (0, 9), []),
    ([(0, 4), (10, 14)], (0, 14), []),
)


@UNMAP.row("U6", Strength.TEXT, "the seven worked examples of the text")
def check_u6(lab: Lab) -> None:
    """Its numbers are taken as granules."""
    viommu = open_viommu(lab)
    granule, endpoint = viommu.granule, viommu.endpoints[0]
    for number, (mapped, (first, last), left) in enumerate(_EXAMPLES, 1):
        domain = viommu.domain()
        viommu.attached(domain, endpoint)
        iova, phys = viommu.iova(16), viommu.page(16)
        _map_all(viommu, domain, iova, phys, mapped)
        answer = viommu.unmap_to(
            domain, iova + first * granule, iova + (last + 1) * granule - 1
        )
        what = f"UNMAP of example {number}"
        # The text says of the fourth only that it fails.
        if mapped and left == mapped:
            expect_not_ok(answer, what)
        else:
            expect(answer, Status.OK, what)
        for a, b in mapped:
            wanted = REACHED if (a, b) in left else REFUSED
            for page in (a, b):
                at = page * granule
                viommu.expect_access(
                    endpoint, iova + at, phys + at, wanted, f"after {what}"
                )


def _map_all(
    viommu: Viommu,
    domain: int,
    iova: int,
    phys: int,
    ranges: Sequence[tuple[int, int]],
) -> None:
    for first, last in ranges:
        at = first * viommu.granule
        size = (last - first + 1) * viommu.granule
        answer = viommu.map(domain, iova + at, phys + at, size)
        expect(answer, Status.OK, f"MAP of granules {first} to {last}")
