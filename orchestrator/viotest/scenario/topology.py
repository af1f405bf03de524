# SPDX-License-Identifier: GPL-2.0-or-later
"""Where a scenario's functions sit on the guest's PCI buses: pure functions.

:func:`build_topology` places them, :func:`expected_groups` says which IOMMU groups
must come of it. docs/topology.md has the drawing.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from viotest.errors import UsageError
from viotest.scenario.model import (
    Bridge,
    EndpointFunction,
    EndpointModel,
    EndpointRange,
    Function,
    Iommu,
    Place,
    Scenario,
    Topology,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from viotest.scenario.model import EndpointSpec

_BDF = re.compile(r"([0-9a-f]{4}):([0-9a-f]{2}):([01][0-9a-f])\.([0-7])")

# Slots of pcie.0. Slot 31 is q35's own (LPC, AHCI, SMBus), slot 0 the host bridge.
_IOMMU_SLOTS = (1, 3, 4, 5)
_NIC_SLOT = 2
_PORT_SLOTS = range(6, 15)
_BRIDGE_SLOT = 15
_ROOT_SLOTS = range(16, 31)
# Slot 0 of a bridge with a hot-plug controller (SHPC) takes no device.
_BRIDGE_SLOTS = range(1, 32)

_PORTS = (Place.PORT, Place.HOTPLUG)
_ROOM = (
    ("on the root bus", (Place.ROOT,), _ROOT_SLOTS),
    ("behind root ports", _PORTS, _PORT_SLOTS),
    ("behind the bridge", (Place.BRIDGE,), _BRIDGE_SLOTS),
)


def parse_bdf(text: str) -> tuple[int, int]:
    """Split a PCI address.

    :param text: ``0000:00:10.0``.
    :return: The segment and the requester id (bus << 8 | device << 3 | function).
    :raise ValueError: When ``text`` is no PCI address.
    """
    found = _BDF.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is no PCI address like 0000:00:10.0")
    segment, bus, device, function = (int(part, 16) for part in found.groups())
    return segment, bus << 8 | device << 3 | function


def format_bdf(segment: int, rid: int) -> str:
    """Return the PCI address of a requester id, ``0000:00:10.0``."""
    return f"{segment:04x}:{rid >> 8:02x}:{rid >> 3 & 31:02x}.{rid & 7}"


def _bdf(bus: int, slot: int) -> str:
    return format_bdf(0, bus << 8 | slot << 3)


def own_id(endpoint: EndpointFunction) -> int:
    """Return the requester id of an endpoint itself, whatever a bridge makes of it."""
    return parse_bdf(endpoint.bdf)[1]


def requester_ids(endpoint: EndpointFunction) -> tuple[int, ...]:
    """Return every id by which the guest's OS knows an endpoint to its IOMMU.

    Its own, and the one that a bridge uses for it: Linux asks for both
    (pci_for_each_dma_alias) and attaches both.
    """
    own = own_id(endpoint)
    return (own,) if own == endpoint.endpoint_id else (own, endpoint.endpoint_id)


def id_only_endpoints(topology: Topology) -> tuple[tuple[str, int, int], ...]:
    """Return the endpoints of our virtio-iommus that are no function of ours.

    :return: Name, endpoint id and index of the virtio-iommu of each: a bridge that
        speaks for what is behind it, and the id under which it does.
    """
    return tuple(
        row
        for bridge in topology.bridges
        if bridge.place is Place.BRIDGE
        for row in (
            (bridge.name, parse_bdf(bridge.bdf)[1], bridge.iommu),
            (f"{bridge.name}.alias", bridge.bus << 8, bridge.iommu),
        )
    )


def expected_groups(topology: Topology) -> tuple[frozenset[str], ...]:
    """Return the IOMMU groups that a topology must give, as sets of PCI addresses.

    A function on the root bus is alone, and so is one behind a root port, which
    redirects what functions send to each other (ACS). A PCIe-to-PCI bridge gives
    everything behind it one requester id: one group, with the bridge itself.
    """
    groups: dict[str, set[str]] = {}
    for endpoint in topology.endpoints:
        bridge = endpoint.behind
        merged = bridge is not None and bridge.place is Place.BRIDGE
        key = bridge.bdf if bridge is not None and merged else endpoint.bdf
        groups.setdefault(key, {key}).add(endpoint.bdf)
    return tuple(frozenset(group) for group in groups.values())


def _check(scenario: Scenario) -> int:
    # Returns the number of virtio-iommus.
    specs = scenario.endpoints
    if not specs:
        raise UsageError("no endpoints: at least one is needed")
    for where, places, room in _ROOM:
        count = sum(spec.place in places for spec in specs)
        if count > len(room):
            raise UsageError(f"{count} endpoints {where}: at most {len(room)} fit")
    for spec in specs:
        if spec.place is Place.HOTPLUG and spec.model is not EndpointModel.DMA_ENGINE:
            raise UsageError(
                f"--endpoint {spec}: only a dma-engine can be unplugged",
                hint=f"--endpoint {spec.model}@port",
            )
    used = {spec.iommu for spec in specs}
    nr_iommus = max(used) + 1
    if nr_iommus > len(_IOMMU_SLOTS):
        raise UsageError(
            f"iommu={nr_iommus - 1}: a guest has at most {len(_IOMMU_SLOTS)}",
            hint=f"0 to {len(_IOMMU_SLOTS) - 1}",
        )
    for index in range(nr_iommus):
        if index not in used:
            raise UsageError(
                f"iommu={nr_iommus - 1}, but no endpoint is behind iommu={index}"
            )
    if len({spec.iommu for spec in specs if spec.place is Place.BRIDGE}) > 1:
        raise UsageError(
            "endpoints behind the bridge name different virtio-iommus",
            hint="the bridge gives them one requester id, so one IOMMU gets it all",
        )
    _check_backend(scenario, nr_iommus)
    return nr_iommus


def _check_backend(scenario: Scenario, nr_iommus: int) -> None:
    if scenario.iommu is Iommu.QEMU:
        if nr_iommus > 1:
            raise UsageError(
                f"iommu={nr_iommus - 1}: QEMU makes one virtio-iommu per guest",
                hint="use --iommu viotest",
            )
        for spec in scenario.endpoints:
            # Its virtual functions have the addresses from 16 slots after it on.
            igb = spec.model is EndpointModel.QEMU_IGB
            if igb and spec.place is not Place.PORT:
                raise UsageError(
                    f"--endpoint {spec}: there is no room for its virtual functions",
                    hint=f"--endpoint {spec.model}@port",
                )
        return
    for spec in scenario.endpoints:
        if spec.model.is_qemus:
            raise UsageError(
                f"--endpoint {spec}: QEMU's own device needs --iommu qemu",
                hint="our virtio-iommu cannot translate the DMA of QEMU's devices",
            )


# Both number buses depth first in the order of the slots: the firmware (SeaBIOS,
# pci_bios_init_bus) does it first, and Linux keeps what it finds.
def _bridges(specs: Sequence[EndpointSpec]) -> tuple[Bridge, ...]:
    ports = [spec for spec in specs if spec.place in _PORTS]
    bridges = [
        Bridge(f"port{i}", _bdf(0, _PORT_SLOTS[i]), i + 1, spec.place, spec.iommu)
        for i, spec in enumerate(ports)
    ]
    behind = [spec for spec in specs if spec.place is Place.BRIDGE]
    if behind:
        bus = len(bridges) + 1
        bridges.append(
            Bridge("bridge0", _bdf(0, _BRIDGE_SLOT), bus, Place.BRIDGE, behind[0].iommu)
        )
    return tuple(bridges)


def _endpoints(
    specs: Sequence[EndpointSpec], bridges: Sequence[Bridge]
) -> tuple[EndpointFunction, ...]:
    ports = iter(bridges)
    root_slots, bridge_slots = iter(_ROOT_SLOTS), iter(_BRIDGE_SLOTS)
    placed = []
    for i, spec in enumerate(specs):
        behind: Bridge | None = None
        if spec.place in _PORTS:
            behind, slot = next(ports), 0
        elif spec.place is Place.BRIDGE:
            behind, slot = bridges[-1], next(bridge_slots)
        else:
            slot = next(root_slots)
        bus = behind.bus if behind else 0
        own = bus << 8 | slot << 3
        placed.append(
            EndpointFunction(
                name=f"ep{i}",
                bdf=format_bdf(0, own),
                socket="" if spec.model.is_qemus else f"ep{i}.sock",
                # A PCIe-to-PCI bridge takes the transactions of the bus behind it
                # over, as function 0 of device 0 on that bus.
                endpoint_id=bus << 8 if spec.place is Place.BRIDGE else own,
                spec=spec,
                behind=behind,
            )
        )
    return tuple(placed)


def _ranges(ids: Iterable[tuple[int, str]]) -> tuple[EndpointRange, ...]:
    # Neighbours whose ids run on join one range; a gap begins a new one, so that
    # nothing but our endpoints is ever translated by us.
    ranges: list[EndpointRange] = []
    for rid, iommu_bdf in sorted(set(ids)):
        last = ranges[-1] if ranges else None
        if last and (last.bdf_end + 1, last.iommu_bdf) == (rid, iommu_bdf):
            start = last.bdf_start
            ranges[-1] = EndpointRange(0, start, rid, start, iommu_bdf)
        else:
            ranges.append(EndpointRange(0, rid, rid, rid, iommu_bdf))
    return tuple(ranges)


def _iommus(count: int) -> tuple[Function, ...]:
    return tuple(
        Function(f"viommu{i}", _bdf(0, slot), f"viommu{i}.sock")
        for i, slot in enumerate(_IOMMU_SLOTS[:count])
    )


def build_topology(scenario: Scenario) -> Topology:
    """Place a scenario's functions.

    The virtio-iommus are on bus 0, because VIOT must name their bus number before
    the guest's OS has numbered any other (Linux drivers/acpi/viot.c).

    :param scenario: The scenario.
    :return: The topology; the endpoint id of a function is its requester id, so
        that our virtio-iommu and QEMU's call it by the same number.
    :raise UsageError: When the endpoints do not fit, or cannot be where or behind
        what they are asked to be.
    """
    nr_iommus = _check(scenario)
    bridges = _bridges(scenario.endpoints)
    endpoints = _endpoints(scenario.endpoints, bridges)
    if scenario.iommu is Iommu.QEMU:
        return Topology(
            iommus=(),
            endpoints=endpoints,
            qemu_iommu_bdf=_bdf(0, _IOMMU_SLOTS[0]),
            nic_bdf=_bdf(0, _NIC_SLOT),
            bridges=bridges,
        )
    topology = Topology(
        iommus=_iommus(nr_iommus),
        endpoints=endpoints,
        qemu_iommu_bdf=None,
        nic_bdf=_bdf(0, _NIC_SLOT),
        bridges=bridges,
    )
    ids = [(rid, ep.spec.iommu) for ep in endpoints for rid in requester_ids(ep)]
    ids += [(rid, index) for _, rid, index in id_only_endpoints(topology)]
    ranges = _ranges((rid, topology.iommus[index].bdf) for rid, index in ids)
    return replace(topology, ranges=ranges)
