# SPDX-License-Identifier: GPL-2.0-or-later
"""Where the endpoints of a trace are, so that both targets know them."""

from __future__ import annotations

import tomllib

import pytest

from viotest.conformance import wire
from viotest.conformance.lab import Region
from viotest.conformance.target import Target
from viotest.trace.model import Endpoint, Header
from viotest.trace.target import _device_config, _qemu_devices, plan_target


def header(*ids: int, **iommu: int) -> Header:
    return Header(iommu, tuple(Endpoint(number) for number in ids))


def test_endpoints_stay_where_they_are() -> None:
    plan = plan_target(Target.QEMU, header(0x80, 0x83, 0xF0), frozenset({0x80, 0x444}))
    assert plan.ids == {}
    assert plan.notes == ()
    argv = _qemu_devices(header(0x80, 0x83), plan.ids)
    places = [word.split(",")[1] for word in argv if word.startswith("pci-testdev")]
    assert places == ["addr=10.0", "addr=10.3"]


def test_endpoint_that_cannot_stay_gets_a_free_place() -> None:
    known = header(0x1234, 0x08, 0x10)
    plan = plan_target(Target.QEMU, known, frozenset({0x1234, 0x08, 0x11}))
    # 0x10 is an endpoint's, and 0x11 must stay unknown.
    assert plan.ids == {0x1234: 0x12, 0x08: 0x13}
    assert "endpoint 0x1234 is 0x12 there" in plan.notes
    assert plan_target(Target.VIOTEST, known, frozenset({0x08})).ids == {}


def test_unknown_endpoint_does_not_become_one_of_qemus_own() -> None:
    named = frozenset({0x80, 0xF8, 0x08, 0, 0x4000, 0x444})
    plan = plan_target(Target.QEMU, header(0x80), named)
    assert plan.ids == {0: 0x4001, 0x08: 0x4002, 0xF8: 0x4003}
    assert plan.notes == ()


def test_more_endpoints_than_places() -> None:
    ids = [0x10000 + i for i in range(232)]
    assert len(plan_target(Target.QEMU, header(*ids), frozenset()).ids) == 232
    with pytest.raises(ValueError, match="more endpoints"):
        plan_target(Target.QEMU, header(*ids, 1), frozenset())


def test_what_qemu_is_not_given_is_said() -> None:
    config = {"bypass": 1, "page_size_mask": 0x4000, "input_end": 5, "features": 0x77}
    plan = plan_target(Target.QEMU, header(**config), frozenset())
    assert plan.notes == ("it cannot be configured with features, input_end",)
    options = _qemu_devices(header(**config), {})[1]
    assert "granule=16k" in options
    assert "boot-bypass=on" in options
    notes = plan_target(
        Target.QEMU, header(page_size_mask=0x2000000), frozenset()
    ).notes
    assert notes == ("it cannot have that granule, and has 4 KiB",)


def test_device_is_configured_as_it_was() -> None:
    regions = (Region(wire.RESV_MEM_MSI, 1, 2), Region(wire.RESV_MEM_RESERVED, 3, 4))
    wanted = Header({"bypass": 1, "input_end": 2**64 - 1}, (Endpoint(9, regions),))
    config = tomllib.loads(_device_config(wanted, ["ignore-unmap"]))
    assert config["mutants"] == ["ignore-unmap"]
    [iommu] = config["iommu"]
    assert (iommu["bypass"], iommu["input_end"]) == (1, 2**64 - 1)
    [endpoint] = config["endpoint"]
    assert (endpoint["id"], endpoint["iommu"]) == (9, 0)
    assert endpoint["resv_mem"] == [
        {"type": "msi", "start": 1, "end": 2},
        {"type": "reserved", "start": 3, "end": 4},
    ]
