# SPDX-License-Identifier: GPL-2.0-or-later
"""Features and configuration: F1 to F3, C1 to C7."""

from __future__ import annotations

from typing import TYPE_CHECKING

from viotest.conformance import wire
from viotest.conformance.driver import (
    REACHED,
    expect,
    expect_equal,
    expect_not_ok,
    open_viommu,
)
from viotest.conformance.errors import MismatchError, NotApplicableError
from viotest.conformance.lab import BARE, BOOT_BYPASS, FULL, MODERN, OLD_BYPASS
from viotest.conformance.row import Section, Strength
from viotest.conformance.wire import CONFIG, Feature, Status

if TYPE_CHECKING:
    from viotest.conformance.lab import Lab, Shape

FEATURES = Section("5.13.3 Feature bits")
CONFIGURATION = Section("5.13.4 Device configuration layout")

_ALL = 2**64 - 1


@FEATURES.row("F1", Strength.SHOULD, "MAP_UNMAP is offered")
def check_f1(lab: Lab) -> None:
    """Linux gives the device up without it."""
    offered = lab.device(FULL).offered()
    expect_equal(bool(offered & Feature.MAP_UNMAP), True, "feature bit 2")


@FEATURES.row("F2", Strength.SHOULD, "the old BYPASS is not offered")
def check_f2(lab: Lab) -> None:
    """Of a device of today."""
    offered = lab.device(FULL).offered()
    expect_equal(bool(offered & Feature.BYPASS), False, "feature bit 3")


@FEATURES.row("F3", Strength.SHOULD, "never BYPASS and BYPASS_CONFIG together")
def check_f3(lab: Lab) -> str | None:
    """In every shape that the target has."""
    both = Feature.BYPASS | Feature.BYPASS_CONFIG
    shapes = (FULL, BARE, OLD_BYPASS)
    absent = []
    for shape in shapes:
        try:
            offered = lab.device(shape).offered()
        except NotApplicableError:
            absent.append(shape.name)
            continue
        expect_equal(offered & both == both, False, f"bits 3 and 6 ({shape.name})")
    remark = f"not seen as {', '.join(absent)}"
    if len(absent) == len(shapes):
        raise NotApplicableError(remark)
    return remark if absent else None


@CONFIGURATION.row("C1", Strength.MUST, "page_size_mask has a bit")
def check_c1(lab: Lab) -> None:
    """The lowest is the granule."""
    mask = open_viommu(lab).config("page_size_mask")
    if not mask:
        raise MismatchError("page_size_mask: at least one bit", "0")


@CONFIGURATION.row("C2", Strength.MAY, "higher bits of page_size_mask are hints")
def check_c2(lab: Lab) -> str:
    """A size that is a multiple of the granule maps, bit or not."""
    viommu = open_viommu(lab)
    domain, endpoint = viommu.domain(), viommu.endpoints[0]
    viommu.attached(domain, endpoint)
    size = 3 * viommu.granule
    iova, phys = viommu.iova(3), viommu.page(3)
    expect(viommu.map(domain, iova, phys, size), Status.OK, "MAP of 3 granules")
    last = size - 8
    viommu.expect_access(endpoint, iova + last, phys + last, REACHED, "at its end")
    return f"page_size_mask {viommu.config('page_size_mask'):#x}"


@CONFIGURATION.row("C3", Strength.MAY, "bypass starts as configured")
def check_c3(lab: Lab) -> None:
    """Readable before the negotiation: that is what firmware looks at."""
    for shape in (FULL, BOOT_BYPASS):
        device = lab.fresh(shape)
        if not device.offered() & Feature.BYPASS_CONFIG:
            raise NotApplicableError("BYPASS_CONFIG is not offered")
        device.reset()
        seen = device.read_config(*CONFIG["bypass"])
        expect_equal(seen, shape.bypass, f"bypass before FEATURES_OK ({shape.name})")
        device.negotiate(MODERN & device.offered())
        seen = device.read_config(*CONFIG["bypass"])
        expect_equal(seen, shape.bypass, f"bypass after FEATURES_OK ({shape.name})")


@CONFIGURATION.row("C4a", Strength.SHOULD, "a device reset keeps bypass")
def check_c4a(lab: Lab) -> None:
    """Else the endpoints of a rebooting driver would change sides for a moment."""
    viommu = open_viommu(lab)
    viommu.require(Feature.BYPASS_CONFIG)
    for value in (1, 0):
        viommu.write_config("bypass", value)
        expect_equal(viommu.config("bypass"), value, "bypass as written")
        viommu.device.reset()
        expect_equal(viommu.config("bypass"), value, "bypass after status 0")
        viommu.start()
        expect_equal(viommu.config("bypass"), value, "bypass after the negotiation")


@CONFIGURATION.row("C4b", Strength.SHOULD, "a system reset restores bypass")
def check_c4b(lab: Lab) -> None:
    """In both directions."""
    for shape in (FULL, BOOT_BYPASS):
        viommu = open_viommu(lab, shape, bypass=1 - shape.bypass)
        viommu.require(Feature.BYPASS_CONFIG)
        expect_equal(viommu.config("bypass"), 1 - shape.bypass, "bypass as written")
        viommu.device.system_reset()
        seen = viommu.config("bypass")
        expect_equal(seen, shape.bypass, f"bypass after a system reset ({shape.name})")


@CONFIGURATION.row("C5", Strength.MUST, "bypass only ever reads 0 or 1")
def check_c5(lab: Lab) -> None:
    """Whatever is written; the other fields cannot be written at all."""
    _write_config(lab, MODERN)
    _write_config(lab, MODERN & ~Feature.BYPASS_CONFIG)


def _write_config(lab: Lab, features: Feature) -> None:
    viommu = open_viommu(lab, features=features)
    viommu.require(Feature.BYPASS_CONFIG)
    fixed = {name: viommu.config(name) for name in CONFIG if name != "bypass"}
    writes = [(*CONFIG["bypass"], 2), (*CONFIG["bypass"], 0xFF)]
    writes += [(CONFIG["bypass"][0], 4, 0xFFFFFFFF)]
    # By four bytes, which every field may be written with.
    writes += [(offset, 4, 0x5A5A5A5A) for offset in range(0, 36, 4)]
    for offset, size, value in writes:
        viommu.device.write_config(offset, size, value)
        seen = viommu.config("bypass")
        if seen not in (0, 1):
            what = f"bypass after {value:#x} was written at {offset}: 0 or 1"
            raise MismatchError(what, str(seen))
        # A device may take a wrong write as a reason to ask for a reset.
        viommu.restart()
    for name, before in fixed.items():
        expect_equal(viommu.config(name), before, f"{name} after a write to it")


@CONFIGURATION.row("C6", Strength.TEXT, "domain ids: all, or those of domain_range")
def check_c6(lab: Lab) -> str | None:
    """The edges are in; what is outside is refused, and changes nothing."""
    remark = _check_all_domains(lab)
    viommu = open_viommu(lab)
    viommu.require(Feature.DOMAIN_RANGE)
    first, last = viommu.config("domain_start"), viommu.config("domain_end")
    endpoint = viommu.endpoints[0]
    for domain in (first, last):
        expect(viommu.attach(domain, endpoint), Status.OK, f"ATTACH to {domain:#x}")
        expect(viommu.detach(domain, endpoint), Status.OK, f"DETACH of {domain:#x}")
    outside = [d for d in (first - 1, last + 1) if 0 <= d < 2**32]
    iova, phys = viommu.mapped(viommu.domain(), endpoint)
    for domain in outside:
        expect_not_ok(viommu.attach(domain, endpoint), f"ATTACH to {domain:#x}")
        viommu.expect_access(endpoint, iova, phys, REACHED, "in its domain as before")
    return remark if outside else "domain_range leaves no id out"


# The half of C6 that needs a device without the feature.
def _check_all_domains(lab: Lab) -> str | None:
    try:
        viommu = open_viommu(lab, BARE)
    except NotApplicableError:
        return "not seen without DOMAIN_RANGE"
    for domain in (0, 2**32 - 1):
        answer = viommu.attach(domain, viommu.endpoints[0])
        expect(answer, Status.OK, f"ATTACH to {domain:#x} without DOMAIN_RANGE")
    return None


@CONFIGURATION.row("C7", Strength.TEXT, "addresses: all, or those of input_range")
def check_c7(lab: Lab) -> str | None:
    """A MAP that leaves the range is refused."""
    remark = _check_all_addresses(lab, BARE)
    viommu = open_viommu(lab)
    viommu.require(Feature.INPUT_RANGE)
    first, last = viommu.config("input_start"), viommu.config("input_end")
    granule, phys = viommu.granule, viommu.page(2)
    domain = viommu.domain()
    # The endpoint without reserved regions, if there is one.
    viommu.attached(domain, viommu.endpoints[-1])
    for start in (first, last + 1 - granule):
        expect(viommu.map(domain, start, phys), Status.OK, f"MAP at {start:#x}")
        expect(viommu.unmap(domain, start), Status.OK, f"UNMAP at {start:#x}")
    outside = []
    if first:
        outside += [first - granule]
    if last < _ALL:
        outside += [last + 1, last + 1 - granule]
    for start in outside:
        size = 2 * granule
        what = f"MAP at {start:#x}, range {first:#x} to {last:#x}"
        expect_not_ok(viommu.map(domain, start, phys, size), what)
    return remark if outside else "input_range leaves no address out"


def _check_all_addresses(lab: Lab, shape: Shape) -> str | None:
    try:
        viommu = open_viommu(lab, shape)
    except NotApplicableError:
        return "not seen without INPUT_RANGE"
    domain, endpoint = viommu.domain(), viommu.endpoints[0]
    viommu.attached(domain, endpoint)
    phys = viommu.page()
    top = _ALL - viommu.granule + 1
    for start in (0, top):
        answer = viommu.map(domain, start, phys, flags=wire.MAP_RW)
        expect(answer, Status.OK, f"MAP at {start:#x} without INPUT_RANGE")
        viommu.expect_access(endpoint, start, phys, REACHED, "after MAP")
    return None
