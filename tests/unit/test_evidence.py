# SPDX-License-Identifier: GPL-2.0-or-later
"""What the device did, in words beside a failed check."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import pytest

from viotest.campaign.evidence import MAX_LINES, Evidence, tell
from viotest.errors import UntestableError
from viotest.report.device_log import KINDS, DeviceRecord

if TYPE_CHECKING:
    from collections.abc import Iterator

    from viotest.report.device_log import DeviceLog

EP = 0x80


def record(kind: str, start: int = 0, end: int = 0, **fields: int) -> DeviceRecord:
    rest = {"status": 0, "endpoint": EP, "domain": 3, "flags": 0, "target": 0}
    rest |= {"duration_ns": 0, "source": 0} | fields
    return DeviceRecord(1, 1, kind, start=start, end=end, **rest)


class FakeLog:
    """A log that is there as it is made, and grows."""

    def __init__(self, *rows: DeviceRecord) -> None:
        self.rows = list(rows)
        self.broken = False

    def head(self) -> int:
        if self.broken:
            raise UntestableError("gone")
        return len(self.rows)

    def records(self, after: int = 0) -> Iterator[DeviceRecord]:
        return iter(self.rows[after:])


@pytest.mark.parametrize(
    ("one", "words"),
    [
        (record("attach"), "ATTACH 0x80 to domain 3: OK"),
        (record("detach", status=4), "DETACH 0x80 from domain 3: INVAL"),
        (
            record("map", 0x1000, 0x1FFF, target=0x5000, flags=3),
            "MAP domain 3 0x1000-0x1fff to 0x5000 (read write): OK",
        ),
        (record("unmap", 0, 0xFFF, status=5), "UNMAP domain 3 0x0-0xfff: RANGE"),
        (
            record("fault", 0x1000, flags=2, status=2),
            "fault of 0x80: write at 0x1000, no mapping",
        ),
        (
            record("fault-dropped", 0x1000, flags=1, status=1),
            "fault of 0x80: read at 0x1000, no domain, not reported",
        ),
        (
            record("dma", 0x1000, 0x1003, status=3, flags=4),
            "DMA fill by 0x80 at 0x1000-0x1003: fault",
        ),
        (
            record("dma", 0x1000, 0x1003, status=99, flags=77),
            "DMA 0x4d by 0x80 at 0x1000-0x1003: 0x63",
        ),
        (
            record("msi-write", 0xFEE00000, target=0x27),
            "DMA write of 0x27 to 0xfee00000, an interrupt",
        ),
        (record("irq", 2, source=1), "interrupt 2"),
        (record("bus-master", flags=1), "bus mastering on"),
        (record("reset", flags=2), "reset of the function"),
    ],
)
def test_record_has_words(one: DeviceRecord, words: str) -> None:
    assert list(tell([one], nr_iommus=1)) == [words]


def test_every_kind_can_be_told() -> None:
    records = [record(kind) for kind in (*KINDS, "kind-99")]
    assert 10 < len(list(tell(records))) < len(records)


def test_what_the_iommu_itself_signals_is_left_out() -> None:
    assert list(tell([record("irq", source=0)], nr_iommus=1)) == []


def test_neighbours_are_one() -> None:
    pages = [record("unmap", at, at + 0xFFF) for at in (0x1000, 0x2000, 0x4000)]
    assert list(tell(pages)) == [
        "UNMAP domain 3 0x1000-0x2fff: OK (2 requests)",
        "UNMAP domain 3 0x4000-0x4fff: OK",
    ]
    # But not across another answer, or another domain.
    others = [pages[0], record("unmap", 0x2000, 0x2FFF, status=5)]
    assert len(list(tell(others))) == 2


def test_like_ones_are_counted() -> None:
    same = [record("dma", 0, 7, status=2, flags=4)] * 3
    assert list(tell([*same, record("dma", 8, 15, status=2, flags=4)])) == [
        "DMA fill by 0x80 at 0x0-0x7: OK (3 times)",
        "DMA fill by 0x80 at 0x8-0xf: OK",
    ]


def test_only_what_came_since_counts_and_the_last_of_it() -> None:
    log = FakeLog(record("attach"))
    evidence = Evidence(cast("DeviceLog", log), 1)
    assert evidence.lines() == [
        "device   nothing was asked of it, and no endpoint did anything"
    ]
    log.rows += [record("attach", domain=number) for number in range(9)]
    lines = evidence.lines()
    assert lines[0] == f"device   ... {9 - MAX_LINES} more before"
    assert lines[-1] == "device   ATTACH 0x80 to domain 8: OK"
    assert len(lines) == 1 + MAX_LINES


def test_kernel_is_quoted_on_the_matter() -> None:
    evidence = Evidence(cast("DeviceLog", FakeLog()), 1)
    lines = evidence.lines(
        [
            "e1000e: link is up",
            "vfio-pci 0000:00:10.0: resetting",
            "virtio_iommu virtio0: page fault from EP 128 at 0x1000 [W]",
            "vfio-pci 0000:00:10.0: " + "x" * 200,
        ]
    )
    said = [line for line in lines if line.startswith("kernel ")]
    assert "page fault from EP 128" in said[0]
    assert said[1].endswith("xxx...")
    assert len(said) == 2


def test_log_that_is_gone_is_no_reason_to_fail() -> None:
    log = FakeLog()
    evidence = Evidence(cast("DeviceLog", log), 1)
    log.broken = True
    assert evidence.lines() == ["device   its log cannot be read: gone"]
