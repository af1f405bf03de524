# SPDX-License-Identifier: GPL-2.0-or-later
"""The timeline: kept as it happens, put in order at the end."""

from __future__ import annotations

import json
import shutil
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from viotest.errors import UntestableError
from viotest.report.timeline import Event, Timeline

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "timeline.jsonl"


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_event_is_on_disk_at_once(path: Path) -> None:
    timeline = Timeline(path)
    timeline.record("check", "start", {"id": "bind"}, 7)
    row = {"ns": 7, "source": "check", "event": "start", "data": {"id": "bind"}}
    assert read(path) == [row]
    assert path.stat().st_mode & 0o777 == 0o600


def test_zero_means_now(path: Path) -> None:
    before = time.monotonic_ns()
    Timeline(path).record("run", "x", {}, 0)
    assert before <= read(path)[0]["ns"] <= time.monotonic_ns()


def test_finish_merges_and_sorts(path: Path) -> None:
    timeline = Timeline(path)
    timeline.record("run", "second", {}, 20)
    timeline.record("run", "first", {}, 10)
    timeline.finish([Event(15, "dmesg", "line"), Event(5, "device", "map")])
    assert [row["ns"] for row in read(path)] == [5, 10, 15, 20]
    assert [event.ns for event in timeline.events()] == [5, 10, 15, 20]
    assert path.stat().st_mode & 0o777 == 0o600
    assert [other.name for other in path.parent.iterdir()] == [path.name]


def test_late_source_takes_the_place_of_what_it_told(path: Path) -> None:
    timeline = Timeline(path)
    timeline.record("device", "FAULT", {}, 10)
    timeline.record("run", "end", {}, 30)
    timeline.finish([Event(9, "device", "fault")])
    assert [row["event"] for row in read(path)] == ["fault", "end"]


def test_event_after_the_end_is_kept_in_memory_only(path: Path) -> None:
    timeline = Timeline(path)
    timeline.finish()
    timeline.record("run", "late", {}, 1)
    assert read(path) == []
    assert [event.event for event in timeline.events()] == ["late"]


def test_text_of_the_guest_stays_on_its_line(path: Path) -> None:
    timeline = Timeline(path)
    text = 'a\n{"ns": 1}\u2028\x1b[31m'
    timeline.record("console", "line", {"text": text}, 1)
    assert path.read_bytes().count(b"\n") == 1
    assert path.read_bytes().isascii()
    assert read(path)[0]["data"]["text"] == text


def test_threads_do_not_mix_their_lines(path: Path) -> None:
    timeline = Timeline(path)

    def tell(source: str) -> None:
        for ns in range(1, 201):
            timeline.record(source, "tick", {"text": "x" * 500}, ns)

    threads = [threading.Thread(target=tell, args=(str(n),)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(read(path)) == 800


def test_mark_is_an_event_of_the_run(path: Path) -> None:
    timeline = Timeline(path)
    ns = timeline.mark("launched", pid=1)
    data = {"pid": 1}
    assert read(path) == [
        {"ns": ns, "source": "run", "event": "launched", "data": data}
    ]


def test_show_sees_every_event(path: Path) -> None:
    seen: list[Event] = []
    timeline = Timeline(path, show=seen.append)
    timeline.record("run", "a", {}, 2)
    timeline.mark("b")
    assert [event.event for event in seen] == ["a", "b"]


def test_full_disk_keeps_events_and_is_told_at_the_end(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    # A device that is always full, in the place of the disk.
    (folder / "timeline.jsonl").symlink_to("/dev/full")
    timeline = Timeline(folder / "timeline.jsonl")
    timeline.record("console", "line", {"text": "a"}, 1)
    timeline.record("console", "line", {"text": "b"}, 2)
    assert [event.data["text"] for event in timeline.events()] == ["a", "b"]
    shutil.rmtree(folder)
    with pytest.raises(UntestableError, match="cannot write"):
        timeline.finish()
