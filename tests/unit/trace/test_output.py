# SPDX-License-Identifier: GPL-2.0-or-later
"""What a person and a program read of a trace and of a replay."""

from __future__ import annotations

import json

import pytest

from tests.unit.trace.fakes import ModelDevice
from viotest.conformance.target import Target
from viotest.conformance.wire import Type
from viotest.trace import replay
from viotest.trace.model import (
    ConfigWrite,
    Fields,
    Header,
    Item,
    Negotiation,
    Opaque,
    Outcome,
    Request,
    Reset,
    Restart,
    request_words,
)
from viotest.trace.output import MAX_SHOWN, Report, as_json, show_trace, text
from viotest.trace.replay import Difference, Result


def request(kind: Type, status: int | None = 0, **fields: int) -> Request:
    data = Fields(kind, **fields).encode()
    return Request(data, len(data), 4, Outcome(status, 4 if status is not None else 0))


@pytest.mark.parametrize(
    ("item", "words"),
    [
        (request(Type.ATTACH, domain=1, endpoint=0x80), "ATTACH 0x80 to domain 1"),
        (
            request(Type.ATTACH, domain=1, endpoint=0x80, flags=1),
            "ATTACH 0x80 to domain 1, flags 0x1",
        ),
        (request(Type.DETACH, domain=1, endpoint=8), "DETACH 0x8 from domain 1"),
        (
            request(Type.MAP, domain=2, start=0, end=0xFFF, phys=0x5000, flags=15),
            "MAP domain 2 0x0-0xfff to 0x5000 (read write mmio 0x8)",
        ),
        (
            request(Type.MAP, domain=2, start=0, end=0xFFF, phys=0x5000),
            "MAP domain 2 0x0-0xfff to 0x5000 (no access)",
        ),
        (request(Type.UNMAP, domain=2, end=9), "UNMAP domain 2 0x0-0x9"),
        (request(Type.PROBE, endpoint=8), "PROBE 0x8"),
        (
            Request(b"\x77\1", 2, 4, Outcome(None, 0)),
            "request of type 0x77, 2 bytes readable, 4 writable: 7701",
        ),
        (
            Request(b"", 0, 4, Outcome(None, 0)),
            "request of empty, 0 bytes readable, 4 writable: ",
        ),
        (
            Request(bytes([2]) + bytes(18) + b"\1", 20, 4, Outcome(0, 4)),
            "DETACH 0x0 from domain 0, 20 bytes readable, 4 writable:"
            " 02000000 00000000 00000000 00000000 00000001",
        ),
    ],
)
def test_request_in_words(item: Request, words: str) -> None:
    assert request_words(item) == words


def test_trace_is_shown_with_numbers_and_outcomes() -> None:
    header = Header({"bypass": 1}, comment="by hand")
    items: list[Item] = [
        Restart(Reset.SYSTEM),
        Negotiation(0x77, 1_500_000),
        ConfigWrite(36, 1, 1),
        request(Type.PROBE, 6, endpoint=8),
        Opaque(),
        Request(b"\7", 1, 4, Outcome(None, None), together=True),
        Request(b"\7", 1, 4, Outcome(0xAA, 9)),
    ]
    lines = list(show_trace(header, items))
    assert lines[0] == '# comment: "by hand"'
    assert '# iommu: {"bypass": 1}' in lines
    shown = [" ".join(line.split()) for line in lines if not line.startswith("#")]
    assert shown == [
        "0.000000 reset: system",
        "0.001500 features accepted: 0x77",
        "0.000000 configuration bytes 36..36 written: 0x1",
        "0.000000 1 PROBE 0x8 NOENT",
        "0.000000 2 request whose buffers are not in memory",
        "0.000000 3+ request of type 0x7, 1 bytes readable, 4 writable: 07"
        " not returned",
        "0.000000 4 request of type 0x7, 1 bytes readable, 4 writable: 07 status 0xaa,"
        " used length 9",
    ]


def report(nr: int) -> Report:
    differences = [Difference(i, f"what {i}", "OK", "INVAL") for i in range(1, nr + 1)]
    result = Result(
        differences,
        nr_differences=nr,
        notes=["a note"],
        nr_replayed=1000,
        nr_skipped=2,
        nr_opaque=3,
        seconds=2.0,
    )
    return Report("a.jsonl", "11.1", 1005, {Target.VIOTEST: result})


def test_report_for_a_person() -> None:
    lines = text(report(1)).splitlines()
    assert lines[0] == "a.jsonl: 1005 requests; QEMU 11.1"
    assert lines[2] == (
        "viotest: 1 difference; 1000 requests replayed, 2 not, for lack of a reset,"
        " 3 not in the trace; 2.00 s, 500 requests/s"
    )
    assert lines[3:] == [
        "  note: a note",
        "       1  what 1",
        "          - OK",
        "          + INVAL",
    ]
    assert "no difference" in text(report(0))
    assert not report(0).differs


def test_long_list_of_differences_is_cut() -> None:
    said = text(report(MAX_SHOWN + 7))
    assert said.count("  + INVAL") == MAX_SHOWN
    assert "and 7 more" in said


def test_report_for_a_program() -> None:
    value = json.loads(as_json(report(2)))
    assert (value["schema"], value["requests"], value["qemu"]) == (1, 1005, "11.1")
    target = value["targets"]["viotest"]
    assert target["requests_per_second"] == 500
    assert target["differences"][1] == {
        "number": 2,
        "what": "what 2",
        "recorded": "OK",
        "replayed": "INVAL",
    }


def test_differences_that_are_kept_are_limited(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(replay, "MAX_KEPT", 2)
    items: list[Item] = [Negotiation(0x77), *[request(Type.DETACH, 5)] * 4]
    result = replay.Replay(ModelDevice(), Header()).run(items)
    assert (len(result.differences), result.nr_differences) == (2, 4)
