# SPDX-License-Identifier: GPL-2.0-or-later
"""Where endpoints sit, what the IOMMU calls them, and which groups must come of it."""

from __future__ import annotations

import pytest

from viotest.errors import UsageError
from viotest.scenario.model import EndpointModel, EndpointSpec, Iommu, Place, Scenario
from viotest.scenario.topology import (
    build_topology,
    expected_groups,
    id_only_endpoints,
    parse_bdf,
    requester_ids,
)

ROOT = EndpointSpec()
HOTPLUG = EndpointSpec(place=Place.HOTPLUG)
PORT = EndpointSpec(place=Place.PORT)
BRIDGE = EndpointSpec(place=Place.BRIDGE)
EVERYWHERE = (BRIDGE, PORT, ROOT, PORT, BRIDGE, ROOT)


def test_topology_numbers_buses_in_the_order_of_slots() -> None:
    topology = build_topology(Scenario(endpoints=EVERYWHERE))
    assert [(b.name, b.bdf, b.bus) for b in topology.bridges] == [
        ("port0", "0000:00:06.0", 1),
        ("port1", "0000:00:07.0", 2),
        ("bridge0", "0000:00:0f.0", 3),
    ]
    assert [endpoint.bdf for endpoint in topology.endpoints] == [
        "0000:03:01.0",
        "0000:01:00.0",
        "0000:00:10.0",
        "0000:02:00.0",
        "0000:03:02.0",
        "0000:00:11.0",
    ]


def test_topology_gives_all_behind_the_bridge_one_requester_id() -> None:
    topology = build_topology(Scenario(endpoints=EVERYWHERE))
    assert [requester_ids(endpoint) for endpoint in topology.endpoints] == [
        (0x308, 0x300),
        (0x100,),
        (0x80,),
        (0x200,),
        (0x310, 0x300),
        (0x88,),
    ]
    assert id_only_endpoints(topology) == (
        ("bridge0", 0x78, 0),
        ("bridge0.alias", 0x300, 0),
    )


def test_topology_translates_each_id_by_the_iommu_asked_for() -> None:
    specs = (
        ROOT,
        EndpointSpec(iommu=1),
        EndpointSpec(place=Place.PORT, iommu=1),
        EndpointSpec(place=Place.BRIDGE, iommu=1),
    )
    topology = build_topology(Scenario(endpoints=specs))
    first, second = (iommu.bdf for iommu in topology.iommus)
    by_iommu = {
        bdf: {
            rid
            for reach in topology.ranges
            if reach.iommu_bdf == bdf
            for rid in range(reach.bdf_start, reach.bdf_end + 1)
        }
        for bdf in (first, second)
    }
    assert by_iommu == {first: {0x80}, second: {0x78, 0x88, 0x100, 0x200, 0x208}}


def test_groups_are_single_but_behind_the_bridge() -> None:
    groups = expected_groups(build_topology(Scenario(endpoints=EVERYWHERE)))
    assert set(groups) == {
        frozenset({"0000:00:0f.0", "0000:03:01.0", "0000:03:02.0"}),
        frozenset({"0000:01:00.0"}),
        frozenset({"0000:02:00.0"}),
        frozenset({"0000:00:10.0"}),
        frozenset({"0000:00:11.0"}),
    }


def test_topology_full_of_endpoints_has_no_slot_twice() -> None:
    specs = (ROOT,) * 15 + (PORT,) * 9 + (BRIDGE,) * 31
    topology = build_topology(Scenario(endpoints=specs))
    places = [endpoint.bdf for endpoint in topology.endpoints]
    places += [bridge.bdf for bridge in topology.bridges]
    places += [topology.nic_bdf, topology.iommus[0].bdf]
    assert len(places) == len(set(places))
    assert {parse_bdf(bdf)[1] >> 8 for bdf in places} == set(range(11))


def test_topology_takes_ports_in_the_order_of_the_endpoints_behind_them() -> None:
    topology = build_topology(Scenario(endpoints=(HOTPLUG, ROOT, PORT, HOTPLUG)))
    places = [(e.bdf, e.behind and e.behind.name) for e in topology.endpoints]
    assert places == [
        ("0000:01:00.0", "port0"),
        ("0000:00:10.0", None),
        ("0000:02:00.0", "port1"),
        ("0000:03:00.0", "port2"),
    ]


@pytest.mark.parametrize(
    ("scenario", "words"),
    [
        (Scenario(endpoints=(PORT, HOTPLUG) * 5), "10 endpoints behind root ports"),
        (
            Scenario(endpoints=(EndpointSpec(EndpointModel.NVME, Place.HOTPLUG),)),
            "only a dma-engine can be unplugged",
        ),
        (Scenario(endpoints=()), "no endpoints"),
        (Scenario(endpoints=(ROOT,) * 16), "16 endpoints on the root bus: at most 15"),
        (Scenario(endpoints=(PORT,) * 10), "10 endpoints behind root ports"),
        (Scenario(endpoints=(BRIDGE,) * 32), "32 endpoints behind the bridge"),
        (Scenario(endpoints=(EndpointSpec(iommu=4),)), "at most 4"),
        (Scenario(endpoints=(EndpointSpec(iommu=1),)), "no endpoint is behind iommu=0"),
        (
            Scenario(endpoints=(BRIDGE, EndpointSpec(place=Place.BRIDGE, iommu=1))),
            "different virtio-iommus",
        ),
        (
            Scenario(endpoints=(ROOT, EndpointSpec(iommu=1)), iommu=Iommu.QEMU),
            "one virtio-iommu per guest",
        ),
        (
            Scenario(endpoints=(EndpointSpec(EndpointModel.QEMU_IGB),)),
            "needs --iommu qemu",
        ),
        (
            Scenario(
                endpoints=(EndpointSpec(EndpointModel.QEMU_IGB),), iommu=Iommu.QEMU
            ),
            "no room for its virtual functions",
        ),
    ],
)
def test_topology_refuses(scenario: Scenario, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        build_topology(scenario)
