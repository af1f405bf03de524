# SPDX-License-Identifier: GPL-2.0-or-later
"""What tracefs, the device's log and the guest's kernel say, taken apart."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, cast

import pytest

from viotest.report.device_log import DeviceLog, DeviceRecord
from viotest.suite import observe as subject
from viotest.suite.judgement import CheckFailed
from viotest.suite.observe import (
    Asked,
    DeviceWatch,
    expect_guest_fault,
    parse_capable,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from viotest.guest.probe import Probe

# Lines of Linux 6.12 on q35, as trace-read gives them.
ASK = (
    "      vfio-probe-142     [000] .....     2.508191: viotest_ask:"
    " (viommu_capable+0x4/0x20 [virtio_iommu]) cap=0"
)
ANSWER = (
    "      vfio-probe-142     [000] .N...     2.509099: viotest_answer:"
    " (vfio_register_group_dev+0x5a/0xd0 [vfio] <- viommu_capable) ret=1"
)
HEADER = "# tracer: nop"


@pytest.mark.parametrize(
    ("answer", "expected"),
    [("ret=1", True), ("ret=0", False), ("ret=0x1", True), ("ret=0x0", False)],
)
def test_question_and_answer_are_paired(answer: str, expected: bool) -> None:
    lines = [HEADER, ASK, ANSWER.replace("ret=1", answer)]
    assert parse_capable(lines) == [Asked(0, expected)]


def test_tasks_are_kept_apart() -> None:
    other_ask = ASK.replace("vfio-probe-142", "kworker/0:1-7").replace("cap=0", "cap=3")
    other_answer = ANSWER.replace("vfio-probe-142", "kworker/0:1-7")
    lines = [ASK, other_ask, other_answer.replace("ret=1", "ret=0"), ANSWER]
    assert parse_capable(lines) == [Asked(3, False), Asked(0, True)]


def test_half_a_pair_is_nothing() -> None:
    assert parse_capable([ANSWER]) == []
    assert parse_capable([ASK]) == []
    assert parse_capable([]) == []


def test_name_of_a_task_may_look_like_anything() -> None:
    odd = ASK.replace("vfio-probe-142", "a-1 b: viotest-142")
    assert parse_capable([odd, ANSWER]) == [Asked(0, True)]


def record(seq: int, kind: str, *, endpoint: int = 128, start: int = 0) -> DeviceRecord:
    return DeviceRecord(seq, seq, kind, 0, endpoint, 0, 0, start, start, 0, 0, 0)


class FakeLog:
    """A device log that grows."""

    def __init__(self) -> None:
        self.rows: list[DeviceRecord] = []

    def head(self) -> int:
        return len(self.rows)

    def records(self, after: int = 0) -> Iterator[DeviceRecord]:
        return (row for row in self.rows if row.seq > after)


def watched() -> tuple[FakeLog, DeviceWatch]:
    log = FakeLog()
    log.rows.append(record(1, "fault", start=0x1000))
    return log, DeviceWatch(cast("DeviceLog", log))


def test_fault_after_the_watch_began_counts() -> None:
    log, watch = watched()
    log.rows.append(record(2, "fault", start=0x1000))
    watch.expect_fault(128, 0x1000)


@pytest.mark.parametrize(("endpoint", "start"), [(129, 0x1000), (128, 0x2000)])
def test_another_fault_does_not_count(endpoint: int, start: int) -> None:
    log, watch = watched()
    log.rows.append(record(2, "fault", endpoint=endpoint, start=start))
    with pytest.raises(CheckFailed, match="reported no such fault") as failed:
        watch.expect_fault(128, 0x1000)
    assert f"EP {endpoint} at {start:#x}" in failed.value.details


def test_old_fault_does_not_count() -> None:
    _, watch = watched()
    with pytest.raises(CheckFailed) as failed:
        watch.expect_fault(128, 0x1000)
    assert "seen     none" in failed.value.details


class FakeProbe:
    """A guest whose kernel log says one thing at a time, and then nothing."""

    def __init__(self, *texts: str) -> None:
        self._texts = list(texts)

    def call(self, command: str, /, **_: object) -> dict[str, object]:
        if command == "hello":
            return {"monotonic_ns": time.monotonic_ns()}
        assert command == "dmesg"
        texts = [self._texts.pop(0)] if self._texts else []
        return {"lines": [{"ns": 1, "text": text} for text in texts]}


LINE = "virtio_iommu virtio0: page fault from EP 128 at 0x100001000 [W]"


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "_RATELIMIT_NS", 50_000_000)
    monkeypatch.setattr(subject, "_MESSAGE_SECONDS", 0.01)


def test_guest_names_endpoint_and_address() -> None:
    again: list[int] = []
    probe = cast("Probe", FakeProbe("something else", LINE))
    expect_guest_fault(probe, 128, 0x100001000, lambda: again.append(1))
    assert not again


@pytest.mark.usefixtures("hurried")
def test_guest_that_names_another_address_is_not_believed() -> None:
    again: list[int] = []
    probe = cast("Probe", FakeProbe(LINE))
    with pytest.raises(CheckFailed, match="reported no such fault") as failed:
        expect_guest_fault(probe, 128, 0x100002000, lambda: again.append(1))
    assert LINE in failed.value.details
    assert again
