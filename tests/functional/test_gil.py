# SPDX-License-Identifier: GPL-2.0-or-later
"""The device's Python stands still for 5 s, and the guest does not notice."""

from __future__ import annotations

import os
import re
import signal
import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.functional.gil_holder import HOLD_SECONDS
from tests.functional.harness import children, wait_for, words
from viotest.campaign import plan as plan_module
from viotest.campaign.run import prepare
from viotest.campaign.session import Session
from viotest.machine import names
from viotest.provision.progress import SilentProgress
from viotest.report.timeline import Timeline
from viotest.scenario.model import Accel, Mode, Scenario
from viotest.suite.binding import bind
from viotest.suite.passthrough import PAGE, Passthrough

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from viotest.report.device_log import DeviceRecord

_HOLDER = Path(__file__).with_name("gil_holder.py")
KINDS = ("map", "unmap", "dma")


@pytest.fixture
def session(
    assets: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Session]:
    """A guest whose device can be made to hold its GIL."""
    command = [sys.executable, os.fspath(_HOLDER)]
    monkeypatch.setattr(plan_module, "device_command", lambda: command)
    plan, _ = prepare(Scenario(accel=Accel.TCG), SilentProgress())
    with Session(plan, tmp_path, Timeline(tmp_path / "timeline.jsonl")) as session:
        yield session


def map_and_dma(pt: Passthrough, until_ns: int) -> None:
    """Map, write by DMA, unmap and be refused, over and over."""
    pt.buffer("page", PAGE, byte=0)
    while time.monotonic_ns() < until_ns:
        iova = pt.fresh_iova(PAGE)
        pt.map("page", iova)
        pt.expect_dma("fill", iova, PAGE, operand=time.monotonic_ns() & 0xFF)
        pt.unmap(iova, PAGE)
    pt.free("page")


def find_device(folder: Path) -> int:
    """Return the process id of the device that works in a folder."""
    [pid] = [pid for pid in children(os.getpid()) if b"serve" in words(pid)]
    assert Path(f"/proc/{pid}/cwd").samefile(folder)
    return pid


def stamp(folder: Path, what: str) -> int:
    """Wait for the holder's word; return its stamp."""

    def look() -> int | None:
        text = (folder / names.DEVICE_OUTPUT).read_text()
        found = re.search(rf"^GIL {what} (\d+)$", text, re.MULTILINE)
        return int(found[1]) if found else None

    return wait_for(look, f"GIL {what}", timeout=HOLD_SECONDS + 10)


def durations(records: Sequence[DeviceRecord], kind: str) -> list[int]:
    return [record.duration_ns for record in records if record.kind == kind]


def test_python_that_stands_still_slows_no_request(
    session: Session, tmp_path: Path
) -> None:
    probe = session.probe()
    endpoint = session.topology.endpoints[0]
    assert bind(probe, endpoint, traced=False).error is None
    pt = Passthrough(probe, endpoint, Mode.TYPE1V2)
    pt.open()
    first = time.monotonic_ns()
    map_and_dma(pt, first + 2 * 10**9)
    os.kill(find_device(tmp_path), signal.SIGUSR1)
    begin = stamp(tmp_path, "held")
    # Until just before the end, so that all of it falls into the window.
    map_and_dma(pt, begin + (HOLD_SECONDS * 10**9) * 9 // 10)
    done = time.monotonic_ns()
    pt.close()
    end = stamp(tmp_path, "free")
    assert end - begin >= HOLD_SECONDS * 10**9
    assert done < end, "the guest had to wait for Python"
    session.check_alive()
    records = list(session.device_log().records())
    before = [record for record in records if first <= record.ns < begin]
    during = [record for record in records if begin <= record.ns < done]
    for kind in KINDS:
        usual, held = durations(before, kind), durations(during, kind)
        # As busy as before, for longer; and nobody waited for the end.
        assert len(held) > len(usual) > 10, kind
        assert statistics.median(held) < 3 * statistics.median(usual), kind
        assert max(held) < (end - begin) / 10, kind
