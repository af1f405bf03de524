# SPDX-License-Identifier: GPL-2.0-or-later
"""Where a scenario's functions sit on the guest's PCI buses: a pure function."""

from __future__ import annotations

import re

from viotest.errors import UsageError
from viotest.scenario.model import (
    EndpointFunction,
    EndpointRange,
    Function,
    Iommu,
    Scenario,
    Topology,
)

_BDF = re.compile(r"([0-9a-f]{4}):([0-9a-f]{2}):([01][0-9a-f])\.([0-7])")

# Slots of pcie.0. Slot 31 is q35's own (LPC, AHCI, SMBus), slot 0 the host bridge.
_IOMMU_SLOT = 1
_NIC_SLOT = 2
_FIRST_ENDPOINT_SLOT = 16

#: How many endpoints fit on the root bus.
MAX_ENDPOINTS = 31 - _FIRST_ENDPOINT_SLOT


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


def _slot_bdf(slot: int) -> str:
    return format_bdf(0, slot << 3)


def _ranges(
    endpoints: tuple[EndpointFunction, ...], iommu_bdf: str
) -> tuple[EndpointRange, ...]:
    # Neighbours whose ids run on join one range; a gap begins a new one, so that
    # nothing but our endpoints is ever translated by us.
    ranges: list[EndpointRange] = []
    for endpoint in endpoints:
        segment, rid = parse_bdf(endpoint.bdf)
        last = ranges[-1] if ranges else None
        if last and (segment, rid) == (last.segment, last.bdf_end + 1):
            ranges[-1] = EndpointRange(
                segment, last.bdf_start, rid, last.endpoint_start, iommu_bdf
            )
        else:
            ranges.append(
                EndpointRange(segment, rid, rid, endpoint.endpoint_id, iommu_bdf)
            )
    return tuple(ranges)


def build_topology(scenario: Scenario) -> Topology:
    """Place a scenario's functions.

    The virtio-iommu is on bus 0, because VIOT must name its bus number before the
    guest's OS has numbered any other (reference: Linux drivers/acpi/viot.c).

    :param scenario: The scenario.
    :return: The topology; the endpoint id of a function is its requester id, so
        that our virtio-iommu and QEMU's call it by the same number.
    :raise UsageError: When the endpoints do not fit on the root bus.
    """
    if not 1 <= scenario.endpoints <= MAX_ENDPOINTS:
        raise UsageError(f"{scenario.endpoints} endpoints: 1 to {MAX_ENDPOINTS} fit")
    iommu_bdf = _slot_bdf(_IOMMU_SLOT)
    endpoints = tuple(
        EndpointFunction(
            name=f"ep{i}",
            bdf=_slot_bdf(_FIRST_ENDPOINT_SLOT + i),
            socket=f"ep{i}.sock",
            endpoint_id=(_FIRST_ENDPOINT_SLOT + i) << 3,
        )
        for i in range(scenario.endpoints)
    )
    ours = scenario.iommu is Iommu.VIOTEST
    return Topology(
        iommus=(Function("viommu0", iommu_bdf, "viommu0.sock"),) if ours else (),
        endpoints=endpoints,
        qemu_iommu_bdf=None if ours else iommu_bdf,
        nic_bdf=_slot_bdf(_NIC_SLOT),
        ranges=_ranges(endpoints, iommu_bdf) if ours else (),
    )
