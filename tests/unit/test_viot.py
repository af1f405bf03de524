# SPDX-License-Identifier: GPL-2.0-or-later
"""The VIOT generator against the bytes that Linux was seen to accept."""

from __future__ import annotations

import struct
from dataclasses import replace

import pytest

from viotest.firmware.viot import viot_table
from viotest.scenario.model import (
    EndpointRange,
    EndpointSpec,
    Function,
    Iommu,
    Place,
    Scenario,
    Topology,
)
from viotest.scenario.topology import build_topology, format_bdf, parse_bdf

BRIDGED = (
    EndpointSpec(),
    EndpointSpec(place=Place.BRIDGE),
    EndpointSpec(place=Place.PORT),
    EndpointSpec(place=Place.BRIDGE),
)


def engines(count: int) -> tuple[EndpointSpec, ...]:
    return (EndpointSpec(),) * count


def test_viot_of_default_scenario_is_88_bytes() -> None:
    table = viot_table(build_topology(Scenario()))
    assert len(table) == 88
    assert table[:4] == b"VIOT"
    assert struct.unpack_from("<I", table, 4) == (88,)
    assert struct.unpack_from("<HH", table, 36) == (2, 48)
    assert sum(table) % 256 == 0


def test_viot_iommu_node_names_the_function() -> None:
    table = viot_table(build_topology(Scenario()))
    assert table[48:64] == struct.pack("<BBHHH8x", 3, 0, 16, 0, 0x08)


def test_viot_range_covers_exactly_one_endpoint() -> None:
    table = viot_table(build_topology(Scenario()))
    expected = (1, 0, 24, 0x80, 0, 0, 0x80, 0x80, 48)
    assert struct.unpack_from("<BBHIHHHHH", table, 64) == expected


def test_viot_of_two_iommus_points_each_range_at_its_own() -> None:
    iommus = (Function("a", "0000:00:01.0", "a"), Function("b", "0000:00:03.0", "b"))
    ranges = (
        EndpointRange(0, 0x100, 0x1FF, 0x100, "0000:00:03.0"),
        EndpointRange(0, 0x80, 0x87, 0x80, "0000:00:01.0"),
    )
    topology = Topology(iommus, (), None, "0000:00:02.0", ranges)
    table = viot_table(topology)
    assert len(table) == 48 + 2 * 16 + 2 * 24
    assert struct.unpack_from("<H", table, 80 + 16) == (64,)
    assert struct.unpack_from("<H", table, 104 + 16) == (48,)


def test_viot_refuses_a_range_that_holds_the_iommu() -> None:
    topology = build_topology(Scenario())
    wide = (replace(topology.ranges[0], bdf_start=0),)
    with pytest.raises(ValueError, match="must not hold"):
        viot_table(replace(topology, ranges=wide))


def test_viot_refuses_a_range_of_an_unknown_iommu() -> None:
    topology = build_topology(Scenario())
    with pytest.raises(ValueError, match="no virtio-iommu of ours"):
        viot_table(replace(topology, iommus=()))


def test_viot_of_a_port_and_a_bridge_names_every_alias() -> None:
    table = viot_table(build_topology(Scenario(endpoints=BRIDGED)))
    nodes = [
        struct.unpack_from("<BBHIHHHHH", table, offset)
        for offset in range(64, len(table), 24)
    ]
    # The bridge itself, the endpoint on the root bus, the one behind the port, the
    # alias of bus 2, and the two endpoints behind the bridge.
    ids = (0x78, 0x80, 0x100, 0x200, 0x208, 0x210)
    assert nodes == [(1, 0, 24, rid, 0, 0, rid, rid, 48) for rid in ids]


def test_topology_with_qemus_iommu_serves_none_of_ours() -> None:
    topology = build_topology(Scenario(iommu=Iommu.QEMU))
    assert topology.iommus == ()
    assert topology.ranges == ()
    assert topology.qemu_iommu_bdf == "0000:00:01.0"


def test_topology_keeps_endpoint_ids_equal_to_requester_ids() -> None:
    for endpoint in build_topology(Scenario(endpoints=engines(4))).endpoints:
        assert parse_bdf(endpoint.bdf) == (0, endpoint.endpoint_id)


def test_topology_keeps_the_nic_outside_every_range() -> None:
    topology = build_topology(Scenario(endpoints=engines(15)))
    _, nic = parse_bdf(topology.nic_bdf)
    assert all(not r.bdf_start <= nic <= r.bdf_end for r in topology.ranges)


@pytest.mark.parametrize("text", ["", "00:01.0", "0000:00:20.0", "0000:00:01.8"])
def test_parse_bdf_refuses(text: str) -> None:
    with pytest.raises(ValueError, match="no PCI address"):
        parse_bdf(text)


def test_format_bdf_reverses_parse_bdf() -> None:
    assert format_bdf(*parse_bdf("0001:3a:1f.7")) == "0001:3a:1f.7"
