# SPDX-License-Identifier: GPL-2.0-or-later
"""``viotest run -n``: modes over workers, one guest each, merged into one run."""

from __future__ import annotations

import os
import signal
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.functional.harness import children, wait_for
from tests.functional.test_cleanup import expect_interrupted

if TYPE_CHECKING:
    from tests.functional.harness import Run, Viotest

TWO = ("-n", "2", "--mode", "type1", "--mode", "type1v2")
MODES = ("type1", "type1v2")
#: Quick checks, one of which belongs to no mode.
FEW = ("--check", "bind", "--check", "open", "--check", "bar", "--check", "dma-*")


def test_two_modes_at_once_make_one_run(viotest: Viotest) -> None:
    done = viotest.run(*TWO, *FEW)
    results = done.expect("PASS", 0)
    # The same, in the same order, as without workers.
    ids = [check["id"] for check in results["checks"]]
    assert ids[0] == "bind"
    half = len(ids) // 2
    assert [i.replace("type1", "M") for i in ids[1 : half + 1]] == [
        i.replace("type1v2", "M") for i in ids[half + 1 :]
    ]
    assert results["not_run"] == []
    # One guest for each worker, one mode for each guest.
    folders = {
        mode: {c["guest"] for c in results["checks"] if c["mode"] == mode}
        for mode in MODES
    }
    guests = {guest["folder"]: guest["modes"] for guest in results["guests"]}
    assert sorted(guests) == ["worker-gw0", "worker-gw1"]
    assert all(guests[folder] == [mode] for mode in MODES for folder in folders[mode])
    assert all((done.out / folder / "device.bin").is_file() for folder in guests)
    rows = [line.split()[:2] for line in done.lines if line.startswith("  pass")]
    assert sorted(row[1] for row in rows) == sorted(ids)
    suite = ET.parse(done.out / "junit.xml").getroot()[0]
    assert [case.get("name") for case in suite] == ids


def test_timeline_of_workers_is_one(viotest: Viotest) -> None:
    done = viotest.run(*TWO, "--check", "open")
    done.expect("PASS", 0)
    stamps = [event["ns"] for event in done.timeline]
    assert stamps == sorted(stamps)
    workers = {event.get("worker", "") for event in done.timeline}
    assert workers == {"", "gw0", "gw1"}
    for worker in ("gw0", "gw1"):
        own = {e["source"] for e in done.timeline if e.get("worker") == worker}
        assert own >= {"check", "console", "device", "dmesg", "guest", "run"}
    device = done.results["device"]
    for kind in ("attach", "map", "unmap"):
        assert len(done.events("device", kind)) == device["requests"][kind]


def worker_of(run: Run, mode: str) -> int:
    """Return the process of the worker that has the checks of a mode."""

    def look() -> int | None:
        for pid in children(run.popen.pid):
            for path in run.out.glob("worker-*/timeline.jsonl"):
                cwd = {Path(f"/proc/{child}/cwd").readlink() for child in children(pid)}
                if path.parent in cwd and f"open[{mode}]" in path.read_text():
                    return pid
        return None

    return wait_for(look, f"worker of {mode}")


def test_killed_worker_costs_one_check_and_no_other_mode(viotest: Viotest) -> None:
    run = viotest.start(*TWO, *FEW)
    run.wait_for_line(r"pass +open\[type1v2\]")
    os.kill(worker_of(run, "type1v2"), signal.SIGKILL)
    done = run.finish()
    results = done.expect("UNTESTED", 125)
    assert results["cause"]["category"] == "infra"
    wrong = [c for c in results["checks"] if c["outcome"] != "pass"]
    (lost,) = wrong
    assert lost["outcome"] == "error"
    assert lost["mode"] == "type1v2"
    assert "died in this check" in lost["reason"]
    assert results["cause"]["text"].startswith("worker gw")
    # The rest of its mode was put to another worker's guest.
    assert results["not_run"] == []
    assert {c["mode"] for c in results["checks"]} == {"", *MODES}


@pytest.mark.parametrize("whom", ["all", "controller"])
def test_interrupt_ends_workers_too(viotest: Viotest, whom: str) -> None:
    run = viotest.start(*TWO)
    run.wait_for_line(r"pass +bar")
    if whom == "all":
        os.killpg(run.popen.pid, signal.SIGINT)
    else:
        run.popen.send_signal(signal.SIGTERM)
    expect_interrupted(viotest, run)


def test_killed_controller_takes_workers_with_it(viotest: Viotest) -> None:
    run = viotest.start(*TWO)
    run.wait_for_line(r"pass +bar")
    run.popen.kill()
    run.finish()
    viotest.expect_gone()
