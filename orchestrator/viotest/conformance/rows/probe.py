# SPDX-License-Identifier: GPL-2.0-or-later
"""PROBE and its properties: P1 to P8, R1, R2, R3, R5 (R4 is M8)."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from viotest.conformance import wire
from viotest.conformance.driver import (
    UNKNOWN_ENDPOINTS,
    Viommu,
    expect,
    expect_equal,
    expect_untouched,
    open_viommu,
)
from viotest.conformance.errors import NotApplicableError
from viotest.conformance.lab import BARE, POISON
from viotest.conformance.row import Section, Strength
from viotest.conformance.wire import (
    PROPERTY_RESV_MEM,
    PROPERTY_TYPE_MASK,
    RESV_MEM_LENGTH,
    RESV_MEM_MSI,
    RESV_MEM_RESERVED,
    TAIL_SIZE,
    Feature,
    Property,
    ResvMem,
    Status,
    Type,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from viotest.conformance.lab import Lab

PROBE = Section("5.13.6 Device operations: PROBE request")
RESV_MEM = Section("5.13.6 Device operations: PROBE properties, RESV_MEM")

_VALUE = 0x1122334455667788


def _open(lab: Lab) -> Viommu:
    viommu = open_viommu(lab)
    viommu.require(Feature.PROBE)
    return viommu


def _probe(viommu: Viommu, endpoint: int) -> bytes:
    """Return what PROBE says of an endpoint, without the tail."""
    answer = viommu.probe(endpoint)
    expect(answer, Status.OK, f"PROBE of endpoint {endpoint:#x}")
    return answer.data[:-TAIL_SIZE]


def _properties(viommu: Viommu) -> list[tuple[int, Property]]:
    """Return every property with its endpoint; leave the row if there is none."""
    found = [
        (endpoint, entry)
        for endpoint in viommu.endpoints
        for entry in wire.parse_properties(_probe(viommu, endpoint))
    ]
    if not found:
        raise NotApplicableError("no endpoint has a property")
    return found


def _regions(viommu: Viommu) -> list[tuple[int, ResvMem]]:
    """Return every RESV_MEM region with its endpoint, as _properties()."""
    found = [
        (endpoint, region)
        for endpoint, entry in _properties(viommu)
        if entry.type == PROPERTY_RESV_MEM
        and (region := wire.parse_resv_mem(entry.body)) is not None
    ]
    if not found:
        raise NotApplicableError("no endpoint has a RESV_MEM property")
    return found


@PROBE.row("P1", Strength.MUST, "reserved bytes are ignored")
def check_p1(lab: Lab) -> None:
    """The answer is the same."""
    viommu = _open(lab)
    plain = _probe(viommu, viommu.endpoints[0])
    answer = viommu.probe(viommu.endpoints[0], reserved=b"\xff" * 64)
    expect(answer, Status.OK, "PROBE with reserved bytes set")
    expect_equal(answer.data[:-TAIL_SIZE] == plain, True, "the same properties")


@PROBE.row("P2", Strength.SHOULD, "unknown endpoint: NOENT")
def check_p2(lab: Lab) -> None:
    """At the end of the buffer; no property."""
    viommu = _open(lab)
    for endpoint in UNKNOWN_ENDPOINTS:
        answer = viommu.probe(endpoint)
        expect(answer, Status.NOENT, f"PROBE of endpoint {endpoint:#x}")
        found = answer.data[:-TAIL_SIZE].strip(bytes([POISON])).strip(b"\0")
        expect_equal(found, b"", "its properties")


@PROBE.row("P3", Strength.SHOULD, "not offered but sent: returned untouched")
def check_p3(lab: Lab) -> None:
    """As any request of unknown type."""
    try:
        viommu = open_viommu(lab, BARE)
    except NotApplicableError as error:
        raise NotApplicableError("PROBE is always offered") from error
    request = wire.head(Type.PROBE) + wire.probe(viommu.endpoints[0], bytes(64))
    answer = viommu.device.submit([request], [512 + TAIL_SIZE])
    expect_untouched(answer, "PROBE, which is not offered")


@PROBE.row("P4", Strength.SHOULD, "reserved bits of a property's type are 0")
def check_p4(lab: Lab) -> None:
    """The upper four."""
    for endpoint, entry in _properties(_open(lab)):
        reserved = entry.word & ~PROPERTY_TYPE_MASK
        expect_equal(reserved, 0, f"reserved type bits (endpoint {endpoint:#x})")


@PROBE.row("P5", Strength.MUST, "length leaves the property's head out")
def check_p5(lab: Lab) -> None:
    """So that of RESV_MEM is 20."""
    found = _properties(_open(lab))
    sized = [(e, p) for e, p in found if p.type == PROPERTY_RESV_MEM]
    if not sized:
        raise NotApplicableError("no property of a known size")
    for endpoint, entry in sized:
        what = f"length of RESV_MEM (endpoint {endpoint:#x})"
        expect_equal(entry.length, RESV_MEM_LENGTH, what)


@PROBE.row("P6", Strength.MUST, "the next property begins where the last one ends")
def check_p6(lab: Lab) -> str:
    """A walk by the lengths meets only known, whole properties, then zeros."""
    viommu = _open(lab)
    most = 0
    for endpoint in viommu.endpoints:
        data = _probe(viommu, endpoint)
        found = wire.parse_properties(data)
        most = max(most, len(found))
        where = f"(endpoint {endpoint:#x})"
        for entry in found:
            at = f"at offset {entry.offset} {where}"
            expect_equal(entry.type, PROPERTY_RESV_MEM, f"property type {at}")
            expect_equal(len(entry.body), entry.length, f"bytes of the property {at}")
        end = found[-1].offset + 4 + found[-1].length if found else 0
        rest = data[end:].strip(b"\0")
        expect_equal(rest[:16], b"", f"bytes behind the last property {where}")
        _check_configured(viommu, endpoint)
    if not most:
        raise NotApplicableError("no endpoint has a property")
    return f"{most} properties at most"


# A walk that ends too early, or never begins, would find nothing wrong.
def _check_configured(viommu: Viommu, endpoint: int) -> None:
    if viommu.device.regions is None:
        return
    wanted = {(r.subtype, r.start, r.end) for r in viommu.device.regions[endpoint]}
    seen = {(r.subtype, r.start, r.end) for r in viommu.resv_mem(endpoint)}
    expect_equal(
        _show_regions(seen), _show_regions(wanted), f"regions of {endpoint:#x}"
    )


def _show_regions(regions: Iterable[tuple[int, int, int]]) -> str:
    names = {RESV_MEM_MSI: "MSI", RESV_MEM_RESERVED: "RESERVED"}
    shown = (
        f"{names.get(subtype, subtype)} {start:#x}-{end:#x}"
        for subtype, start, end in sorted(regions)
    )
    return ", ".join(shown) or "none"


@PROBE.row("P7", Strength.SHOULD, "too little room: INVAL, and no property")
def check_p7(lab: Lab) -> None:
    """Only the tail is written, at the end of what room there is."""
    viommu = _open(lab)
    request = wire.head(Type.PROBE) + wire.probe(viommu.endpoints[0], bytes(64))
    size = viommu.config("probe_size")
    for room in (20, TAIL_SIZE, size + TAIL_SIZE - 1):
        answer = viommu.device.submit([request], [room])
        what = f"PROBE with {room} writable bytes, probe_size {size}"
        expect(answer, Status.INVAL, what)
        rest = answer.data[:-TAIL_SIZE]
        untouched = bytes([POISON]) * len(rest)
        expect_equal(
            rest == untouched, True, f"{what}: bytes before the tail untouched"
        )


@PROBE.row("P8", Strength.SHOULD, "bytes that hold no property are zeroed")
def check_p8(lab: Lab) -> None:
    """Up to the tail."""
    viommu = _open(lab)
    for endpoint in viommu.endpoints:
        data = _probe(viommu, endpoint)
        # What does not fit is no property.
        found = [p for p in wire.parse_properties(data) if len(p.body) == p.length]
        end = found[-1].offset + 4 + found[-1].length if found else 0
        what = f"bytes that are not 0 behind the properties (endpoint {endpoint:#x})"
        expect_equal(len(data[end:].strip(b"\0")), 0, what)


@RESV_MEM.row("R1", Strength.SHOULD, "reserved bytes are 0")
def check_r1(lab: Lab) -> None:
    """Between subtype and start."""
    for endpoint, region in _regions(_open(lab)):
        what = f"reserved bytes of RESV_MEM (endpoint {endpoint:#x})"
        expect_equal(region.reserved, bytes(3), what)


@RESV_MEM.row("R2", Strength.SHOULD, "at most one MSI region per endpoint")
def check_r2(lab: Lab) -> None:
    """Linux knows of one."""
    viommu = _open(lab)
    found = _regions(viommu)
    for endpoint in viommu.endpoints:
        mine = [r for e, r in found if e == endpoint and r.subtype == RESV_MEM_MSI]
        expect_equal(len(mine) <= 1, True, f"at most one MSI region ({endpoint:#x})")


@RESV_MEM.row("R3", Strength.SHOULD, "regions do not overlap")
def check_r3(lab: Lab) -> None:
    """Nor end before they begin."""
    viommu = _open(lab)
    found = _regions(viommu)
    for endpoint in viommu.endpoints:
        mine = sorted((r.start, r.end) for e, r in found if e == endpoint)
        shown = ", ".join(f"{start:#x}-{end:#x}" for start, end in mine)
        fine = all(start <= end for start, end in mine)
        fine &= all(a[1] < b[0] for a, b in itertools.pairwise(mine))
        expect_equal(fine, True, f"regions of {endpoint:#x} disjoint: {shown}")


@RESV_MEM.row("R5", Strength.SHOULD, "an access into a region never reaches memory")
def check_r5(lab: Lab) -> None:
    """Not by a mapping, and not by bypass; into a RESERVED one it is refused."""
    viommu = _open(lab)
    for endpoint, region in _regions(viommu):
        domain, phys = viommu.domain(), viommu.page()
        viommu.attached(domain, endpoint)
        # Refused if the device is right (M8); the access counts here.
        viommu.map(domain, region.start, phys)
        _check_region(viommu, endpoint, region, phys, "after MAP over it")
        viommu.unmap(domain, region.start)
        viommu.detach(domain, endpoint)
        if viommu.offered & Feature.BYPASS_CONFIG:
            viommu.write_config("bypass", 1)
            phys = region.start if _is_ram(region.start) else phys
            _check_region(viommu, endpoint, region, phys, "in bypass")
            viommu.write_config("bypass", 0)


# The memory of these machines, what the rows use of it.
def _is_ram(address: int) -> bool:
    return 0x1000000 <= address < 0x10000000


def _check_region(
    viommu: Viommu, endpoint: int, region: ResvMem, phys: int, when: str
) -> None:
    is_msi = region.subtype == RESV_MEM_MSI
    kind = "MSI" if is_msi else "RESERVED"
    before = _VALUE.to_bytes(8, "little")
    viommu.device.memory_write(phys, before)
    # An MSI is four bytes; the address must be a vector that nobody takes.
    size = 4 if is_msi else 8
    accepted = viommu.device.dma_write(endpoint, region.start, 0, size)
    what = f"write into {kind} region {region.start:#x} {when}"
    expect_equal(viommu.device.memory_read(phys, 8), before, f"memory after a {what}")
    if not is_msi:
        expect_equal(accepted, False, f"a {what} is accepted")
