# SPDX-License-Identifier: GPL-2.0-or-later
"""What the workers of a run leave is merged into one run."""

from __future__ import annotations

import pickle
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest

from viotest.campaign.collector import RESULT
from viotest.campaign.execution import Outcome as Execution
from viotest.campaign.parallel import Controller, check_of_node, in_order
from viotest.campaign.run import run_result, workers_of
from viotest.campaign.worker import JOB, REPORT, Job, Report
from viotest.report.device_log import COUNTERS, add_counters
from viotest.report.results import (
    Category,
    Cause,
    CheckResult,
    GuestRecord,
    Outcome,
    Verdict,
    judge,
)
from viotest.report.timeline import Event, Timeline, read_events
from viotest.scenario.model import Accel, Mode, Scenario
from viotest.scenario.options import Settings

if TYPE_CHECKING:
    from pathlib import Path

    from xdist.workermanage import WorkerController

    from viotest.campaign.accel import AccelChoice
    from viotest.campaign.plan import Plan

BOTH = Scenario(modes=(Mode.TYPE1, Mode.TYPE1V2))


def check(name: str, mode: str, outcome: Outcome = Outcome.PASS) -> CheckResult:
    suffix = f"[{mode}]" if mode else ""
    return CheckResult(f"{name}{suffix}", name, outcome, True, mode, 0.1, "why")


def guest(worker: str, mode: str, lost: Cause | None = None) -> GuestRecord:
    return GuestRecord(
        folder=f"worker-{worker}",
        worker=worker,
        modes=(mode,),
        booted=True,
        lost=lost,
        marks={"beacon": 3_000_000_000 if worker == "gw0" else 2_000_000_000},
        cpu={"device": 1.0, "qemu": 2.0},
        counters=dict.fromkeys(COUNTERS, 5),
    )


@pytest.mark.parametrize(
    ("nodeid", "expected"),
    [
        ("test_a.py::test_bind", ("bind", "")),
        ("test_a.py::test_dma_read[type1-4KiB]", ("dma-read[type1-4KiB]", "type1")),
        ("a/test_a.py::test_open[type1v2]", ("open[type1v2]", "type1v2")),
        ("test_a.py::test_open[4KiB-type1v2]", ("open[4KiB-type1v2]", "type1v2")),
        ("test_a.py::test_size[4KiB]", ("size[4KiB]", "")),
    ],
)
def test_name_of_a_test_tells_check_and_mode(
    nodeid: str, expected: tuple[str, str]
) -> None:
    assert check_of_node(nodeid, ["type1", "type1v2"]) == expected


def test_results_are_in_the_order_of_a_run_without_workers() -> None:
    found = [
        check("flr", "type1v2"),
        check("open", "type1"),
        check("open", "type1v2"),
        check("bind", ""),
        check("flr", "type1"),
    ]
    assert [one.id for one in in_order(found, BOTH)] == [
        "bind",
        "open[type1]",
        "flr[type1]",
        "open[type1v2]",
        "flr[type1v2]",
    ]


class Bench:
    """A controller, and workers that say what they are told to."""

    def __init__(self, folder: Path) -> None:
        self.shown: list[CheckResult] = []
        plan = cast("Plan", SimpleNamespace(scenario=BOTH))
        self.controller = Controller(plan, folder, self.shown.append, None)

    def node(self, name: str, report: Report | None = None) -> WorkerController:
        output = {} if report is None else {REPORT: pickle.dumps(report)}
        gateway = SimpleNamespace(id=name, _rinfo=lambda: SimpleNamespace(pid=1 << 30))
        node = SimpleNamespace(gateway=gateway, workerinput={}, workeroutput=output)
        return cast("WorkerController", node)

    def report(self, *results: CheckResult) -> None:
        properties = [("other", "x"), *((RESULT, pickle.dumps(r)) for r in results)]
        report = SimpleNamespace(user_properties=properties)
        self.controller.pytest_runtest_logreport(cast("pytest.TestReport", report))


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_worker_is_told_its_job(bench: Bench, tmp_path: Path) -> None:
    node = bench.node("gw1")
    bench.controller.pytest_configure_node(node)
    job: Job = pickle.loads(node.workerinput[JOB])
    assert job.own_folder == tmp_path / "worker-gw1"


def test_results_are_shown_as_they_come(bench: Bench) -> None:
    bench.controller.pytest_xdist_node_collection_finished(
        ["t.py::test_open[type1]", "t.py::test_open[type1v2]"]
    )
    bench.report()
    bench.report(check("open", "type1v2"))
    assert bench.shown == bench.controller.results == [check("open", "type1v2")]
    assert bench.controller.not_run == ["open[type1]"]


def test_lost_guest_is_named_with_worker_and_mode(bench: Bench) -> None:
    lost = Cause(Category.INFRA, "QEMU was killed by SIGKILL", ("console",))
    report = Report([guest("gw1", "type1v2", lost)], [], 1.5)
    bench.controller.pytest_testnodedown(bench.node("gw1", report), None)
    bench.controller.pytest_testnodedown(
        bench.node("gw0", Report([guest("gw0", "type1")], [], 1.0)), None
    )
    (loss,) = bench.controller.losses
    assert loss.text == "QEMU was killed by SIGKILL (worker gw1, mode type1v2)"
    assert loss.console == ("console",)
    assert bench.controller.cpu == 2.5
    assert len(bench.controller.guests) == 2


def test_worker_that_died_is_a_loss_and_an_error_of_its_check(bench: Bench) -> None:
    node = bench.node("gw0")
    bench.controller.pytest_testnodedown(node, "a\nNot properly terminated")
    bench.controller.pytest_handlecrashitem(
        "t.py::test_dma_read[type1-4KiB]", SimpleNamespace(node=node)
    )
    assert bench.controller.losses == [
        Cause(Category.INFRA, "worker gw0 died: Not properly terminated")
    ]
    (result,) = bench.shown
    assert (result.id, result.mode) == ("dma-read[type1-4KiB]", "type1")
    assert result.outcome is Outcome.ERROR
    assert "gw0" in result.reason


def outcome_of(bench: Bench) -> Execution:
    controller = bench.controller
    return Execution(
        checks=controller.results,
        guests=controller.guests,
        losses=controller.losses,
        not_run=controller.not_run,
        cpu=controller.cpu,
        marks={"verdict": 4_000_000_000, "end": 5_000_000_000},
    )


PLAN = cast(
    "Plan",
    SimpleNamespace(
        scenario=BOTH,
        assets=SimpleNamespace(
            qemu=SimpleNamespace(version="11.1.3", origin="x"),
            kernel=SimpleNamespace(spec="x", release="6.12", pvh=True),
        ),
    ),
)
CHOICE = cast("AccelChoice", SimpleNamespace(chosen=Accel.TCG, reason="asked for"))


def test_run_is_the_sum_of_its_workers(bench: Bench) -> None:
    for name, mode in (("gw0", "type1"), ("gw1", "type1v2")):
        report = Report([guest(name, mode)], [], 1.0)
        bench.controller.pytest_testnodedown(bench.node(name, report), None)
    bench.report(check("open", "type1"))
    result = run_result(outcome_of(bench), PLAN, CHOICE, 0)
    assert result.phases == {"beacon": 2.0, "verdict": 4.0, "end": 5.0}
    assert result.cpu == {"orchestrator": 2.0, "device": 2.0, "qemu": 4.0}
    assert result.device is not None
    assert result.device["kicks"] == 10
    assert result.device["request_max_ns"] == 5
    guests = result.to_json()["guests"]
    assert isinstance(guests, list)
    assert [g["folder"] for g in guests] == ["worker-gw0", "worker-gw1"]


def test_lost_worker_makes_the_run_untested(bench: Bench) -> None:
    bench.controller.pytest_testnodedown(bench.node("gw0"), None)
    bench.report(check("open", "type1v2"))
    result = run_result(outcome_of(bench), PLAN, CHOICE, 0)
    assert result.verdict is Verdict.UNTESTED
    assert result.cause is not None
    assert "worker gw0 died" in result.cause.text


def test_failure_in_one_mode_outweighs_a_lost_worker(bench: Bench) -> None:
    bench.controller.pytest_testnodedown(bench.node("gw0"), None)
    bench.report(check("open", "type1v2", Outcome.FAIL))
    result = run_result(outcome_of(bench), PLAN, CHOICE, 0)
    assert result.verdict is Verdict.FAIL
    assert result.cause is not None
    assert result.cause.text == "open[type1v2]: why"


def test_check_that_nobody_put_is_no_pass() -> None:
    passed = [check("open", "type1")]
    verdict, cause = judge(passed, [], None, not_run=["open[a]", "flr[a]"])
    assert verdict is Verdict.UNTESTED
    assert cause == Cause(Category.INFRA, "open[a] did not run, nor did 1 more")


def test_no_more_workers_than_modes() -> None:
    assert workers_of(Settings(BOTH, workers=8)) == 2
    assert workers_of(Settings(BOTH)) == 1
    assert workers_of(Settings(Scenario(), workers=8)) == 1


def test_longest_request_of_all_devices_is_not_a_sum() -> None:
    one = dict.fromkeys(COUNTERS, 1)
    total = add_counters([one, one | {"request-max-ns": 7}])
    assert total.pop("request-max-ns") == 7
    assert set(total.values()) == {2}


def test_timelines_of_workers_merge_in_order(tmp_path: Path) -> None:
    own = Timeline(tmp_path / "own.jsonl", worker="gw0")
    own.record("check", "start", {"id": "x"}, 20)
    own.finish([Event(30, "device", "map")])
    run = Timeline(tmp_path / "run.jsonl")
    run.record("run", "start", {}, 10)
    run.record("run", "end", {}, 25)
    run.merge(read_events(tmp_path / "own.jsonl"))
    run.finish()
    seen = [(e.ns, e.source, e.worker) for e in read_events(tmp_path / "run.jsonl")]
    assert seen == [
        (10, "run", ""),
        (20, "check", "gw0"),
        (25, "run", ""),
        (30, "device", "gw0"),
    ]


def test_timeline_of_a_killed_worker_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    path = tmp_path / "timeline.jsonl"
    path.write_text(Event(1, "run", "start").to_json() + '\n{"ns": 2, "sou')
    assert [event.ns for event in read_events(path)] == [1]
    assert not list(read_events(tmp_path / "none"))
