# SPDX-License-Identifier: GPL-2.0-or-later
"""The specification as a small model of a device, with every rule breakable.

:class:`Model` is a :class:`viotest.conformance.lab.Device`; ``defects`` names what
can be broken in it.
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from viotest.conformance import wire
from viotest.conformance.errors import TargetLostError
from viotest.conformance.lab import POISON, Answer, Event, Region
from viotest.conformance.wire import Feature, Reason, Status, Type

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from viotest.conformance.lab import Shape

_GRANULE = 4096
_ALL = 2**64 - 1
_PROBE_SIZE = 512


@dataclass
class _Mapping:
    start: int
    end: int
    phys: int
    flags: int


@dataclass
class _Domain:
    bypass: bool
    mappings: list[_Mapping] = field(default_factory=list)


class _RefusedError(Exception):
    def __init__(self, reason: Reason) -> None:
        super().__init__(reason)
        self.reason = reason


class Model:
    """One device.

    :param shape: What it was configured to be.
    :param defect: One of ``DEFECTS``; empty: none.
    """

    def __init__(self, shape: Shape, defect: str = "") -> None:
        self._shape = shape
        self._defect = defect
        self.endpoints = tuple(0x80 + 8 * i for i in range(len(shape.regions)))
        self.regions: Mapping[int, tuple[Region, ...]] | None = dict(
            zip(self.endpoints, shape.regions, strict=True)
        )
        self.attached: dict[int, int] = {}
        self._memory = mmap.mmap(-1, 256 << 20)
        self._config: dict[int, int] = {}
        self._bypass = shape.bypass ^ self._has("wrong-initial-bypass")
        self._domains: dict[int, _Domain] = {}
        self._where: dict[int, int] = {}
        self._pending: tuple[int, int] | None = None
        self._features = Feature(0)
        self._needs_reset = False
        self._buffers: list[int] = []
        self._returned: list[Event] = []
        self._muted = False

    def _has(self, defect: str) -> bool:
        return self._defect == defect

    # -- transport

    def offered(self) -> Feature:
        offered = self._shape.features | Feature.VERSION_1 | Feature.INDIRECT_DESC
        if self._has("no-map-unmap"):
            offered &= ~Feature.MAP_UNMAP
        if self._has("offers-both"):
            offered |= Feature.BYPASS
        return offered

    def reset(self) -> None:
        self._features = Feature(0)
        self._needs_reset = self._muted = False
        self._buffers.clear()
        self._returned.clear()
        if self._has("reset-restores-bypass"):
            self._bypass = self._shape.bypass
        if not self._has("reset-keeps-domains"):
            self._domains.clear()
            self._where.clear()

    def negotiate(self, features: Feature) -> bool:
        self._features = features
        return True

    def status(self) -> int:
        return 0x40 if self._needs_reset else 0x0F

    def system_reset(self) -> None:
        self.reset()
        if not self._has("system-reset-keeps-bypass"):
            self._bypass = self._shape.bypass

    def read_config(self, offset: int, size: int) -> int:
        return int.from_bytes(self._image()[offset : offset + size], "little")

    def _image(self) -> bytes:
        image = bytearray(
            struct.pack(
                "<QQQIIIB3x",
                0 if self._has("no-page-size") else _ALL & -_GRANULE,
                *self._shape.input_range,
                *self._shape.domain_range,
                _PROBE_SIZE if self.offered() & Feature.PROBE else 0,
                self._bypass,
            )
        )
        for offset, value in self._config.items():
            image[offset : offset + 4] = value.to_bytes(4, "little")
        return bytes(image)

    def write_config(self, offset: int, size: int, value: int) -> None:
        if offset < 36 and self._has("config-writable"):
            self._config[offset] = value
        if offset != 36 or not self._features & Feature.BYPASS_CONFIG:
            return
        if value in (0, 1) or self._has("bypass-takes-anything"):
            self._bypass = value & 0xFF

    # -- requests

    def submit(
        self,
        readable: Sequence[bytes],
        writable: Sequence[int],
        *,
        indirect: bool = False,
    ) -> Answer:
        if self._has("one-buffer") and len(readable) > 1:
            return Answer(0, bytes([POISON]) * sum(writable))
        if self._has("no-indirect") and indirect:
            return Answer(None, bytes([POISON]) * sum(writable), needs_reset=True)
        if self._pending is not None:
            self._move(*self._pending)
            self._pending = None
        buffer = bytearray([POISON]) * sum(writable)
        used = self._answer(b"".join(readable), buffer)
        return Answer(used, bytes(buffer), self._needs_reset)

    def _answer(self, data: bytes, buffer: bytearray) -> int | None:
        kind = data[0] if data else 0
        if not self._knows(kind):
            if not self._has("unknown-unsupp") or len(buffer) < wire.TAIL_SIZE:
                return 0
            buffer[:4] = bytes([Status.UNSUPP, 0, 0, 0])
            return 4
        short = len(data) < wire.READABLE_SIZE[Type(kind)]
        if len(buffer) < wire.TAIL_SIZE and self._has("no-tail-resets"):
            self._needs_reset = True
            return None
        if len(buffer) < wire.TAIL_SIZE or (short and not self._has("short-answered")):
            return 0
        status = Status.INVAL if short else self._execute(Type(kind), data, buffer)
        buffer[-4] = status
        if not self._has("tail-garbage"):
            buffer[-3:] = bytes(3)
        return len(buffer) - self._has("short-used")

    def _knows(self, kind: int) -> bool:
        if kind == Type.PROBE:
            offered = bool(self.offered() & Feature.PROBE)
            return offered or self._has("probe-unoffered")
        return kind in (Type.ATTACH, Type.DETACH, Type.MAP, Type.UNMAP)

    def _execute(self, kind: Type, data: bytes, buffer: bytearray) -> Status:
        if any(data[1:4]) and self._has("head-reserved"):
            return Status.INVAL
        match kind:
            case Type.ATTACH:
                return self._attach(
                    *struct.unpack_from("<III", data, 4), rest=data[16:]
                )
            case Type.DETACH:
                return self._detach(*struct.unpack_from("<II", data, 4), rest=data[12:])
            case Type.MAP:
                return self._map(*struct.unpack_from("<IQQQI", data, 4))
            case Type.UNMAP:
                return self._unmap(*struct.unpack_from("<IQQ", data, 4), rest=data[24:])
        return self._probe(struct.unpack_from("<I", data, 4)[0], data[8:], buffer)

    def _attach(self, domain: int, endpoint: int, flags: int, *, rest: bytes) -> Status:
        if any(rest) and not self._has("attach-reserved"):
            return Status.INVAL
        known = wire.ATTACH_F_BYPASS
        if not self.offered() & Feature.BYPASS_CONFIG:
            known *= self._has("bypass-flag-unoffered")
        if flags & ~known and not self._has("attach-flags"):
            return Status.INVAL
        if not self._domain_in_range(domain):
            return Status.RANGE
        if endpoint not in self.endpoints:
            return Status.OK if self._has("any-endpoint") else Status.NOENT
        bypass = bool(flags & wire.ATTACH_F_BYPASS)
        there = self._domains.get(domain)
        if self._has("detach-before-check"):
            self._leave(endpoint)
        if there and there.bypass != bypass and not self._has("contradiction-accepted"):
            return Status.INVAL
        if there and self._conflicts(there, endpoint):
            return Status.UNSUPP
        return self._join(domain, endpoint, bypass=bypass)

    def _join(self, domain: int, endpoint: int, *, bypass: bool) -> Status:
        if self._has("second-unattached") and domain in self._domains:
            return Status.OK
        if self._has("attach-stays") and endpoint in self._where:
            self._domains.setdefault(domain, _Domain(bypass))
            return Status.OK
        self._domains.setdefault(domain, _Domain(bypass))
        if self._has("late-attach") and endpoint in self._where:
            self._pending = (domain, endpoint)
        else:
            self._move(domain, endpoint)
        return Status.OK

    def _move(self, domain: int, endpoint: int) -> None:
        if self._where.get(endpoint) != domain:
            self._leave(endpoint)
            self._where[endpoint] = domain

    def _leave(self, endpoint: int) -> None:
        domain = self._where.pop(endpoint, None)
        alive = domain in self._where.values() or self._has("domain-survives")
        if domain is not None and not alive:
            del self._domains[domain]

    def _domain_in_range(self, domain: int) -> bool:
        if self._has("domain-16-bit"):
            return domain < 2**24
        first, last = self._shape.domain_range
        ranged = self._features & Feature.DOMAIN_RANGE
        ignored = self._has("domain-range-ignored")
        return not ranged or ignored or first <= domain <= last

    def _conflicts(self, domain: _Domain, endpoint: int) -> bool:
        if self._has("region-after-mapping"):
            return False
        return any(
            m.start <= r.end and m.end >= r.start
            for m in domain.mappings
            for r in self._regions(endpoint)
        )

    def _detach(self, domain: int, endpoint: int, *, rest: bytes) -> Status:
        if any(rest) and self._has("detach-reserved"):
            return Status.INVAL
        if endpoint not in self.endpoints:
            return Status.INVAL if self._has("detach-any-endpoint") else Status.NOENT
        where = self._where.get(endpoint)
        if where != domain and not (self._has("detach-any-domain") and where):
            return Status.INVAL
        if not self._has("ignore-detach"):
            self._leave(endpoint)
        return Status.OK

    def _map(self, domain: int, start: int, end: int, phys: int, flags: int) -> Status:
        status = self._check_map(domain, start, end, phys, flags)
        if status is not None:
            return status
        if self._has("whole-span-wraps") and end == _ALL and not start:
            end = 0
        mapping = _Mapping(start, end, phys, flags)
        self._domains.setdefault(domain, _Domain(bypass=False)).mappings.append(mapping)
        return Status.OK

    # None if there is nothing to say against it.
    def _check_map(
        self, domain: int, start: int, end: int, phys: int, flags: int
    ) -> Status | None:
        there = self._domains.get(domain)
        if not there:
            return None if self._has("map-unknown-domain") else Status.NOENT
        if there.bypass:
            return None if self._has("map-bypass-domain") else Status.INVAL
        if not self._flags_fine(flags):
            return Status.INVAL
        if end <= start and not self._has("inverted-accepted"):
            return Status.INVAL
        unaligned = (start | end + 1 | phys) % _GRANULE
        if unaligned and not self._has("map-unaligned"):
            return Status.RANGE
        if self._has("one-page-size") and end + 1 - start != _GRANULE:
            return Status.RANGE
        if not self._address_in_range(start, end):
            return Status.RANGE
        gap = _GRANULE if self._has("map-adjacent-refused") else 0
        taken = [(m.start, m.end) for m in there.mappings]
        if self._has("map-overlap"):
            taken = []
        if not self._has("map-over-region"):
            inside = [e for e, d in self._where.items() if d == domain]
            taken += [(r.start, r.end) for e in inside for r in self._regions(e)]
        if any(start <= last + gap and end >= first - gap for first, last in taken):
            return Status.INVAL
        return None

    def _flags_fine(self, flags: int) -> bool:
        known = wire.MAP_RW
        if self._features & Feature.MMIO or self._has("mmio-unnegotiated"):
            known |= wire.MAP_F_MMIO
        if self._has("write-only-refused") and flags == wire.MAP_F_WRITE:
            return False
        return not flags & ~known or self._has("map-flags")

    def _address_in_range(self, start: int, end: int) -> bool:
        if self._has("address-48-bit"):
            return end < 2**48
        first, last = self._shape.input_range
        ranged = self._features & Feature.INPUT_RANGE
        ignored = self._has("input-range-ignored")
        return not ranged or ignored or (first <= start and end <= last)

    def _unmap(self, domain: int, start: int, end: int, *, rest: bytes) -> Status:
        if any(rest):
            lies = self._has("unmap-reserved-lies")
            return Status.OK if lies else Status.INVAL
        there = self._domains.get(domain)
        if not there:
            return Status.OK if self._has("unmap-unknown-domain") else Status.NOENT
        if there.bypass:
            return Status.OK if self._has("unmap-bypass-domain") else Status.INVAL
        covered = [m for m in there.mappings if start <= m.start and m.end <= end]
        touched = [m for m in there.mappings if start <= m.end and m.start <= end]
        size = sum(m.end - m.start + 1 for m in covered)
        if self._has("unmap-holes-refused") and size != end - start + 1:
            return Status.RANGE
        partial = len(touched) != len(covered)
        if partial and not self._has("unmap-not-atomic"):
            return Status.RANGE
        if self._has("unmap-exact-only"):
            covered = [m for m in covered if (m.start, m.end) == (start, end)]
        there.mappings = [m for m in there.mappings if m not in covered]
        return Status.RANGE if partial else Status.OK

    def _probe(self, endpoint: int, rest: bytes, buffer: bytearray) -> Status:
        if any(rest) and self._has("probe-reserved"):
            return Status.INVAL
        room = len(buffer) - wire.TAIL_SIZE
        if room < _PROBE_SIZE and not self._has("probe-small-buffer"):
            return Status.INVAL
        if not self._has("property-garbage"):
            buffer[:-4] = bytes(room)
        if endpoint not in self.endpoints:
            return Status.OK if self._has("probe-any-endpoint") else Status.NOENT
        stride = 32 if self._has("padded-properties") else 24
        word = 0x8001 if self._has("type-reserved-bits") else 1
        length = 24 if self._has("length-with-head") else 20
        mark = self._has("region-reserved")
        told = [] if self._has("empty-probe") else self._regions(endpoint)
        for i, region in enumerate(told):
            entry = struct.pack(
                "<HHBBHQQ",
                *(word, length, region.subtype, mark, 0, region.start, region.end),
            )
            at = i * stride
            buffer[at : at + min(24, max(0, room - at))] = entry[: max(0, room - at)]
        return Status.OK

    def _regions(self, endpoint: int) -> list[Region]:
        regions = list(self._shape.regions[self.endpoints.index(endpoint)])
        if regions and self._has("two-msi"):
            regions.append(Region(wire.RESV_MEM_MSI, 0xFED00000, 0xFEDFFFFF))
        if regions and self._has("regions-overlap"):
            first = regions[0]
            regions.append(Region(wire.RESV_MEM_RESERVED, first.start, first.end))
        return regions

    # -- endpoints

    def _translate(self, endpoint: int, iova: int, *, write: bool) -> int | None:
        # None: an interrupt, which goes nowhere here.
        for region in self._regions(endpoint):
            inside = region.start <= iova <= region.end
            if inside and not self._has("region-after-mapping"):
                if region.subtype == wire.RESV_MEM_MSI and write:
                    return None
                raise _RefusedError(Reason.UNKNOWN)
        domain = self._where.get(endpoint)
        if domain is None:
            if not self._identity():
                raise _RefusedError(Reason.DOMAIN)
            return iova
        if self._domains[domain].bypass and not self._has("bypass-domain-refuses"):
            return iova
        wanted = wire.MAP_F_WRITE if write else wire.MAP_F_READ
        for m in self._domains[domain].mappings:
            if m.start <= iova <= m.end and (
                m.flags & wanted or self._has("ignore-permissions")
            ):
                return m.phys + iova - m.start
        raise _RefusedError(Reason.MAPPING)

    def _identity(self) -> bool:
        offered = self.offered() & Feature.BYPASS_CONFIG
        if self._has("bypass-if-accepted"):
            offered &= self._features
        old = self._features & Feature.BYPASS and not self._has("old-bypass-ignored")
        return (
            bool(offered and self._bypass) or bool(old) or self._has("open-unattached")
        )

    def dma_read(self, endpoint: int, iova: int) -> int | None:
        try:
            phys = self._translate(endpoint, iova, write=False)
        except _RefusedError as refused:
            self._fault(refused.reason, endpoint, iova, wire.FAULT_READ)
            return None
        assert phys is not None
        return int.from_bytes(self.memory_read(phys, 8), "little")

    def dma_write(self, endpoint: int, iova: int, value: int, size: int = 8) -> bool:
        try:
            phys = self._translate(endpoint, iova, write=True)
        except _RefusedError as refused:
            self._fault(refused.reason, endpoint, iova, wire.FAULT_WRITE)
            return False
        if phys is not None:
            self.memory_write(phys, value.to_bytes(8, "little")[:size])
        return True

    def dma_start(self, endpoint: int, iova: int, size: int, value: int) -> Half:
        return Half(self, endpoint, iova, size, value)

    def memory_read(self, address: int, size: int) -> bytes:
        return self._memory[address : address + size]

    def memory_write(self, address: int, data: bytes) -> None:
        if address + len(data) <= len(self._memory):
            self._memory[address : address + len(data)] = data

    def memory_clear(self, address: int, size: int) -> None:
        self.memory_write(address, bytes(size))

    # -- events

    def post_events(self, *sizes: int) -> None:
        self._buffers += sizes

    def take_events(self, *, wait: bool = True) -> list[Event]:
        events, self._returned = self._returned, []
        return events

    def _fault(self, reason: Reason, endpoint: int, iova: int, access: int) -> None:
        if not self._buffers:
            self._needs_reset |= self._has("no-buffer-resets")
            self._muted |= self._has("no-buffer-mutes")
            return
        if self._muted or self._has("no-events"):
            return
        flags = wire.FAULT_ADDRESS | access
        if self._has("no-write-flag"):
            flags = wire.FAULT_ADDRESS
        record = struct.pack(
            "<BBHIIIQ",
            Reason.UNKNOWN if self._has("reason-unknown") else reason,
            self._has("fault-reserved"),
            0,
            flags | (0x200 if self._has("fault-flags") else 0),
            endpoint + (8 if self._has("fault-endpoint") else 0),
            0,
            iova + (_GRANULE if self._has("fault-address") else 0),
        )
        self._return(record)

    def _return(self, record: bytes) -> None:
        spread = self._has("event-spread")
        while record and self._buffers:
            size = self._buffers.pop(0)
            used = min(size, len(record)) if size >= len(record) or spread else 0
            data = record[:used].ljust(size, bytes([POISON]))
            self._returned.append(Event(size, used, data))
            record = record[used:] if spread else b""


class Half:
    """A transfer of which one half is written at once, the other at the end."""

    def __init__(
        self, model: Model, endpoint: int, iova: int, size: int, value: int
    ) -> None:
        self._model = model
        self._where = (endpoint, iova + size // 2)
        self._half = value.to_bytes(8, "little") * (size // 16)
        phys = model._translate(endpoint, iova, write=True)
        assert phys is not None
        self._phys = phys
        model.memory_write(phys, self._half)

    def wait(self) -> bool:
        if not self._model._has("late-dma"):
            try:
                self._model._translate(*self._where, write=True)
            except _RefusedError:
                return False
        self._model.memory_write(self._phys + len(self._half), self._half)
        return True


class ModelLab:
    """Gives out models, all with the same defect.

    :param defect: One of ``DEFECTS``; ``lost``: the target is gone at once.
    """

    def __init__(self, defect: str = "") -> None:
        self._defect = defect
        self._models: dict[Shape, Model] = {}
        #: How often every machine was given up.
        self.discarded = 0

    def device(self, shape: Shape) -> Model:
        if self._defect == "lost":
            raise TargetLostError("the connection is closed")
        if shape not in self._models:
            self._models[shape] = Model(shape, self._defect)
        return self._models[shape]

    def fresh(self, shape: Shape) -> Model:
        self._models.pop(shape, None)
        return self.device(shape)

    def discard(self) -> None:
        self._models.clear()
        self.discarded += 1

    def post_mortem(self) -> str:
        return "QEMU was killed by SIGSEGV" if self._defect == "lost" else ""
