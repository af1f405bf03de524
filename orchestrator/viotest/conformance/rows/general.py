# SPDX-License-Identifier: GPL-2.0-or-later
"""Operation in general: O1 to O8."""

from __future__ import annotations

from typing import TYPE_CHECKING

from viotest.conformance import wire
from viotest.conformance.driver import (
    REACHED,
    REFUSED,
    UNKNOWN_ENDPOINTS,
    describe,
    expect,
    expect_equal,
    expect_untouched,
    open_viommu,
)
from viotest.conformance.errors import MismatchError, NotApplicableError
from viotest.conformance.lab import FULL, MODERN, OLD_BYPASS
from viotest.conformance.row import Section, Strength
from viotest.conformance.wire import (
    ATTACH_F_BYPASS,
    MAP_RW,
    READABLE_SIZE,
    TAIL_SIZE,
    Feature,
    Status,
    Type,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from viotest.conformance.driver import Viommu
    from viotest.conformance.lab import Answer, Lab

OPERATION = Section("5.13.6 Device operations")


def _good_requests(viommu: Viommu) -> list[tuple[Type, bytes]]:
    """Return a request of each type, all of which succeed in this order."""
    domain, endpoint = viommu.domain(), viommu.endpoints[0]
    # For the tidying up, should a row stop half way.
    viommu.device.attached[endpoint] = domain
    iova, phys = viommu.iova(), viommu.page()
    end = iova + viommu.granule - 1
    requests = [
        (Type.ATTACH, wire.attach(domain, endpoint, 0, bytes(4))),
        (Type.MAP, wire.map_(domain, iova, end, phys, MAP_RW)),
        (Type.UNMAP, wire.unmap(domain, iova, end, bytes(4))),
        (Type.DETACH, wire.detach(domain, endpoint, bytes(8))),
    ]
    if viommu.features & Feature.PROBE:
        requests.append((Type.PROBE, wire.probe(endpoint, bytes(64))))
    return requests


@OPERATION.row("O1", Strength.SHOULD, "success: OK, and the length that was written")
def check_o1(lab: Lab) -> None:
    """Linux takes any other used length for a request that was not answered."""
    viommu = open_viommu(lab)
    for kind, body in _good_requests(viommu):
        size = viommu.writable_size(kind)
        answer = viommu.device.submit([wire.head(kind) + body], [size])
        expect(answer, Status.OK, kind.name)
        expect_equal(answer.used, size, f"{kind.name}: used length")


@OPERATION.row("O2", Strength.SHOULD, "an unknown request type is returned untouched")
def check_o2(lab: Lab) -> None:
    """With room for a tail, and with more."""
    viommu = open_viommu(lab)
    for kind in (0, 6, 0x77, 0xFF):
        for size in (TAIL_SIZE, 64):
            answer = viommu.device.submit([wire.head(kind) + bytes(60)], [size])
            expect_untouched(answer, f"request of type {kind:#x}")


@OPERATION.row("O3a", Strength.MUST, "reserved bytes of the head are ignored")
def check_o3a(lab: Lab) -> None:
    """Of every request type."""
    viommu = open_viommu(lab)
    for kind, body in _good_requests(viommu):
        request = wire.head(kind, b"\xff" * 3) + body
        answer = viommu.device.submit([request], [viommu.writable_size(kind)])
        expect(answer, Status.OK, f"{kind.name} with head.reserved set")


@OPERATION.row("O3b", Strength.SHOULD, "reserved bytes of the tail are zeroed")
def check_o3b(lab: Lab) -> None:
    """With success and with an error."""
    viommu = open_viommu(lab)
    unknown = wire.attach(viommu.domain(), UNKNOWN_ENDPOINTS[0], 0, bytes(4))
    for kind, body in [*_good_requests(viommu), (Type.ATTACH, unknown)]:
        request = wire.head(kind) + body
        answer = viommu.device.submit([request], [viommu.writable_size(kind)])
        if not answer.used:
            raise MismatchError(f"{kind.name}: an answer", describe(answer))
        expect_equal(answer.data[-3:], bytes(3), f"{kind.name}: tail.reserved")


@OPERATION.row("O4", Strength.SHOULD, "unattached, no bypass: no access to memory")
def check_o4(lab: Lab) -> None:
    """Never attached, and attached no longer."""
    viommu = open_viommu(lab)
    phys = viommu.page()
    for endpoint in viommu.endpoints:
        viommu.expect_access(endpoint, phys, phys, REFUSED, "while unattached")
    domain, endpoint = viommu.domain(), viommu.endpoints[0]
    iova, phys = viommu.mapped(domain, endpoint)
    expect(viommu.detach(domain, endpoint), Status.OK, "DETACH")
    viommu.expect_access(endpoint, iova, phys, REFUSED, "after DETACH")
    viommu.expect_access(endpoint, phys, phys, REFUSED, "after DETACH")


@OPERATION.row("O5", Strength.TEXT, "what cannot be parsed is returned untouched")
def check_o5(lab: Lab) -> None:
    """Too short to read, or no room for the tail; the device lives on."""
    viommu = open_viommu(lab)
    head = wire.head(Type.ATTACH)
    for size in (3, 4, 12, 19):
        answer = viommu.device.submit([(head + bytes(16))[:size]], [TAIL_SIZE])
        _expect_alive(viommu, answer, f"ATTACH of {size} readable bytes")
    for kind in (Type.MAP, Type.UNMAP, Type.PROBE):
        size = READABLE_SIZE[kind] - 1
        if kind is Type.PROBE and not viommu.features & Feature.PROBE:
            continue
        request = (wire.head(kind) + bytes(size))[:size]
        answer = viommu.device.submit([request], [viommu.writable_size(kind)])
        _expect_alive(viommu, answer, f"{kind.name} of {size} readable bytes")
    whole = head + wire.attach(viommu.domain(), viommu.endpoints[0], 0, bytes(4))
    for size in (0, 1, 3):
        answer = viommu.device.submit([whole], [size] if size else [])
        _expect_alive(viommu, answer, f"ATTACH with {size} writable bytes")


def _expect_alive(viommu: Viommu, answer: Answer, what: str) -> None:
    expect_untouched(answer, what)
    expect_equal(answer.needs_reset, False, f"{what}: DEVICE_NEEDS_RESET")
    unknown = viommu.attach(viommu.domain(), UNKNOWN_ENDPOINTS[0])
    expect(unknown, Status.NOENT, f"a request after {what}")


@OPERATION.row("O6", Strength.TEXT, "identity in each mode of bypass, and only there")
def check_o6(lab: Lab) -> str | None:
    """BYPASS_CONFIG accepted or not, the ATTACH flag, the old BYPASS."""
    _check_bypass_config(lab)
    return _check_old_bypass(lab)


def _check_bypass_config(lab: Lab) -> None:
    for features in (MODERN, MODERN & ~Feature.BYPASS_CONFIG):
        accepted = "accepted" if features == MODERN else "not accepted"
        for bypass in (0, 1):
            viommu = open_viommu(lab, features=features, bypass=bypass)
            viommu.require(Feature.BYPASS_CONFIG)
            phys, endpoint = viommu.page(), viommu.endpoints[0]
            wanted = REACHED if bypass else REFUSED
            when = f"unattached, bypass {bypass}, BYPASS_CONFIG {accepted}"
            viommu.expect_access(endpoint, phys, phys, wanted, when)
            viommu.attached(viommu.domain(), endpoint)
            when = f"attached to an empty domain, bypass {bypass}"
            viommu.expect_access(endpoint, phys, phys, REFUSED, when)
    viommu = open_viommu(lab)
    phys, endpoint = viommu.page(), viommu.endpoints[0]
    viommu.attached(viommu.domain(), endpoint, ATTACH_F_BYPASS)
    when = "attached to a bypass domain, bypass 0"
    viommu.expect_access(endpoint, phys, phys, REACHED, when)


def _check_old_bypass(lab: Lab) -> str | None:
    try:
        device = lab.device(OLD_BYPASS)
    except NotApplicableError:
        return "not seen with the old BYPASS, which it does not offer"
    for features in (OLD_BYPASS.features, Feature.MAP_UNMAP):
        viommu = open_viommu(lab, OLD_BYPASS)
        viommu.restart(features)
        phys, endpoint = viommu.page(), device.endpoints[0]
        negotiated = bool(features & Feature.BYPASS)
        wanted = REACHED if negotiated else REFUSED
        when = f"unattached, old BYPASS {'' if negotiated else 'not '}negotiated"
        viommu.expect_access(endpoint, phys, phys, wanted, when)
    return None


@OPERATION.row("O7", Strength.TEXT, "a device reset detaches and forgets everything")
def check_o7(lab: Lab) -> None:
    """Domains and mappings are gone with the attachments."""
    viommu = open_viommu(lab)
    domain, endpoint = viommu.domain(), viommu.endpoints[0]
    iova, phys = viommu.mapped(domain, endpoint)
    viommu.restart()
    again = viommu.map(domain, iova + viommu.granule, phys)
    expect(again, Status.NOENT, "MAP to the old domain after status 0")
    viommu.expect_access(endpoint, iova, phys, REFUSED, "after status 0")


@OPERATION.row("O8", Strength.TEXT, "how a request is cut into buffers does not matter")
def check_o8(lab: Lab) -> str | None:
    """Readable and writable part in pieces, and through an indirect table."""
    viommu = open_viommu(lab, FULL)
    indirects = [False]
    if viommu.offered & Feature.INDIRECT_DESC:
        indirects.append(True)
    for indirect in indirects:
        for cut in (False, True):
            _check_framing(viommu, cut=cut, indirect=indirect)
    return None if len(indirects) > 1 else "INDIRECT_DESC is not offered"


def _check_framing(viommu: Viommu, *, cut: bool, indirect: bool) -> None:
    for kind, body in _good_requests(viommu):
        request, size = wire.head(kind) + body, viommu.writable_size(kind)
        readable: Sequence[bytes] = [request]
        writable = [size]
        if cut:
            readable = [request[:4], request[4:8], request[8:]]
            writable = [*([size - TAIL_SIZE] if size > TAIL_SIZE else []), *[1] * 4]
        answer = viommu.device.submit(readable, writable, indirect=indirect)
        where = f"{'in pieces' if cut else 'whole'}{', indirect' * indirect}"
        expect(answer, Status.OK, f"{kind.name} {where}")
        expect_equal(answer.used, size, f"{kind.name} {where}: used length")
