# SPDX-License-Identifier: GPL-2.0-or-later
"""A trace: a :class:`Header`, then items in the order in which the device saw them."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from viotest.conformance import wire
from viotest.conformance.wire import Status, Type

if TYPE_CHECKING:
    from collections.abc import Mapping

    from viotest.conformance.lab import Region


class Reset(enum.StrEnum):
    """Ways to reset the device; they differ in what becomes of ``bypass``."""

    #: The whole system: as it was switched on.
    SYSTEM = "system"
    #: The client is gone, and the next one is another system.
    CLIENT_GONE = "client-gone"
    #: Function level reset.
    FLR = "flr"
    #: The driver wrote 0 to the device status.
    DRIVER = "driver"

    @property
    def full(self) -> bool:
        """Whether nothing of what was before is left."""
        return self in (Reset.SYSTEM, Reset.CLIENT_GONE)


@dataclass(frozen=True)
class Endpoint:
    """An endpoint behind the virtio-iommu."""

    id: int
    #: What PROBE tells of it.
    regions: tuple[Region, ...] = ()


@dataclass(frozen=True)
class Header:
    """What the device was when the trace begins."""

    #: Its configuration, by the keys of an ``[[iommu]]`` table of the device's own
    #: configuration file; what is left out is the device's default.
    iommu: Mapping[str, int] = field(default_factory=dict)
    endpoints: tuple[Endpoint, ...] = ()
    #: Deliberate defects that it had.
    mutants: tuple[str, ...] = ()
    #: Records of its log that were overwritten before the trace begins.
    lost: int = 0
    comment: str = ""


@dataclass(frozen=True)
class Outcome:
    """What became of a request."""

    #: None: no status was written.
    status: int | None
    #: None: the buffers were not returned.
    used: int | None


@dataclass(frozen=True)
class Request:
    """A request, as the bytes that the device saw."""

    #: What the driver made readable; at most :data:`MAX_BYTES`, the rest is zero.
    data: bytes
    #: How many bytes it made readable.
    readable: int
    #: How many bytes it made writable, the tail included.
    writable: int
    outcome: Outcome
    #: It was on the ring already when the one before it was taken.
    together: bool = False
    #: Nanoseconds since the trace began.
    ns: int = 0


@dataclass(frozen=True)
class Opaque:
    """A request that cannot be repeated: its buffers were not in memory."""

    ns: int = 0


@dataclass(frozen=True)
class Restart:
    """The device was reset."""

    kind: Reset
    ns: int = 0


@dataclass(frozen=True)
class Negotiation:
    """The driver accepted features, and went on to use the device."""

    features: int
    ns: int = 0


@dataclass(frozen=True)
class ConfigWrite:
    """The driver wrote to the device configuration."""

    offset: int
    size: int
    value: int
    ns: int = 0


Item = Request | Opaque | Restart | Negotiation | ConfigWrite

#: Nothing behind this many readable bytes means anything in any request.
MAX_BYTES = 72
#: Longer buffers are cut to these: no device looks at more, or answers it.
MAX_READABLE = 4096
MAX_WRITABLE = 1 << 18


@dataclass(frozen=True)
class Fields:
    """What a request asks for; only what its type has is meant."""

    kind: Type
    domain: int = 0
    endpoint: int = 0
    flags: int = 0
    start: int = 0
    #: Inclusive.
    end: int = 0
    phys: int = 0

    def encode(self) -> bytes:
        """Return the request's readable bytes, everything reserved zero."""
        match self.kind:
            case Type.ATTACH:
                body = wire.attach(self.domain, self.endpoint, self.flags, bytes(4))
            case Type.DETACH:
                body = wire.detach(self.domain, self.endpoint, bytes(8))
            case Type.MAP:
                range_ = (self.start, self.end)
                body = wire.map_(self.domain, *range_, self.phys, self.flags)
            case Type.UNMAP:
                body = wire.unmap(self.domain, self.start, self.end, bytes(4))
            case Type.PROBE:
                body = wire.probe(self.endpoint, bytes(64))
        return wire.head(self.kind) + body


def fields_of(data: bytes) -> Fields | None:
    """Take a request apart; None when it is too short, or of an unknown type."""
    try:
        kind = Type(data[0]) if data else None
    except ValueError:
        return None
    if kind is None or len(data) < wire.READABLE_SIZE[kind]:
        return None

    def number(offset: int, size: int) -> int:
        return int.from_bytes(data[offset : offset + size], "little")

    match kind:
        case Type.ATTACH:
            return Fields(kind, number(4, 4), number(8, 4), number(12, 4))
        case Type.DETACH:
            return Fields(kind, number(4, 4), number(8, 4))
        case Type.MAP:
            range_ = {"start": number(8, 8), "end": number(16, 8)}
            phys, flags = number(24, 8), number(32, 4)
            return Fields(kind, number(4, 4), flags=flags, phys=phys, **range_)
        case Type.UNMAP:
            return Fields(kind, number(4, 4), start=number(8, 8), end=number(16, 8))
    return Fields(kind, endpoint=number(4, 4))


def plain_fields(request: Request) -> Fields | None:
    """Return a request's fields; None unless they tell all there is to it."""
    fields = fields_of(request.data)
    if fields is None or fields.encode() != request.data:
        return None
    usual = fields.kind is Type.PROBE or request.writable == wire.TAIL_SIZE
    if request.readable != len(request.data) or not usual:
        return None
    return fields if request.writable >= wire.TAIL_SIZE else None


def with_endpoint(data: bytes, endpoint: int) -> bytes:
    """Return a request's bytes with another endpoint id in them."""
    at = 4 if data[0] == Type.PROBE else 8
    return data[:at] + endpoint.to_bytes(4, "little") + data[at + 4 :]


def endpoint_of(data: bytes) -> int | None:
    """Return the endpoint that a request names; None when its type names none."""
    fields = fields_of(data)
    if fields is None or fields.kind in (Type.MAP, Type.UNMAP):
        return None
    return fields.endpoint


# -- in words

_MAP_FLAGS = ((1, "read"), (2, "write"), (4, "mmio"))


def status_words(status: int | None) -> str:
    """Return the name of a status, its number if it has none."""
    if status is None:
        return "no status"
    names = [member.name for member in Status if member == status]
    return names[0] if names else f"status {status:#x}"


def outcome_words(outcome: Outcome, writable: int) -> str:
    """Say what became of a request; the used length only if it is a strange one."""
    if outcome.used is None:
        return "not returned"
    words = status_words(outcome.status)
    return words if outcome.used == writable else f"{words}, used length {outcome.used}"


def request_words(request: Request) -> str:
    """Say what a request asks for."""
    fields = fields_of(request.data)
    if fields is None:
        kind = f"type {request.data[0]:#x}" if request.data else "empty"
        return f"request of {kind}, {_raw_words(request)}"
    words = fields_words(fields)
    return words if plain_fields(request) else f"{words}, {_raw_words(request)}"


def _raw_words(request: Request) -> str:
    lengths = f"{request.readable} bytes readable, {request.writable} writable"
    return f"{lengths}: {request.data.hex(' ', 4)}"


def fields_words(fields: Fields) -> str:
    """Say what a request of these fields asks for."""
    span = f"{fields.start:#x}-{fields.end:#x}"
    match fields.kind:
        case Type.ATTACH:
            flags = f", flags {fields.flags:#x}" if fields.flags else ""
            return f"ATTACH {fields.endpoint:#x} to domain {fields.domain}{flags}"
        case Type.DETACH:
            return f"DETACH {fields.endpoint:#x} from domain {fields.domain}"
        case Type.MAP:
            names = [name for bit, name in _MAP_FLAGS if fields.flags & bit]
            rest = fields.flags & ~7
            names += [f"{rest:#x}"] if rest else []
            flags = " ".join(names) or "no access"
            return f"MAP domain {fields.domain} {span} to {fields.phys:#x} ({flags})"
        case Type.UNMAP:
            return f"UNMAP domain {fields.domain} {span}"
    return f"PROBE {fields.endpoint:#x}"


def item_words(item: Item) -> str:
    """Say what an item is, its recorded outcome left out."""
    match item:
        case Request():
            return request_words(item)
        case Opaque():
            return "request whose buffers are not in memory"
        case Restart():
            return f"reset: {item.kind}"
        case Negotiation():
            return f"features accepted: {item.features:#x}"
        case ConfigWrite():
            where = f"{item.offset}..{item.offset + item.size - 1}"
            return f"configuration bytes {where} written: {item.value:#x}"
