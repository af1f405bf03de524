# SPDX-License-Identifier: GPL-2.0-or-later
"""The device's log as a file, which may be cut off, old, or somebody else's."""

from __future__ import annotations

import random
import struct
from typing import TYPE_CHECKING

import pytest

from viotest.errors import UntestableError
from viotest.report import device_log
from viotest.report.device_log import (
    COUNTERS,
    KINDS,
    DeviceLog,
    summary,
    timeline_events,
)

if TYPE_CHECKING:
    from pathlib import Path

DATA_OFFSET = 4096
CAPACITY = 4


def make_header(
    *,
    magic: bytes = b"VIOTLOG1",
    size: int = 64,
    counters: int = len(COUNTERS),
    capacity: int = CAPACITY,
    head: int = 0,
) -> bytes:
    fixed = struct.pack("<8sIIQQQQ", magic, size, counters, capacity, head, 1, 2)
    return fixed + struct.pack(f"<{len(COUNTERS)}Q", *range(len(COUNTERS)))


def make_record(seq: int, kind: str, *, ns: int = 0, endpoint: int = 0x80) -> bytes:
    number = KINDS.index(kind)
    rest = (0, endpoint, 1, 3, 0x1000, 0x1FFF, 0x5000, 700, 0)
    return struct.pack("<QQHHIIIQQQII", seq, ns or seq * 10, number, *rest)


def write_log(path: Path, records: list[bytes], **header: int) -> Path:
    header.setdefault("head", len(records))
    data = bytearray(DATA_OFFSET + CAPACITY * 64)
    head = make_header(**header)  # type: ignore[arg-type]
    data[: len(head)] = head
    for index, record in enumerate(records):
        at = DATA_OFFSET + index % CAPACITY * 64
        data[at : at + 64] = record
    path.write_bytes(data)
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "device.bin"


def test_records_come_in_order(path: Path) -> None:
    log = DeviceLog(write_log(path, [make_record(1, "map"), make_record(2, "unmap")]))
    assert [(r.seq, r.kind) for r in log.records()] == [(1, "map"), (2, "unmap")]
    assert [r.seq for r in log.records(after=1)] == [2]
    assert log.head() == 2


def test_overwritten_records_are_left_out(path: Path) -> None:
    records = [make_record(seq, "dma") for seq in range(1, 7)]
    log = DeviceLog(write_log(path, records))
    assert [record.seq for record in log.records()] == [3, 4, 5, 6]


def test_unfinished_record_is_left_out(path: Path) -> None:
    log = DeviceLog(write_log(path, [make_record(1, "map"), bytes(64)]))
    assert [record.seq for record in log.records()] == [1]


def test_kind_of_a_newer_device_has_a_name(path: Path) -> None:
    record = bytearray(make_record(1, "map"))
    struct.pack_into("<H", record, 16, 999)
    [seen] = DeviceLog(write_log(path, [bytes(record)])).records()
    assert seen.kind == "kind-999"


def test_counters_have_names(path: Path) -> None:
    counters = DeviceLog(write_log(path, [])).counters()
    assert counters == {name: index for index, name in enumerate(COUNTERS)}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is no request log"),
        (make_header()[:40], "is no request log"),
        (make_header(magic=b"VIOTLOG2"), "is no request log"),
        (make_header(size=32), "records of 32 bytes"),
        (make_header(counters=0xFFFFFFFF), "4294967295 counters"),
        (make_header(capacity=0).ljust(8192, b"\0"), "0 records"),
        (make_header(capacity=1 << 63).ljust(8192, b"\0"), "records"),
        (make_header(), "records"),
    ],
)
def test_hostile_file_is_an_error(path: Path, content: bytes, words: str) -> None:
    path.write_bytes(content)
    with pytest.raises(UntestableError, match=words):
        DeviceLog(path)


def test_missing_file_is_an_error(path: Path) -> None:
    with pytest.raises(UntestableError, match="no device log"):
        DeviceLog(path)


def test_file_cut_off_later_is_an_error(path: Path) -> None:
    log = DeviceLog(write_log(path, [make_record(1, "map")]))
    path.write_bytes(path.read_bytes()[: DATA_OFFSET + 10])
    assert list(log.records()) == []
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(UntestableError, match="ends within its counters"):
        log.counters()
    path.write_bytes(b"")
    with pytest.raises(UntestableError):
        log.head()


def test_damaged_files_never_crash(path: Path) -> None:
    whole = write_log(path, [make_record(1, "map"), make_record(2, "dma")]).read_bytes()
    rng = random.Random(1)
    for _ in range(300):
        data = bytearray(whole)
        for _ in range(rng.randrange(1, 6)):
            data[rng.randrange(48)] = rng.randrange(256)
        path.write_bytes(data[: rng.choice([len(data), rng.randrange(len(data))])])
        try:
            log = DeviceLog(path)
            assert len(list(log.records())) <= len(data) // 64
            log.counters()
        except UntestableError:
            continue


def test_summary_has_requests_dma_and_faults() -> None:
    counters = {name: 1 << index for index, name in enumerate(COUNTERS)}
    seen = summary(counters)
    requests, dma, faults = seen["requests"], seen["dma"], seen["faults"]
    assert isinstance(requests, dict)
    assert isinstance(dma, dict)
    assert isinstance(faults, dict)
    assert requests["attach"] == 1
    assert requests["malformed"] == counters["malformed"]
    assert dma["write_bytes"] == counters["dma-write-bytes"]
    assert faults["mapping"] == counters["fault-mapping"]
    assert faults["reported"] == counters["faults-reported"]


def test_timeline_event_has_what_matters(path: Path) -> None:
    everything = 0xFFFFFFFF
    records = [
        make_record(1, "map", endpoint=everything),
        make_record(2, "fault", ns=99),
    ]
    mapped, fault = timeline_events(DeviceLog(write_log(path, records)))
    assert (mapped.event, mapped.data["start"], mapped.data["domain"]) == (
        "map",
        "0x1000",
        1,
    )
    assert "endpoint" not in mapped.data
    assert (fault.ns, fault.source, fault.data["endpoint"]) == (99, "device", 0x80)
    assert "domain" not in fault.data


def test_timeline_leaves_out_details_and_what_is_old(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kinds = ("map", "unmap", "request-detail", "attach")
    records = [make_record(seq, kind) for seq, kind in enumerate(kinds, 1)]
    log = DeviceLog(write_log(path, records))
    assert [e.event for e in timeline_events(log)] == ["map", "unmap", "attach"]
    monkeypatch.setattr(device_log, "TIMELINE_RECORDS", 3)
    assert [e.event for e in timeline_events(log)] == ["unmap", "attach"]
