# SPDX-License-Identifier: GPL-2.0-or-later
"""A trace as what the core's benchmark replays: :func:`write_image`.

``device/core/bench/image.h`` has the form of the file.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from viotest.conformance import wire
from viotest.errors import UsageError
from viotest.trace.model import Negotiation, Request

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from viotest.trace.form import TraceFile
    from viotest.trace.model import Header, Item

_MAGIC = b"viotring"
_KEYS = (
    "features",
    "page_size_mask",
    "input_start",
    "input_end",
    "domain_start",
    "domain_end",
    "probe_size",
    "bypass",
    "max_mappings",
    "max_domains",
)
_HEAD = struct.Struct("<8s10Q2I")
_ENDPOINT = struct.Struct("<2I")
_REGION = struct.Struct("<3Q")
_ENTRY = struct.Struct("<4I")
_BEGIN = 2**32 - 1
_NO_STATUS = 0xFF
#: enum viommu_resv_subtype
_SUBTYPES = {wire.RESV_MEM_RESERVED: 0, wire.RESV_MEM_MSI: 1}


def write_image(trace: TraceFile, path: Path) -> None:
    """Write a trace as a flat image of its requests.

    Left out is what has no bearing on a status: writes to the configuration, and
    requests whose bytes nobody knows.

    :raise UsageError: When there is no request that could be replayed.
    :raise OSError: When the file cannot be written.
    """
    if not trace.contents.nr_requests:
        raise UsageError(
            f"{trace.path}: has no request that could be replayed",
            hint="record one of a guest that used its virtio-iommu",
        )
    with path.open("wb") as file:
        for part in image_parts(trace.header, trace.items()):
            file.write(part)


def image_parts(header: Header, items: Iterable[Item]) -> Iterator[bytes]:
    """Yield the image, piece by piece."""
    regions = [region for endpoint in header.endpoints for region in endpoint.regions]
    config = [header.iommu.get(key, 0) for key in _KEYS]
    yield _HEAD.pack(_MAGIC, *config, len(header.endpoints), len(regions))
    for endpoint in header.endpoints:
        yield _ENDPOINT.pack(endpoint.id, len(endpoint.regions))
    for region in regions:
        yield _REGION.pack(_SUBTYPES[region.subtype], region.start, region.end)
    for item in items:
        if isinstance(item, Negotiation):
            # What is before it, a reset, is part of it.
            low, high = item.features & 0xFFFFFFFF, item.features >> 32
            yield _ENTRY.pack(_BEGIN, low, high, 0)
        elif isinstance(item, Request):
            yield _request(item)


def _request(request: Request) -> bytes:
    status = request.outcome.status
    answer = _NO_STATUS if status is None else status
    length = len(request.data)
    head = _ENTRY.pack(request.readable, request.writable, answer, length)
    return head + request.data + bytes(-length % 8)
