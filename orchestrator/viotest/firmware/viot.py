# SPDX-License-Identifier: GPL-2.0-or-later
"""The ACPI Virtual I/O Translation table, from a topology: a pure function.

Format: ACPI 6.5, 5.2.29 (VIOT). What Linux makes of it: drivers/acpi/viot.c.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from viotest.scenario.topology import parse_bdf

if TYPE_CHECKING:
    from viotest.scenario.model import EndpointRange, Topology

_HEADER = struct.Struct("<4sIBB6s8sI4sIHH8x")
_PCI_RANGE = struct.Struct("<BBHIHHHHH6x")
_VIRTIO_PCI = struct.Struct("<BBHHH8x")

_NODE_PCI_RANGE = 1
_NODE_VIRTIO_PCI = 3
_CHECKSUM_OFFSET = 9


def _iommu_nodes(bdfs: list[str]) -> list[bytes]:
    nodes = []
    for bdf in bdfs:
        segment, rid = parse_bdf(bdf)
        nodes.append(
            _VIRTIO_PCI.pack(_NODE_VIRTIO_PCI, 0, _VIRTIO_PCI.size, segment, rid)
        )
    return nodes


def _range_node(reach: EndpointRange, output_node: int) -> bytes:
    return _PCI_RANGE.pack(
        _NODE_PCI_RANGE,
        0,
        _PCI_RANGE.size,
        reach.endpoint_start,
        reach.segment,
        reach.segment,
        reach.bdf_start,
        reach.bdf_end,
        output_node,
    )


def viot_table(topology: Topology) -> bytes:
    """Build the VIOT of a topology.

    :param topology: Its ``iommus`` become nodes of type 3, its ``ranges`` nodes of
        type 1, each pointing at its virtio-iommu.
    :return: The table with a right length and checksum: 48 bytes of header, 16 per
        virtio-iommu, 24 per range.
    :raise ValueError: When a range names a virtio-iommu that is not in the topology,
        or a range translates a virtio-iommu itself.
    """
    bdfs = [function.bdf for function in topology.iommus]
    offsets = {bdf: _HEADER.size + i * _VIRTIO_PCI.size for i, bdf in enumerate(bdfs)}
    for reach in topology.ranges:
        if reach.iommu_bdf not in offsets:
            raise ValueError(
                f"a range names {reach.iommu_bdf}, no virtio-iommu of ours"
            )
        for segment, rid in map(parse_bdf, bdfs):
            inside = reach.bdf_start <= rid <= reach.bdf_end
            if segment == reach.segment and inside:
                raise ValueError("a range must not hold a virtio-iommu")
    nodes = _iommu_nodes(bdfs)
    nodes += [_range_node(reach, offsets[reach.iommu_bdf]) for reach in topology.ranges]
    body = b"".join(nodes)
    table = bytearray(
        _HEADER.pack(
            b"VIOT",
            _HEADER.size + len(body),
            0,
            0,
            b"VIOTST",
            b"VIOTEST ",
            1,
            b"VIOT",
            1,
            len(nodes),
            _HEADER.size,
        )
        + body
    )
    table[_CHECKSUM_OFFSET] = -sum(table) & 0xFF
    return bytes(table)
