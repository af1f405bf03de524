# SPDX-License-Identifier: GPL-2.0-or-later
"""The bytes of virtio-iommu: requests, configuration, properties, faults.

Pure. Names and values are those of the UAPI header ``linux/virtio_iommu.h``.
"""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass


class Feature(enum.IntFlag):
    """Feature bits; those of the ring and of virtio itself included."""

    INPUT_RANGE = 1 << 0
    DOMAIN_RANGE = 1 << 1
    MAP_UNMAP = 1 << 2
    #: The old one: unattached endpoints bypass once it is negotiated.
    BYPASS = 1 << 3
    PROBE = 1 << 4
    MMIO = 1 << 5
    BYPASS_CONFIG = 1 << 6
    INDIRECT_DESC = 1 << 28
    EVENT_IDX = 1 << 29
    VERSION_1 = 1 << 32


class Type(enum.IntEnum):
    """Request types."""

    ATTACH = 1
    DETACH = 2
    MAP = 3
    UNMAP = 4
    PROBE = 5


class Status(enum.IntEnum):
    """What the tail of a request answers."""

    OK = 0
    IOERR = 1
    UNSUPP = 2
    DEVERR = 3
    INVAL = 4
    RANGE = 5
    NOENT = 6
    FAULT = 7
    NOMEM = 8


ATTACH_F_BYPASS = 1
MAP_F_READ = 1
MAP_F_WRITE = 2
MAP_F_MMIO = 4
MAP_RW = MAP_F_READ | MAP_F_WRITE

#: Bytes of the tail: status, three reserved.
TAIL_SIZE = 4

#: Readable bytes of each request.
READABLE_SIZE = {
    Type.ATTACH: 20,
    Type.DETACH: 20,
    Type.MAP: 36,
    Type.UNMAP: 28,
    Type.PROBE: 72,
}

PROPERTY_RESV_MEM = 1
PROPERTY_TYPE_MASK = 0xFFF
#: Of a RESV_MEM property, without its head of four bytes.
RESV_MEM_LENGTH = 20
RESV_MEM_RESERVED = 0
RESV_MEM_MSI = 1

FAULT_SIZE = 24
FAULT_READ = 1
FAULT_WRITE = 2
FAULT_ADDRESS = 0x100


class Reason(enum.IntEnum):
    """Why an access was refused, in a fault record."""

    UNKNOWN = 0
    DOMAIN = 1
    MAPPING = 2


#: Offset and size of each field of the configuration space.
CONFIG = {
    "page_size_mask": (0, 8),
    "input_start": (8, 8),
    "input_end": (16, 8),
    "domain_start": (24, 4),
    "domain_end": (28, 4),
    "probe_size": (32, 4),
    "bypass": (36, 1),
}
CONFIG_SIZE = 40

_NO_RESERVED = bytes(3)


def head(kind: int, reserved: bytes = _NO_RESERVED) -> bytes:
    """Return the four bytes that every request begins with."""
    return bytes([kind]) + reserved


def attach(domain: int, endpoint: int, flags: int, reserved: bytes) -> bytes:
    """Return the body of an ATTACH request."""
    return struct.pack("<III", domain, endpoint, flags) + reserved


def detach(domain: int, endpoint: int, reserved: bytes) -> bytes:
    """Return the body of a DETACH request."""
    return struct.pack("<II", domain, endpoint) + reserved


def map_(domain: int, start: int, end: int, phys: int, flags: int) -> bytes:
    """Return the body of a MAP request; ``end`` is inclusive."""
    return struct.pack("<IQQQI", domain, start, end, phys, flags)


def unmap(domain: int, start: int, end: int, reserved: bytes) -> bytes:
    """Return the body of an UNMAP request; ``end`` is inclusive."""
    return struct.pack("<IQQ", domain, start, end) + reserved


def probe(endpoint: int, reserved: bytes) -> bytes:
    """Return the body of a PROBE request."""
    return struct.pack("<I", endpoint) + reserved


@dataclass(frozen=True)
class Property:
    """A property as PROBE wrote it."""

    #: Where its head begins.
    offset: int
    #: The 16-bit word that holds the type, reserved bits included.
    word: int
    length: int
    #: ``length`` bytes, or fewer at the end of the buffer.
    body: bytes

    @property
    def type(self) -> int:
        """The type, 12 bits."""
        return self.word & PROPERTY_TYPE_MASK


@dataclass(frozen=True)
class ResvMem:
    """A reserved region; ``end`` is inclusive."""

    subtype: int
    reserved: bytes
    start: int
    end: int


def parse_properties(data: bytes) -> list[Property]:
    """Walk the properties of a PROBE reply up to the first of type 0."""
    found = []
    offset = 0
    while offset + 4 <= len(data):
        word, length = struct.unpack_from("<HH", data, offset)
        if not word & PROPERTY_TYPE_MASK:
            break
        body = data[offset + 4 : offset + 4 + length]
        found.append(Property(offset, word, length, body))
        offset += 4 + length
    return found


def parse_resv_mem(body: bytes) -> ResvMem | None:
    """Take a RESV_MEM property apart; None when it is too short for one."""
    if len(body) < RESV_MEM_LENGTH:
        return None
    start, end = struct.unpack_from("<QQ", body, 4)
    return ResvMem(body[0], body[1:4], start, end)


@dataclass(frozen=True)
class Fault:
    """A record of the event queue."""

    reason: int
    reserved: bytes
    flags: int
    endpoint: int
    reserved1: int
    address: int


def parse_fault(data: bytes) -> Fault | None:
    """Take a fault record apart; None when it is too short."""
    if len(data) < FAULT_SIZE:
        return None
    flags, endpoint, reserved1, address = struct.unpack_from("<IIIQ", data, 4)
    return Fault(data[0], data[1:4], flags, endpoint, reserved1, address)
