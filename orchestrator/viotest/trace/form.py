# SPDX-License-Identifier: GPL-2.0-or-later
"""A trace as a file, one JSON object a line: :class:`TraceFile`, :func:`write_trace`.

docs/trace.md has the format. Files come from outside: every line is checked before
anything is made of it, and every size has a limit.
"""

from __future__ import annotations

import json
import os
import re
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from viotest.conformance import wire
from viotest.conformance.lab import Region
from viotest.conformance.wire import CONFIG_SIZE, Type
from viotest.errors import UsageError
from viotest.trace.model import (
    MAX_BYTES,
    MAX_READABLE,
    MAX_WRITABLE,
    ConfigWrite,
    Endpoint,
    Fields,
    Header,
    Item,
    Negotiation,
    Opaque,
    Outcome,
    Request,
    Reset,
    Restart,
    endpoint_of,
    plain_fields,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path
    from typing import BinaryIO

VERSION = 1
_MAGIC = "viotest-trace"

_MAX_LINE = 1 << 16
_MAX_ITEMS = 1 << 26
_SHOW_EVERY = 4096
_MAX_ENDPOINTS = 256
_MAX_REGIONS = 64
#: Endpoint ids that a trace may name, be they known or not.
_MAX_IDS = 4096
_U32 = 2**32 - 1
_U64 = 2**64 - 1

#: What an ``[[iommu]]`` table of the device may say, and the largest value.
IOMMU_KEYS = {
    "features": 0x7F,
    "page_size_mask": _U64,
    "input_start": _U64,
    "input_end": _U64,
    "domain_start": _U32,
    "domain_end": _U32,
    "probe_size": 1 << 16,
    "bypass": 1,
    "max_mappings": _U32,
    "max_domains": _U32,
}
_REGION_TYPES = {"reserved": wire.RESV_MEM_RESERVED, "msi": wire.RESV_MEM_MSI}
_HEX = re.compile(r"0x[0-9a-fA-F]{1,16}")

_REQUIRED = object()


class _RepeatedKeyError(ValueError):
    pass


# JSON leaves open which of two values counts.
def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    values = dict(pairs)
    if len(values) < len(pairs):
        keys = [key for key, _ in pairs]
        key = next(key for key in keys if keys.count(key) > 1)
        raise _RepeatedKeyError(f"{_short(key)} is there more than once")
    return values


_JSON = json.JSONDecoder(object_pairs_hook=_unique)


class _Line:
    """A JSON object whose keys are taken one by one; what is left is unknown."""

    def __init__(self, values: object) -> None:
        if not isinstance(values, dict):
            raise ValueError("is no JSON object")
        self._values = values

    def take(self, key: str, kind: type, default: object = _REQUIRED) -> object:
        if key not in self._values:
            if default is _REQUIRED:
                raise ValueError(f"{key!r} is missing")
            return default
        value = self._values.pop(key)
        # A bool is an int to Python; it is never one here.
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is int):
            raise ValueError(f"{key!r} is {_short(value)}")
        return value

    def number(self, key: str, limit: int, default: object = _REQUIRED) -> int:
        value = self.take(key, object, default)
        if isinstance(value, str) and _HEX.fullmatch(value):
            value = int(value, 16)
        if not isinstance(value, int) or isinstance(value, bool):
            raise ValueError(f"{key!r} is {_short(value)}, and no number")
        if not 0 <= value <= limit:
            raise ValueError(f"{key!r} is outside of 0..{limit:#x}")
        return value

    def optional(self, key: str, limit: int) -> int | None:
        """Take a number that may be null or absent."""
        if self._values.get(key, 0) is None:
            del self._values[key]
            return None
        return self.number(key, limit)

    def text(self, key: str, default: object = _REQUIRED) -> str:
        value = self.take(key, str, default)
        assert isinstance(value, str)
        return value

    def items(self, key: str, limit: int) -> list[object]:
        value = self.take(key, list, [])
        assert isinstance(value, list)
        if len(value) > limit:
            raise ValueError(f"{key!r} has more than {limit} entries")
        return value

    def has(self, key: str) -> bool:
        return key in self._values

    def done(self) -> None:
        for key in self._values:
            raise ValueError(f"{_short(key)} is no key here")


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


# -- the header


def parse_header(values: object) -> Header:
    """Check the first line of a trace.

    :param values: The line as JSON has it.
    :raise ValueError: When it is none; the text says why.
    """
    line = _Line(values)
    version = line.take(_MAGIC, object, 0)
    if version != VERSION or isinstance(version, bool):
        raise ValueError(f"is no trace of version {VERSION}")
    table = _Line(line.take("iommu", dict, {}))
    iommu = {k: table.number(k, m) for k, m in IOMMU_KEYS.items() if table.has(k)}
    table.done()
    entries = line.items("endpoints", _MAX_ENDPOINTS)
    endpoints = tuple(_endpoint(_Line(entry)) for entry in entries)
    if len({endpoint.id for endpoint in endpoints}) < len(endpoints):
        raise ValueError("two endpoints have the same id")
    mutants = line.items("mutants", 64)
    if not all(isinstance(m, str) and 0 < len(m) < 64 for m in mutants):
        raise ValueError("'mutants' are no names")
    lost = line.number("lost", _U64, 0)
    comment = line.text("comment", "")
    line.done()
    return Header(iommu, endpoints, tuple(map(str, mutants)), lost, comment)


def _endpoint(line: _Line) -> Endpoint:
    number = line.number("id", _U32)
    entries = line.items("resv_mem", _MAX_REGIONS)
    line.done()
    return Endpoint(number, tuple(_region(_Line(entry)) for entry in entries))


def _region(line: _Line) -> Region:
    kind = line.text("type")
    if kind not in _REGION_TYPES:
        raise ValueError(f"a region of type {_short(kind)}")
    start, end = line.number("start", _U64), line.number("end", _U64)
    line.done()
    if end < start:
        raise ValueError("a region ends before it starts")
    return Region(_REGION_TYPES[kind], start, end)


def header_json(header: Header) -> dict[str, object]:
    """Return what :func:`parse_header` reads."""
    names = {subtype: name for name, subtype in _REGION_TYPES.items()}
    endpoints = [
        {
            "id": endpoint.id,
            "resv_mem": [
                {"type": names[r.subtype], "start": hex(r.start), "end": hex(r.end)}
                for r in endpoint.regions
            ],
        }
        for endpoint in header.endpoints
    ]
    line: dict[str, object] = {_MAGIC: VERSION}
    line["iommu"] = {
        key: _shown(header.iommu[key]) for key in IOMMU_KEYS if key in header.iommu
    }
    line["endpoints"] = endpoints
    line["mutants"] = list(header.mutants)
    line["lost"] = header.lost
    if header.comment:
        line["comment"] = header.comment
    return line


# -- the items


def parse_item(values: object) -> Item:
    """Check any other line of a trace; as :func:`parse_header`."""
    line = _Line(values)
    what = line.text("do")
    ns = line.number("ns", _U64, 0)
    item: Item
    match what:
        case "reset":
            kind = line.text("kind")
            if kind not in list(Reset):
                raise ValueError(f"a reset of kind {_short(kind)}")
            item = Restart(Reset(kind), ns)
        case "negotiate":
            item = Negotiation(line.number("features", _U64), ns)
        case "config":
            item = _config_write(line, ns)
        case "opaque":
            item = Opaque(ns)
        case _:
            item = _request(line, what, ns)
    line.done()
    return item


def _config_write(line: _Line, ns: int) -> ConfigWrite:
    size = line.number("size", 8)
    offset = line.number("offset", CONFIG_SIZE - 1)
    if size not in (1, 2, 4, 8) or offset + size > CONFIG_SIZE:
        raise ValueError(f"no access of {size} bytes at {offset} is possible")
    return ConfigWrite(offset, size, line.number("value", 2 ** (8 * size) - 1), ns)


_KINDS = {kind.name.lower(): kind for kind in Type}


def _request(line: _Line, what: str, ns: int) -> Request:
    if what == "raw":
        text = line.text("bytes")
        if len(text) > 2 * MAX_BYTES or re.fullmatch(r"([0-9a-f]{2})*", text) is None:
            raise ValueError(f"'bytes' is {_short(text)}")
        data = bytes.fromhex(text)
        readable = line.number("readable", MAX_READABLE, len(data))
        writable = line.number("writable", MAX_WRITABLE)
        if readable < len(data) or (readable > len(data) and len(data) < MAX_BYTES):
            raise ValueError(f"{readable} bytes are readable, {len(data)} are there")
    elif what in _KINDS:
        fields = _fields(line, _KINDS[what])
        data, writable = fields.encode(), wire.TAIL_SIZE
        readable = len(data)
        if fields.kind is Type.PROBE:
            writable = line.number("writable", MAX_WRITABLE)
    else:
        raise ValueError(f"'do' is {_short(what)}")
    together = line.take("together", bool, False)
    outcome = _outcome(line, writable)
    return Request(data, readable, writable, outcome, bool(together), ns)


def _fields(line: _Line, kind: Type) -> Fields:
    wanted = _FIELDS[kind]
    return Fields(kind, **{key: line.number(key, limit) for key, limit in wanted})


_ID = {name: (name, _U32) for name in ("domain", "endpoint", "flags")}
_AT = {name: (name, _U64) for name in ("start", "end", "phys")}
_FIELDS = {
    Type.ATTACH: (_ID["domain"], _ID["endpoint"], _ID["flags"]),
    Type.DETACH: (_ID["domain"], _ID["endpoint"]),
    Type.MAP: (_ID["domain"], _AT["start"], _AT["end"], _AT["phys"], _ID["flags"]),
    Type.UNMAP: (_ID["domain"], _AT["start"], _AT["end"]),
    Type.PROBE: (_ID["endpoint"],),
}


def _outcome(line: _Line, writable: int) -> Outcome:
    status = line.optional("status", 255)
    usual = 0 if status is None else writable
    used = line.optional("used", _U32) if line.has("used") else usual
    return Outcome(status, used)


def item_json(item: Item) -> dict[str, object]:
    """Return what :func:`parse_item` reads."""
    line: dict[str, object]
    match item:
        case Restart():
            line = {"do": "reset", "kind": str(item.kind)}
        case Negotiation():
            line = {"do": "negotiate", "features": hex(item.features)}
        case ConfigWrite():
            line = {"do": "config", "offset": item.offset, "size": item.size}
            line["value"] = item.value
        case Opaque():
            line = {"do": "opaque"}
        case Request():
            line = _request_json(item)
    return line | {"ns": item.ns}


def _request_json(request: Request) -> dict[str, object]:
    fields = plain_fields(request)
    line: dict[str, object]
    if fields is None:
        line = {"do": "raw", "bytes": request.data.hex()}
        if request.readable != len(request.data):
            line["readable"] = request.readable
        line["writable"] = request.writable
    else:
        line = {"do": fields.kind.name.lower()}
        for key, limit in _FIELDS[fields.kind]:
            value = getattr(fields, key)
            line[key] = hex(value) if limit == _U64 else value
        if fields.kind is Type.PROBE:
            line["writable"] = request.writable
    if request.together:
        line["together"] = True
    outcome = request.outcome
    line["status"] = outcome.status
    if outcome.used != (0 if outcome.status is None else request.writable):
        line["used"] = outcome.used
    return line


def _shown(value: int) -> int | str:
    return value if value < 2**16 else hex(value)


# -- the file


@dataclass(frozen=True)
class Contents:
    """What is in a trace, counted."""

    nr_requests: int
    nr_opaque: int
    #: Every endpoint id that a request names.
    ids: frozenset[int]


def _ignore(done: int, total: int) -> None:
    pass


class TraceFile:
    """A trace in a file; opening it looks at every line.

    :param path: The file.
    :param show: Is told now and then how many of how many bytes were looked at.
    :raise UsageError: When it is no trace; names the line.
    """

    def __init__(self, path: Path, show: Callable[[int, int], None] = _ignore) -> None:
        self.path = path
        self.header: Header
        self.contents = self._check(show)

    def items(self, show: Callable[[int, int], None] = _ignore) -> Iterator[Item]:
        """Yield what follows the header.

        :param show: As for the class.
        :raise UsageError: When the file is no longer what it was.
        """
        with self._open() as file:
            number, size = 1, os.fstat(file.fileno()).st_size
            self._line(file, number)
            while (values := self._line(file, number + 1)) is not None:
                number += 1
                try:
                    yield parse_item(values)
                except ValueError as error:
                    raise self._error(number, str(error)) from error
                if number % _SHOW_EVERY == 0:
                    show(file.tell(), size)
                if number > _MAX_ITEMS:
                    raise self._error(number, f"more than {_MAX_ITEMS} lines")

    def _check(self, show: Callable[[int, int], None]) -> Contents:
        with self._open() as file:
            values = self._line(file, 1)
        try:
            self.header = parse_header(values)
        except ValueError as error:
            raise self._error(1, str(error)) from error
        requests = opaque = 0
        ids: set[int] = set()
        negotiated = False
        for number, item in enumerate(self.items(show), 2):
            if isinstance(item, Request | Opaque):
                requests += isinstance(item, Request)
                opaque += isinstance(item, Opaque)
                if not negotiated:
                    raise self._error(number, "a request before features are accepted")
            elif isinstance(item, Negotiation) and negotiated:
                raise self._error(number, "features are accepted twice without a reset")
            if isinstance(item, Negotiation | Restart):
                negotiated = isinstance(item, Negotiation)
            if isinstance(item, Request):
                ids |= {
                    found for found in [endpoint_of(item.data)] if found is not None
                }
                if len(ids) > _MAX_IDS:
                    raise self._error(number, f"more than {_MAX_IDS} endpoints")
        return Contents(requests, opaque, frozenset(ids))

    def _open(self) -> BinaryIO:
        try:
            # A FIFO or a device would be read for ever, or not twice.
            if not stat.S_ISREG(self.path.stat().st_mode):
                raise UsageError(
                    f"{self.path}: is no regular file",
                    hint="wanted: a trace, as viotest trace record writes it",
                )
            return self.path.open("rb")
        except OSError as error:
            raise UsageError(f"{self.path}: {error.strerror}") from error

    def _line(self, file: BinaryIO, number: int) -> object | None:
        raw = file.readline(_MAX_LINE + 1)
        if not raw:
            return None
        if len(raw) > _MAX_LINE:
            raise self._error(number, f"is longer than {_MAX_LINE} bytes")
        try:
            values: object = _JSON.decode(raw.decode())
        except _RepeatedKeyError as error:
            raise self._error(number, str(error)) from error
        except (ValueError, RecursionError) as error:
            raise self._error(number, "is no JSON") from error
        # None is the end of the file.
        return [] if values is None else values

    def _error(self, number: int, what: str) -> UsageError:
        return UsageError(
            f"{self.path}: line {number}: {what}", hint="see docs/trace.md"
        )


def write_trace(path: Path, header: Header, items: Iterable[Item]) -> None:
    """Write a trace; the file is there once it is complete, and not before.

    :raise OSError: When it cannot be written.
    """
    temporary = path.with_name(f".{path.name[:32]}.{os.getpid()}")
    try:
        with temporary.open("w", encoding="ascii") as file:
            for line in trace_lines(header, items):
                file.write(line)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def trace_lines(header: Header, items: Iterable[Item]) -> Iterator[str]:
    """Yield the lines of a trace."""
    yield _dump(header_json(header))
    for item in items:
        yield _dump(item_json(item))


def _dump(values: Mapping[str, object]) -> str:
    return json.dumps(values, separators=(",", ":")) + "\n"
