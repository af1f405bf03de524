# SPDX-License-Identifier: GPL-2.0-or-later
"""A trace survives its file; a file that is none is one line."""

from __future__ import annotations

import json
import os
import random
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from viotest.conformance import wire
from viotest.conformance.lab import Region
from viotest.conformance.wire import Type
from viotest.errors import UsageError
from viotest.trace.form import (
    TraceFile,
    header_json,
    item_json,
    parse_header,
    parse_item,
    trace_lines,
    write_trace,
)
from viotest.trace.model import (
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
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HEADER = Header(
    {"bypass": 1, "input_end": 2**64 - 1, "page_size_mask": 0xFFFFFFFFFFFFF000},
    (
        Endpoint(0x80, (Region(wire.RESV_MEM_MSI, 0xFEE00000, 0xFEEFFFFF),)),
        Endpoint(0xFFFFFFFF, (Region(wire.RESV_MEM_RESERVED, 0, 2**64 - 1),)),
    ),
    ("ignore-unmap",),
    17,
    "a comment",
)
OK = Outcome(0, 4)


def request(kind: Type, **fields: Any) -> Request:
    data = Fields(kind, **fields).encode()
    return Request(data, len(data), 4, OK)


ITEMS: tuple[Item, ...] = (
    *(Restart(kind, 5) for kind in Reset),
    Negotiation(1 << 32 | 0x77, 6),
    ConfigWrite(36, 1, 1, 7),
    ConfigWrite(0, 8, 2**64 - 1),
    Opaque(8),
    request(Type.ATTACH, domain=2**32 - 1, endpoint=0x80, flags=1),
    request(Type.DETACH, domain=1, endpoint=0x80),
    request(Type.MAP, domain=1, start=0, end=2**64 - 1, phys=0x1000, flags=7),
    request(Type.UNMAP, domain=1, start=0x1000, end=0x1FFF),
    Request(Fields(Type.PROBE, endpoint=8).encode(), 72, 516, Outcome(0, 516), ns=9),
    Request(b"\1\2", 2, 4, Outcome(None, 0), together=True),
    Request(b"", 0, 0, Outcome(None, 0)),
    Request(bytes([5]) * 72, 4096, 1 << 18, Outcome(4, 1 << 18)),
    Request(b"\2" + bytes(19), 20, 4, Outcome(None, None)),
    Request(b"\2" + bytes(19), 20, 4, Outcome(6, 3)),
    Request(b"\2" + bytes(19), 20, 8, Outcome(6, 8)),
)


def write(path: Path, *lines: object) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    items = [Negotiation(0), *[i for i in ITEMS if not isinstance(i, Negotiation)]]
    # A reset ends the state in which requests are possible.
    items.sort(key=lambda item: not isinstance(item, Restart | ConfigWrite))
    items.sort(key=lambda item: isinstance(item, Request | Opaque))
    write_trace(path, HEADER, items)
    trace = TraceFile(path)
    assert trace.header == HEADER
    assert list(trace.items()) == items
    assert trace.contents.nr_requests == sum(isinstance(i, Request) for i in items)
    assert trace.contents.nr_opaque == 1
    assert trace.contents.ids == {0x80, 8, 0x05050505, 0}
    # The same trace is the same file.
    before = path.read_bytes()
    write_trace(path, trace.header, list(trace.items()))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("item", ITEMS, ids=lambda item: type(item).__name__)
def test_item_round_trip(item: Item) -> None:
    assert parse_item(json.loads(json.dumps(item_json(item)))) == item


@given(
    data=st.binary(max_size=72),
    writable=st.integers(0, 1 << 18),
    status=st.none() | st.integers(0, 255),
    used=st.none() | st.integers(0, 2**32 - 1),
    together=st.booleans(),
)
def test_any_request_round_trips(
    data: bytes, writable: int, status: int | None, used: int | None, together: bool
) -> None:
    outcome = Outcome(status, used)
    item = Request(data, len(data), writable, outcome, together)
    assert parse_item(json.loads(json.dumps(item_json(item)))) == item


def test_numbers_may_be_written_either_way() -> None:
    fields = {"domain": "0x1", "start": 4096, "end": "0x1fff", "phys": 0, "flags": 3}
    found = parse_item({"do": "map", **fields, "status": 0})
    wanted = request(Type.MAP, domain=1, start=0x1000, end=0x1FFF, flags=3)
    assert found == wanted


def test_header_may_say_next_to_nothing() -> None:
    assert parse_header({"viotest-trace": 1}) == Header()


_GOOD = {"do": "detach", "domain": 1, "endpoint": 1, "status": 0}
_RAW = {"do": "raw", "bytes": "02", "writable": 4, "status": 0}


@pytest.mark.parametrize(
    "values",
    [
        None,
        5,
        [],
        {},
        {"viotest-trace": 2},
        {"viotest-trace": True},
        {"viotest-trace": "1"},
        {"viotest-trace": 1, "what": 1},
        {"viotest-trace": 1, "iommu": []},
        {"viotest-trace": 1, "iommu": {"socket": "x"}},
        {"viotest-trace": 1, "iommu": {"bypass": 2}},
        {"viotest-trace": 1, "iommu": {"bypass": True}},
        {"viotest-trace": 1, "iommu": {"features": -1}},
        {"viotest-trace": 1, "iommu": {"features": 1.5}},
        {"viotest-trace": 1, "iommu": {"input_end": "0x10000000000000000"}},
        {"viotest-trace": 1, "endpoints": {}},
        {"viotest-trace": 1, "endpoints": [5]},
        {"viotest-trace": 1, "endpoints": [{}]},
        {"viotest-trace": 1, "endpoints": [{"id": 1 << 32}]},
        {"viotest-trace": 1, "endpoints": [{"id": 1}, {"id": 1}]},
        {"viotest-trace": 1, "endpoints": [{"id": i} for i in range(257)]},
        {"viotest-trace": 1, "endpoints": [{"id": 1, "resv_mem": [{}]}]},
        {
            "viotest-trace": 1,
            "endpoints": [
                {"id": 1, "resv_mem": [{"type": "msi", "start": 2, "end": 1}]}
            ],
        },
        {
            "viotest-trace": 1,
            "endpoints": [{"id": 1, "resv_mem": [{"type": "x", "start": 2, "end": 3}]}],
        },
        {"viotest-trace": 1, "mutants": [5]},
        {"viotest-trace": 1, "mutants": ["x" * 64]},
        {"viotest-trace": 1, "lost": -1},
        {"viotest-trace": 1, "comment": 1},
    ],
)
def test_hostile_header_is_refused(values: object) -> None:
    with pytest.raises(ValueError, match=r"is|are|has|ends|type|same"):
        parse_header(values)


@pytest.mark.parametrize(
    "values",
    [
        None,
        [],
        {},
        {"do": 5},
        {"do": "jump"},
        {"do": "reset"},
        {"do": "reset", "kind": "loud"},
        {"do": "reset", "kind": "flr", "x": 1},
        {"do": "reset", "kind": "flr", "ns": -1},
        {"do": "negotiate", "features": 1 << 64},
        {"do": "config", "offset": 36, "size": 3, "value": 0},
        {"do": "config", "offset": 36, "size": 8, "value": 0},
        {"do": "config", "offset": 40, "size": 1, "value": 0},
        {"do": "config", "offset": 36, "size": 1, "value": 256},
        {"do": "config", "offset": 36, "size": 0, "value": 0},
        _GOOD | {"domain": 1 << 32},
        _GOOD | {"domain": None},
        _GOOD | {"domain": "1"},
        _GOOD | {"domain": "0xg"},
        _GOOD | {"flags": 1},
        _GOOD | {"status": 256},
        _GOOD | {"status": True},
        _GOOD | {"used": 1 << 32},
        _GOOD | {"together": 1},
        _GOOD | {"writable": 4},
        {"do": "detach", "domain": 1, "status": 0},
        {"do": "probe", "endpoint": 1, "writable": (1 << 18) + 1, "status": 0},
        {"do": "probe", "endpoint": 1, "status": 0},
        _RAW | {"bytes": "0"},
        _RAW | {"bytes": "0G"},
        _RAW | {"bytes": "02 "},
        _RAW | {"bytes": "02" * 73},
        _RAW | {"bytes": 2},
        _RAW | {"readable": 0},
        _RAW | {"readable": 2},
        _RAW | {"readable": 5000, "bytes": "02" * 72},
        _RAW | {"writable": -1},
    ],
)
def test_hostile_item_is_refused(values: object) -> None:
    with pytest.raises(ValueError, match=r"is|are|has|key|bytes|reset"):
        parse_item(values)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "line 1: is no JSON object"),
        (b"\xff\xfe\n", "line 1: is no JSON"),
        (b"null\n", "line 1: is no JSON object"),
        (b"[" * 60000, "line 1: is no JSON"),
        (b"9" * 5000, "line 1: is no JSON"),
        (b"x" * 70000, "line 1: is longer than 65536 bytes"),
        (b'{"viotest-trace":1}\n{"do":"opaque"}\n', "line 2: a request before"),
        (
            b'{"viotest-trace":1}\n{"do":"negotiate","features":1}\n' * 1
            + b'{"do":"reset","kind":"flr"}\n{"do":"opaque"}\n',
            "line 4: a request before",
        ),
        (
            b'{"viotest-trace":1}\n' + b'{"do":"negotiate","features":1}\n' * 2,
            "line 3: features are accepted twice",
        ),
        (
            b'{"viotest-trace":1,"lost":0,"comment":"a","lost":7,"lost":8}\n',
            "line 1: 'lost' is there more than once",
        ),
        (
            b'{"viotest-trace":1,"iommu":{"bypass":0,"bypass":1}}\n',
            "line 1: 'bypass' is there more than once",
        ),
        (
            b'{"viotest-trace":1}\n{"do":"opaque","do":"reset"}\n',
            "line 2: 'do' is there more than once",
        ),
        (b'{"viotest-trace":1}\n\n', "line 2: is no JSON"),
        (b'{"viotest-trace":1}\nnull\n', "line 2: is no JSON object"),
        (b'{"viotest-trace":1}\n{"do":"reset","ki', "line 2: is no JSON"),
        (b'{"viotest-trace":1}\n' + b"[" * 70000, "line 2: is longer"),
    ],
)
def test_file_that_is_no_trace(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "x"
    path.write_bytes(content)
    with pytest.raises(UsageError) as caught:
        TraceFile(path)
    said = str(caught.value)
    assert words in said
    assert "\n" not in said
    assert len(said) < 300 + len(str(path))


def test_too_many_endpoints_named(tmp_path: Path) -> None:
    lines = [_GOOD | {"endpoint": i} for i in range(4097)]
    start = [{"viotest-trace": 1}, {"do": "negotiate", "features": 4}]
    with pytest.raises(UsageError, match=r"line 4099: more than 4096 endpoints"):
        TraceFile(write(tmp_path / "x", *start, *lines))
    assert TraceFile(write(tmp_path / "x", *start, *lines[:-1])).contents.nr_requests


def test_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "fifo", tmp_path, tmp_path / os.devnull):
        with pytest.raises(UsageError, match=r"is no regular file .*trace record"):
            TraceFile(path)
    with pytest.raises(UsageError, match="missing: No such file"):
        TraceFile(tmp_path / "missing")


def test_file_that_changes_is_an_error(tmp_path: Path) -> None:
    path = write(tmp_path / "x", {"viotest-trace": 1})
    trace = TraceFile(path)
    write(path, {"viotest-trace": 1}, {"do": "jump"})
    with pytest.raises(UsageError, match="line 2"):
        list(trace.items())


def test_failed_write_leaves_nothing(tmp_path: Path) -> None:
    def items() -> Iterator[Item]:
        yield Negotiation(0)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_trace(tmp_path / "x", HEADER, items())
    assert not list(tmp_path.iterdir())


def test_damaged_files_never_crash(tmp_path: Path) -> None:
    requests = [item for item in ITEMS if isinstance(item, Request)]
    items: list[Item] = [Negotiation(0), *requests]
    whole = "".join(trace_lines(HEADER, items)).encode()
    rng = random.Random(1)
    path = tmp_path / "x"
    refused = 0
    for _ in range(500):
        data = bytearray(whole)
        for _ in range(rng.randrange(1, 4)):
            data[rng.randrange(len(data))] = rng.choice(b'0x"{}[],:\n\xff9-')
        path.write_bytes(data[: rng.choice([len(data), rng.randrange(len(data))])])
        try:
            list(TraceFile(path).items())
        except UsageError:
            refused += 1
    assert 0 < refused <= 500


def test_header_round_trip() -> None:
    assert parse_header(json.loads(json.dumps(header_json(HEADER)))) == HEADER
