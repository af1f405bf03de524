# SPDX-License-Identifier: GPL-2.0-or-later
"""A worker of a run: the pytest plugin that gives an xdist worker its own guests.

The controller's side is :mod:`viotest.campaign.parallel`. The two share an interpreter
and a version, so they speak in pickles: a :class:`Job` on the way here, results (with
pytest's reports) and a :class:`Report` on the way back.
"""

from __future__ import annotations

import contextlib
import pickle
import signal
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from viotest.campaign.causes import cause_of
from viotest.campaign.collector import Collector
from viotest.campaign.guests import Guests
from viotest.campaign.proc import die_with
from viotest.errors import ViotestError
from viotest.report.summary import Narrator
from viotest.report.timeline import Timeline

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from types import FrameType

    from viotest.campaign.plan import Plan
    from viotest.report.results import Cause, GuestRecord

#: The keys of xdist's ``workerinput`` and ``workeroutput``.
JOB = "viotest_job"
REPORT = "viotest_report"


@dataclass(frozen=True)
class Job:
    """What the controller tells a worker."""

    plan: Plan
    #: The run folder.
    folder: Path
    #: ``gw0``.
    name: str
    #: The process that must outlive this one.
    parent_pid: int
    #: Where time begins, for ``--verbose``; None: say nothing.
    narrate_from_ns: int | None

    @property
    def own_folder(self) -> Path:
        """Where the worker's guests live."""
        return self.folder / f"worker-{self.name}"


@dataclass(frozen=True)
class Report:
    """What a worker that has ended in good order tells the controller."""

    guests: Sequence[GuestRecord]
    failures: Sequence[Cause]
    cpu: float


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Become a worker, if this process is one."""
    packed = getattr(config, "workerinput", {}).get(JOB)
    if packed is None:
        return
    job = pickle.loads(packed)
    # Else a worker whose controller was killed would go on for many seconds.
    die_with(job.parent_pid)
    _hear_one_interrupt()
    job.own_folder.mkdir(mode=0o700)
    # Ours goes to a pipe that xdist ignores.
    log = (job.own_folder / "pytest.log").open("w")
    sys.stdout = log
    config.pluginmanager.register(_Worker(job))


class _Worker:
    def __init__(self, job: Job) -> None:
        start = job.narrate_from_ns
        self._timeline = Timeline(
            job.own_folder / "timeline.jsonl",
            show=None if start is None else Narrator(start),
            worker=job.name,
        )
        self._guests = Guests(job.plan, job.folder, self._timeline, worker=job.name)
        self._collector = Collector(self._guests, lambda result: None)

    @pytest.hookimpl(tryfirst=True)
    def pytest_configure(self, config: pytest.Config) -> None:
        config.pluginmanager.register(self._collector)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        guests = self._guests
        interrupted = KeyboardInterrupt if self._collector.interrupted else None
        try:
            # Killed without being asked, if somebody is in a hurry.
            with guests, contextlib.ExitStack() as hurry:
                if interrupted is not None:
                    hurry.callback(_raise, interrupted)
                else:
                    guests.finish()
        except KeyboardInterrupt:
            pass
        except ViotestError as error:
            guests.failures.append(cause_of(error, booted=True))
        finally:
            self._timeline.finish(guests.late)
        report = Report(guests.records, guests.failures, time.process_time())
        session.config.workeroutput[REPORT] = pickle.dumps(report)  # type: ignore[attr-defined]


def _raise(kind: type[BaseException]) -> None:
    raise kind


def _hear_one_interrupt() -> None:
    # Ctrl-C reaches every process of the terminal, and the controller sends another
    # in case it did not: the second must not tear the clean-up of the first apart.
    def interrupt(number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, interrupt)
