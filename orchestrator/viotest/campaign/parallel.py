# SPDX-License-Identifier: GPL-2.0-or-later
"""A run whose modes are spread over workers: :class:`ParallelExecution`.

Each worker is a process of pytest-xdist that puts the checks of one mode after another
to a guest of its own (:mod:`viotest.campaign.worker`). This process starts no guest; it
shows results as they come and merges what the workers leave.
"""

from __future__ import annotations

import os
import pickle
import signal
import time
from typing import TYPE_CHECKING

import pytest
from xdist.scheduler import LoadScopeScheduling

from viotest.campaign import checks
from viotest.campaign.causes import cause_of
from viotest.campaign.collector import RESULT, check_name
from viotest.campaign.execution import PYTEST_LOG, Outcome
from viotest.campaign.worker import JOB, REPORT, Job, Report
from viotest.errors import ViotestError
from viotest.report import results
from viotest.report.results import Category, Cause, CheckResult
from viotest.report.timeline import read_events
from viotest.suite.catalog import BY_NAME, NAMES
from viotest.suite.context import SCENARIO

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from xdist.remote import Producer
    from xdist.workermanage import WorkerController

    from viotest.campaign.plan import Plan
    from viotest.report.timeline import Timeline
    from viotest.scenario.model import Scenario


# pytest's folder of temporary files; xdist wants one, and nobody uses it.
_TMP = "tmp"


def check_of_node(nodeid: str, modes: Sequence[str]) -> tuple[str, str]:
    """Split pytest's name of a test.

    :param nodeid: ``test_data_path.py::test_dma_read[type1-4KiB]``.
    :param modes: The modes of the run.
    :return: The check's id, and its mode; empty if it does not depend on one.
    """
    check = check_name(nodeid.rpartition("::")[2])
    parameters = f"-{check.partition('[')[2].rstrip(']')}-"
    found = (mode for mode in modes if f"-{mode}-" in parameters)
    return check, next(found, "")


class ModeScheduling(LoadScopeScheduling):
    """xdist's scheduler, told that a mode is what one worker does at a time.

    ``--dist loadgroup`` would be the same without code, but xdist 3.8 cannot put its
    groups into the names of tests with pytest 9.2, and does not say so.
    """

    def __init__(
        self, config: pytest.Config, log: Producer, modes: Sequence[str]
    ) -> None:
        super().__init__(config, log)
        self._modes = modes

    def _split_scope(self, nodeid: str) -> str:
        # What belongs to no mode is done once, together with the first.
        return check_of_node(nodeid, self._modes)[1] or self._modes[0]


class ParallelExecution:
    """Puts the checks of each mode in a worker, as many at once as asked for.

    :param plan: What a guest is.
    :param folder: The run folder, made and empty.
    :param timeline: The run's; completed whatever happens.
    :param show: Called with every result as it comes.
    :param workers: How many.
    :param narrate_from_ns: For ``--verbose``; None: say nothing.
    """

    def __init__(
        self,
        plan: Plan,
        folder: Path,
        timeline: Timeline,
        show: Callable[[CheckResult], None],
        *,
        workers: int,
        narrate_from_ns: int | None = None,
    ) -> None:
        self._plan = plan
        self._folder = folder
        self._timeline = timeline
        self._workers = workers
        self._plugin = Controller(plan, folder, show, narrate_from_ns)

    def run(self) -> Outcome:
        """Start the workers, wait, merge; what breaks is kept as a loss."""
        plugin = self._plugin
        failures: list[Cause] = []
        try:
            self._put_checks()
        except KeyboardInterrupt:
            failures.append(Cause(Category.INFRA, "interrupted"))
        except ViotestError as error:
            failures.append(cause_of(error, booted=False))
        marks = {"verdict": self._timeline.mark("verdict")}
        for path in sorted(self._folder.glob("worker-*/timeline.jsonl")):
            self._timeline.merge(read_events(path))
        marks["end"] = self._timeline.mark("end")
        self._timeline.finish()
        return Outcome(
            checks=in_order(plugin.results, self._plan.scenario),
            guests=plugin.guests,
            losses=[*plugin.losses, *failures],
            not_run=plugin.not_run,
            cpu=time.process_time() + plugin.cpu,
            marks=marks,
            interrupted=plugin.interrupted,
        )

    def _put_checks(self) -> None:
        # A worker that was killed is replaced, as a guest that was lost is.
        restarts = self._plan.scenario.reboots * self._workers
        arguments = [
            *checks.suite_arguments(),
            "-p", "xdist.plugin",
            "-p", "viotest.campaign.worker",
            "--numprocesses", f"{self._workers}",
            "--dist", "loadscope",
            "--basetemp", f"{self._folder / _TMP}",
            "--max-worker-restart", f"{restarts}",
        ]  # fmt: skip
        checks.run_pytest(arguments, self._plugin, self._folder / PYTEST_LOG)


class Controller:
    """The pytest plugin on the controller's side.

    :param plan: What a guest is.
    :param folder: The run folder.
    :param show: Called with every result as it comes.
    :param narrate_from_ns: See :class:`ParallelExecution`.
    """

    def __init__(
        self,
        plan: Plan,
        folder: Path,
        show: Callable[[CheckResult], None],
        narrate_from_ns: int | None,
    ) -> None:
        self._plan = plan
        self._folder = folder
        self._show = show
        self._narrate_from_ns = narrate_from_ns
        self._pids: dict[str, int] = {}
        self._wanted: Sequence[str] = ()
        self._modes = [str(mode) for mode in plan.scenario.modes]
        self.results: list[CheckResult] = []
        self.guests: list[results.GuestRecord] = []
        self.losses: list[Cause] = []
        #: CPU seconds of the workers that have ended in good order.
        self.cpu = 0.0
        #: The user does not want to go on.
        self.interrupted = False

    @property
    def not_run(self) -> list[str]:
        """Ids of the checks that were to be put and have no result."""
        done = {result.id for result in self.results}
        wanted = (check_of_node(n, self._modes)[0] for n in self._wanted)
        return [check for check in wanted if check not in done]

    @pytest.hookimpl(tryfirst=True)
    def pytest_configure(self, config: pytest.Config) -> None:
        """Tell viotest's plugin which scenario it is."""
        config.stash[SCENARIO] = self._plan.scenario

    @pytest.hookimpl(wrapper=True)
    def pytest_sessionstart(self) -> Iterator[None]:
        """Remove the folder that xdist has made, and only needed the name of."""
        result = yield
        (self._folder / _TMP).rmdir()
        return result

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_make_scheduler(
        self, config: pytest.Config, log: Producer
    ) -> ModeScheduling:
        """Give a worker one mode at a time."""
        return ModeScheduling(config, log, self._modes)

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: WorkerController) -> None:
        """Give a worker its job."""
        name = node.gateway.id
        job = Job(self._plan, self._folder, name, os.getpid(), self._narrate_from_ns)
        node.workerinput[JOB] = pickle.dumps(job)
        # xdist has asked for it already, so that this is only a look.
        self._pids[name] = node.gateway._rinfo().pid

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, ids: Sequence[str]) -> None:
        """Learn what is to be done; every worker says the same."""
        self._wanted = ids

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take the results that a report carries."""
        for key, value in report.user_properties:
            if key == RESULT:
                assert isinstance(value, bytes)
                self._take(pickle.loads(value))

    @pytest.hookimpl(optionalhook=True)
    def pytest_handlecrashitem(self, crashitem: str, report: object) -> None:
        """Make a result of the check that took its worker along."""
        node: WorkerController = report.node  # type: ignore[attr-defined]
        name = node.gateway.id
        check, mode = check_of_node(crashitem, self._modes)
        entry = BY_NAME[check.partition("[")[0]]
        self._take(
            CheckResult(
                id=check,
                name=entry.name,
                outcome=results.Outcome.ERROR,
                required=entry.required,
                mode=mode,
                seconds=0.0,
                reason=f"worker {name} died in this check",
                details=f"what it left is in worker-{name}",
                guest=f"worker-{name}",
            )
        )

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: WorkerController, error: object) -> None:
        """Take the last words of a worker."""
        name = node.gateway.id
        self._pids.pop(name, None)
        packed = getattr(node, "workeroutput", {}).get(REPORT)
        if packed is None:
            self._lose(name, str(error or "it said nothing at its end"))
            return
        report: Report = pickle.loads(packed)
        self.cpu += report.cpu
        self.guests += report.guests
        for guest in report.guests:
            if guest.lost is not None:
                self.losses.append(_named(guest.lost, name, guest.modes))
        self.losses += [_named(cause, name, ()) for cause in report.failures]

    @pytest.hookimpl(tryfirst=True)
    def pytest_keyboard_interrupt(
        self, excinfo: pytest.ExceptionInfo[BaseException]
    ) -> None:
        """Pass the user's interrupt on, in case that only this process heard it."""
        self.interrupted = excinfo.type is KeyboardInterrupt
        for pid in self._pids.values():
            _interrupt(pid)

    def _take(self, result: CheckResult) -> None:
        self.results.append(result)
        self._show(result)

    def _lose(self, name: str, how: str) -> None:
        text = f"worker {name} died: {how.splitlines()[-1]}"
        self.losses.append(Cause(Category.INFRA, text))
        record = results.GuestRecord(
            folder=f"worker-{name}",
            worker=name,
            modes=(),
            booted=False,
            lost=self.losses[-1],
        )
        self.guests.append(record)


def _interrupt(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGINT)
    except ProcessLookupError:
        return  # it was quicker


def _named(cause: Cause, worker: str, modes: Sequence[str]) -> Cause:
    where = f"worker {worker}"
    if modes:
        where += f", mode {', '.join(modes)}"
    return Cause(cause.category, f"{cause.text} ({where})", cause.console)


def in_order(found: Sequence[CheckResult], scenario: Scenario) -> list[CheckResult]:
    """Sort results as a run without workers has them: by mode, then by catalog."""
    modes = ["", *scenario.modes]
    return sorted(
        found, key=lambda check: (modes.index(check.mode), NAMES.index(check.name))
    )
