# SPDX-License-Identifier: GPL-2.0-or-later
"""The part of a run in which processes exist: :class:`Execution`.

:class:`~viotest.campaign.parallel.ParallelExecution` is the same over workers.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from viotest.campaign.causes import cause_of
from viotest.campaign.guests import Guests
from viotest.errors import UsageError, ViotestError
from viotest.interrupts import INTERRUPTS
from viotest.report.results import Category, Cause

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from viotest.campaign.plan import Plan
    from viotest.report.results import CheckResult, GuestRecord
    from viotest.report.timeline import Timeline

PYTEST_LOG = "pytest.log"


@dataclass
class Outcome:
    """What an execution came to; complete however it ended."""

    checks: list[CheckResult] = field(default_factory=list)
    guests: Sequence[GuestRecord] = ()
    #: What ended guests early, kept them from starting, or ended all.
    losses: list[Cause] = field(default_factory=list)
    #: Ids of the checks that there was no guest for.
    not_run: Sequence[str] = ()
    #: CPU seconds of the orchestrator.
    cpu: float = 0.0
    #: CLOCK_MONOTONIC nanoseconds of ``verdict`` and ``end``.
    marks: dict[str, int] = field(default_factory=dict)
    #: The user did not want to wait for the end.
    interrupted: bool = False


class Executing(Protocol):
    """Something that carries a run out."""

    def run(self) -> Outcome:
        """Boot, check, end; what breaks is kept as a loss."""


class Execution:
    """Puts all checks in this process, to one guest at a time.

    :param plan: What a guest is.
    :param folder: The run folder, made and empty.
    :param timeline: The run's; completed whatever happens.
    :param show: Called with every result as it comes.
    """

    def __init__(
        self,
        plan: Plan,
        folder: Path,
        timeline: Timeline,
        show: Callable[[CheckResult], None],
    ) -> None:
        self._folder = folder
        self._timeline = timeline
        self._show = show
        self._guests = Guests(plan, folder, timeline)
        self._outcome = Outcome()

    def run(self) -> Outcome:
        """Boot, check, end; what breaks is kept as a loss."""
        outcome, guests = self._outcome, self._guests
        try:
            with INTERRUPTS.deferred(), guests:
                guests.start()
                self._put_checks()
                outcome.marks["verdict"] = self._timeline.mark("verdict")
                outcome.cpu = time.process_time()
                guests.finish()
        except KeyboardInterrupt:
            outcome.interrupted = True
            guests.failures.append(Cause(Category.INFRA, "interrupted"))
        except UsageError:
            raise
        except ViotestError as error:
            booted = bool(guests.records) and guests.records[-1].booted
            guests.failures.append(cause_of(error, booted=booted))
        finally:
            outcome.marks["end"] = self._timeline.mark("end")
            self._timeline.finish(guests.late)
        outcome.guests = guests.records
        # A teardown that went wrong does not make the first cause unsaid.
        outcome.losses = guests.losses
        return outcome

    def _put_checks(self) -> None:
        # Late: the guest boots while Python imports pytest.
        from viotest.campaign import checks

        log = self._folder / PYTEST_LOG
        put = checks.put_checks
        self._outcome.not_run = put(self._guests, show=self._take, log=log)

    def _take(self, result: CheckResult) -> None:
        self._outcome.checks.append(result)
        self._show(result)
