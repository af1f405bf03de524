# SPDX-License-Identifier: GPL-2.0-or-later
"""ATTACH and DETACH: A1 to A8, D1 to D5."""

from __future__ import annotations

from typing import TYPE_CHECKING

from viotest.conformance.driver import (
    LONG_SIZE,
    LONG_START,
    REACHED,
    REFUSED,
    UNKNOWN_ENDPOINTS,
    describe,
    expect,
    expect_equal,
    open_viommu,
    status_of,
)
from viotest.conformance.errors import MismatchError, NotApplicableError
from viotest.conformance.lab import BARE
from viotest.conformance.row import Section, Strength
from viotest.conformance.wire import ATTACH_F_BYPASS, Feature, Status

if TYPE_CHECKING:
    from viotest.conformance.driver import Viommu
    from viotest.conformance.lab import Answer, Lab

ATTACH = Section("5.13.6 Device operations: ATTACH request")
DETACH = Section("5.13.6 Device operations: DETACH request")


def _expect_unchanged(viommu: Viommu, domain: int, answer: Answer, what: str) -> None:
    expect(answer, Status.INVAL, what)
    probe = viommu.map(domain, viommu.iova(), viommu.page())
    expect(probe, Status.NOENT, f"MAP to the domain after the refused {what}")


@ATTACH.row("A1", Strength.MUST, "reserved bytes set: INVAL")
def check_a1(lab: Lab) -> None:
    """Each of the four, and nothing is attached."""
    viommu = open_viommu(lab)
    for number in range(4):
        reserved = bytes(1 << 7 if i == number else 0 for i in range(4))
        domain = viommu.domain()
        answer = viommu.attach(domain, viommu.endpoints[0], reserved=reserved)
        _expect_unchanged(viommu, domain, answer, f"ATTACH, reserved[{number}] set")


@ATTACH.row("A2", Strength.MUST, "unknown flags: INVAL")
def check_a2(lab: Lab) -> str | None:
    """Without BYPASS_CONFIG in the offer, bypass is one of them."""
    viommu = open_viommu(lab)
    for flags in (2, 1 << 31):
        domain = viommu.domain()
        answer = viommu.attach(domain, viommu.endpoints[0], flags)
        _expect_unchanged(viommu, domain, answer, f"ATTACH with flags {flags:#x}")
    try:
        viommu = open_viommu(lab, BARE)
    except NotApplicableError:
        return "not seen without BYPASS_CONFIG"
    domain = viommu.domain()
    answer = viommu.attach(domain, viommu.endpoints[0], ATTACH_F_BYPASS)
    what = "ATTACH with the bypass flag, BYPASS_CONFIG not offered"
    _expect_unchanged(viommu, domain, answer, what)
    return None


@ATTACH.row("A3", Strength.MUST, "unknown endpoint: NOENT")
def check_a3(lab: Lab) -> None:
    """And there is no domain afterwards."""
    viommu = open_viommu(lab)
    for endpoint in UNKNOWN_ENDPOINTS:
        domain = viommu.domain()
        answer = viommu.attach(domain, endpoint)
        expect(answer, Status.NOENT, f"ATTACH of endpoint {endpoint:#x}")
        probe = viommu.map(domain, viommu.iova(), viommu.page())
        expect(probe, Status.NOENT, "MAP to that domain")


@ATTACH.row("A4", Strength.MUST, "a second endpoint shares the domain, or UNSUPP")
def check_a4(lab: Lab) -> str | None:
    """Its mappings, the old and the new ones."""
    viommu = open_viommu(lab)
    first, second = viommu.endpoints[:2]
    domain, other = viommu.domain(), viommu.domain()
    old, old_phys = viommu.mapped(domain, first)
    own, own_phys = viommu.mapped(other, second)
    answer = viommu.attach(domain, second)
    if status_of(answer) == Status.UNSUPP:
        viommu.expect_access(second, own, own_phys, REACHED, "after UNSUPP")
        return "UNSUPP"
    expect(answer, Status.OK, "ATTACH of a second endpoint")
    new, new_phys = viommu.iova(), viommu.page()
    expect(viommu.map(domain, new, new_phys), Status.OK, "MAP to the shared domain")
    for endpoint in (first, second):
        viommu.expect_access(endpoint, old, old_phys, REACHED, "to an old mapping")
        viommu.expect_access(endpoint, new, new_phys, REACHED, "to a new mapping")
    expect(viommu.unmap(domain, old), Status.OK, "UNMAP in the shared domain")
    for endpoint in (first, second):
        viommu.expect_access(endpoint, old, old_phys, REFUSED, "after UNMAP")
    return None


@ATTACH.row("A5", Strength.SHOULD, "a bypass flag that contradicts the domain: INVAL")
def check_a5(lab: Lab) -> None:
    """Both ways; the endpoint stays where it is."""
    viommu = open_viommu(lab)
    viommu.require(Feature.BYPASS_CONFIG)
    first, second = viommu.endpoints[:2]
    iova, phys = viommu.mapped(viommu.domain(), second)
    for flags in (0, ATTACH_F_BYPASS):
        domain = viommu.domain()
        viommu.attached(domain, first, flags)
        answer = viommu.attach(domain, second, flags ^ ATTACH_F_BYPASS)
        kind = "bypass" if flags else "translating"
        expect(answer, Status.INVAL, f"ATTACH to a {kind} domain, flag contradicting")
        viommu.expect_access(second, iova, phys, REACHED, "in its domain as before")


@ATTACH.row("A6", Strength.MUST, "attached elsewhere: moves, or UNSUPP")
def check_a6(lab: Lab) -> str | None:
    """Linux never sends DETACH to switch domains."""
    viommu = open_viommu(lab)
    endpoint = viommu.endpoints[0]
    first, second = viommu.domain(), viommu.domain()
    old, old_phys = viommu.mapped(first, endpoint)
    answer = viommu.attach(second, endpoint)
    if status_of(answer) == Status.UNSUPP:
        viommu.expect_access(endpoint, old, old_phys, REACHED, "after UNSUPP")
        return "UNSUPP"
    expect(answer, Status.OK, "ATTACH to another domain")
    viommu.expect_access(endpoint, old, old_phys, REFUSED, "to the old domain")
    new, new_phys = viommu.iova(), viommu.page()
    expect(viommu.map(second, new, new_phys), Status.OK, "MAP to the new domain")
    viommu.expect_access(endpoint, new, new_phys, REACHED, "to the new domain")
    probe = viommu.map(first, viommu.iova(), viommu.page())
    expect(probe, Status.NOENT, "MAP to the domain that its last endpoint left")
    return None


@ATTACH.row(
    "A7", Strength.SHOULD, "like endpoints share a domain, unlike ones need not"
)
def check_a7(lab: Lab) -> str:
    """A conflict with what is mapped: UNSUPP, or the region stays reserved."""
    viommu = open_viommu(lab)
    viommu.require(Feature.PROBE)
    first, second = viommu.endpoints[:2]
    if viommu.resv_mem(first) == viommu.resv_mem(second):
        domain = viommu.domain()
        viommu.attached(domain, first)
        answer = viommu.attach(domain, second)
        expect(answer, Status.OK, "ATTACH of an endpoint with the same properties")
    return _check_unlike(viommu, first)


def _check_unlike(viommu: Viommu, first: int) -> str:
    unlike, region = next(
        (
            (endpoint, region)
            for endpoint in viommu.endpoints
            for region in viommu.resv_mem(endpoint)
            if region not in viommu.resv_mem(first)
        ),
        (None, None),
    )
    if unlike is None or region is None:
        return "all endpoints have the same properties"
    domain, phys = viommu.domain(), viommu.page()
    own, own_phys = viommu.mapped(viommu.domain(), unlike)
    viommu.attached(domain, first)
    start = region.start
    expect(viommu.map(domain, start, phys), Status.OK, f"MAP at {start:#x}")
    answer = viommu.attach(domain, unlike)
    if status_of(answer) == Status.UNSUPP:
        viommu.expect_access(unlike, own, own_phys, REACHED, "after UNSUPP")
        return "a conflict is UNSUPP"
    expect(answer, (Status.OK,), "ATTACH whose region the domain maps (or UNSUPP)")
    viommu.expect_access(unlike, start, phys, REFUSED, "into its reserved region")
    return "a conflict is accepted, and the region stays reserved"


@ATTACH.row("A8", Strength.MUST, "attached by the time the answer is there")
def check_a8(lab: Lab) -> None:
    """DMA at once, many times."""
    viommu = open_viommu(lab)
    endpoint = viommu.endpoints[0]
    first, second = viommu.domain(), viommu.domain()
    iova, phys = viommu.mapped(first, endpoint)
    keeper = viommu.endpoints[1]
    expect(viommu.attach(first, keeper), (Status.OK, Status.UNSUPP), "ATTACH")
    if viommu.device.attached.get(keeper) != first:
        raise NotApplicableError("domains are not shared: nothing keeps one alive")
    for _ in range(8):
        viommu.attached(second, endpoint)
        viommu.expect_access(endpoint, iova, phys, REFUSED, "right after ATTACH")
        viommu.attached(first, endpoint)
        viommu.expect_access(endpoint, iova, phys, REACHED, "right after ATTACH")


@DETACH.row("D1", Strength.MUST, "reserved bytes are ignored")
def check_d1(lab: Lab) -> None:
    """OK, and really detached."""
    viommu = open_viommu(lab)
    domain, endpoint = viommu.domain(), viommu.endpoints[0]
    iova, phys = viommu.mapped(domain, endpoint)
    answer = viommu.detach(domain, endpoint, reserved=b"\xff" * 8)
    expect(answer, Status.OK, "DETACH with reserved bytes set")
    viommu.expect_access(endpoint, iova, phys, REFUSED, "after DETACH")


@DETACH.row("D2", Strength.MUST, "unknown endpoint: NOENT")
def check_d2(lab: Lab) -> None:
    """Whether or not the domain exists."""
    viommu = open_viommu(lab)
    domain = viommu.domain()
    viommu.attached(domain, viommu.endpoints[0])
    for endpoint in UNKNOWN_ENDPOINTS:
        for target in (domain, viommu.domain()):
            answer = viommu.detach(target, endpoint)
            expect(answer, Status.NOENT, f"DETACH of endpoint {endpoint:#x}")


@DETACH.row("D3", Strength.MAY, "DETACH from a domain that it is not in may be INVAL")
def check_d3(lab: Lab) -> str:
    """It never leaves the domain that it is in."""
    viommu = open_viommu(lab)
    endpoint, other = viommu.endpoints[:2]
    domain, wrong = viommu.domain(), viommu.domain()
    iova, phys = viommu.mapped(domain, endpoint)
    viommu.attached(wrong, other)
    seen = {
        "wrong domain": viommu.detach(wrong, endpoint),
        "unknown domain": viommu.detach(viommu.domain(), endpoint),
        "never attached": viommu.detach(domain, viommu.endpoints[2]),
    }
    # detach() has forgotten nothing: the domains were not the endpoint's.
    viommu.expect_access(endpoint, iova, phys, REACHED, "after a wrong DETACH")
    expect(viommu.detach(domain, endpoint), Status.OK, "DETACH")
    seen["twice"] = viommu.detach(domain, endpoint)
    for case, answer in seen.items():
        if status_of(answer) is None:
            raise MismatchError(f"DETACH, {case}: a status", describe(answer))
    return "; ".join(f"{case}: {describe(a)}" for case, a in seen.items())


@DETACH.row("D4", Strength.MUST, "afterwards no access to the domain's mappings")
def check_d4(lab: Lab) -> None:
    """Not even by DMA that was on its way."""
    viommu = open_viommu(lab)
    domain, endpoint = viommu.domain(), viommu.endpoints[0]
    iova, phys = viommu.mapped(domain, endpoint)
    expect(viommu.detach(domain, endpoint), Status.OK, "DETACH")
    viommu.expect_access(endpoint, iova, phys, REFUSED, "after DETACH")
    if viommu.offered & Feature.BYPASS_CONFIG:
        viommu.write_config("bypass", 1)
        viommu.expect_access(endpoint, phys, phys, REACHED, "after DETACH, bypass 1")
        viommu.write_config("bypass", 0)
    _check_race(viommu, endpoint)


# A transfer fills memory from its first byte on. How far it has come when the answer
# is there is how far it may ever come.
def _check_race(viommu: Viommu, endpoint: int) -> None:
    device, domain = viommu.device, viommu.domain()
    iova = viommu.iova(LONG_SIZE // viommu.granule)
    viommu.attached(domain, endpoint)
    answer = viommu.map(domain, iova, LONG_START, LONG_SIZE)
    expect(answer, Status.OK, f"MAP of {LONG_SIZE >> 20} MiB")
    device.memory_clear(LONG_START, LONG_SIZE)
    transfer = device.dma_start(endpoint, iova, LONG_SIZE, 0xD0D0D0D0D0D0D0D0)
    expect(viommu.detach(domain, endpoint), Status.OK, "DETACH during DMA")
    reached = _filled(viommu)
    transfer.wait()
    late = _filled(viommu) - reached
    what = "bytes that a DMA on its way wrote after DETACH was answered"
    expect_equal(late, 0, what)


# The length of what is not zero, by bisection.
def _filled(viommu: Viommu) -> int:
    low, high = 0, LONG_SIZE // 8
    while low < high:
        middle = (low + high) // 2
        if any(viommu.device.memory_read(LONG_START + 8 * middle, 8)):
            low = middle + 1
        else:
            high = middle
    return 8 * low


@DETACH.row("D5", Strength.TEXT, "the last DETACH ends the domain")
def check_d5(lab: Lab) -> None:
    """With its mappings; not before the last one."""
    viommu = open_viommu(lab)
    first, second = viommu.endpoints[:2]
    domain = viommu.domain()
    iova, phys = viommu.mapped(domain, first)
    shared = status_of(viommu.attach(domain, second)) == Status.OK
    expect(viommu.detach(domain, first), Status.OK, "DETACH")
    if shared:
        viommu.expect_access(second, iova, phys, REACHED, "after the other left")
        expect(viommu.detach(domain, second), Status.OK, "the last DETACH")
    answer = viommu.map(domain, viommu.iova(), phys)
    expect(answer, Status.NOENT, "MAP after the last DETACH")
    viommu.attached(domain, first)
    viommu.expect_access(first, iova, phys, REFUSED, "in the domain made anew")
