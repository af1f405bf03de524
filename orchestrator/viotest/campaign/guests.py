# SPDX-License-Identifier: GPL-2.0-or-later
"""The guests of a run, one after the other: :class:`Guests`.

Most runs have one. Another takes its place when it is lost, or when its kernel has
complained and nobody knows what its next answer is worth.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Self

from viotest.campaign.plan import SCENARIO_FILE
from viotest.campaign.session import Session
from viotest.errors import ViotestError
from viotest.guest.kernel_log import find_splats
from viotest.report.device_log import timeline_events
from viotest.report.results import GuestRecord
from viotest.report.timeline import Event

if TYPE_CHECKING:
    from viotest.campaign.plan import Plan
    from viotest.report.results import Cause
    from viotest.report.timeline import Timeline
    from viotest.scenario.model import Scenario


class Guests:
    """Starts a guest, replaces it when asked to, and ends the last one.

    As a context manager it ends what still runs: asking first, or killing when an
    exception passes.

    :param plan: What each guest is.
    :param root: The run folder.
    :param timeline: Where everything that happens is put down.
    :param worker: The xdist worker that this is; empty without any. Its guests live in
        a folder of that name.
    """

    def __init__(
        self, plan: Plan, root: Path, timeline: Timeline, *, worker: str = ""
    ) -> None:
        self._plan = plan
        self._root = root
        self._worker = worker
        self._modes: dict[str, None] = {}
        self.timeline = timeline
        #: The guest to put checks to; None before the first and after the last.
        self.session: Session | None = None
        #: What became of those that have ended.
        self.records: list[GuestRecord] = []
        #: What they kept for themselves until their end.
        self.late: list[Event] = []
        #: Why there could not be another one.
        self.failures: list[Cause] = []

    @property
    def losses(self) -> list[Cause]:
        """Everything that ended a guest early, or kept one from starting."""
        return [r.lost for r in self.records if r.lost is not None] + self.failures

    @property
    def scenario(self) -> Scenario:
        """What was asked for."""
        return self._plan.scenario

    @property
    def folder(self) -> str:
        """The current guest's folder, relative to the run folder."""
        number = len(self.records) + 1
        path = Path(f"worker-{self._worker}" if self._worker else "")
        path = path / f"guest-{number}" if number > 1 else path
        return "" if path == Path() else str(path)

    @property
    def command(self) -> str:
        """What repeats the run, and takes further options."""
        return f"viotest run --config {self._root / SCENARIO_FILE}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        if self.session is not None:
            self._end(exc)

    def start(self) -> Session:
        """Start a guest; none may be there.

        :raise LaunchError: When it does not come up.
        """
        assert self.session is None
        folder = self._root / self.folder
        folder.mkdir(mode=0o700, exist_ok=True)
        if self.records:
            self.timeline.record("run", "guest", {"folder": self.folder}, 0)
        session = Session(self._plan, folder, self.timeline)
        try:
            session.__enter__()
        except BaseException:
            self._keep(session, ())
            raise
        self.session = session
        return session

    def use(self, mode: str) -> None:
        """Note that the current guest is put a check of a mode."""
        if mode:
            self._modes[mode] = None

    def finish(self) -> None:
        """End the guest, if there is one, and keep what it has to tell.

        :raise ViotestError: When it does not end as it should.
        """
        if self.session is not None:
            self._end((None, None, None))

    def renew(self) -> Session:
        """End the guest and start the next.

        :raise LaunchError: When the new one does not come up.
        """
        # It is given up; how it ends says nothing that is not known.
        try:
            self.finish()
        except ViotestError as error:
            data = {"reason": str(error)}
            self.timeline.record("run", "guest-end-failed", data, 0)
        return self.start()

    def _end(self, exc: tuple[object, ...]) -> None:
        session, self.session = self.session, None
        assert session is not None
        splats: tuple[str, ...] = ()
        cpu = session.cpu_seconds()
        try:
            with contextlib.ExitStack() as stack:
                stack.push(lambda *passing: session.__exit__(*_first(exc, passing)))
                if exc[0] is None:
                    splats = self._last_words(session)
        finally:
            self._keep(session, splats, cpu)

    def _last_words(self, session: Session) -> tuple[str, ...]:
        session.tie_clock()
        log = session.guest_dmesg()
        self.late += [Event(ns, "dmesg", "line", {"text": text}) for ns, text in log]
        # Before the first check nobody is to blame; but it should be seen.
        until = session.marks.get("first-check", 0)
        boot = [text for ns, text in log if ns < until]
        return tuple(splat.what for splat in find_splats(boot))

    def _keep(
        self,
        session: Session,
        splats: tuple[str, ...],
        cpu: dict[str, float] | None = None,
    ) -> None:
        counters = None
        with contextlib.suppress(ViotestError):  # the device never came up
            log = session.device_log()
            counters = log.counters()
            self.late += timeline_events(log)
        record = GuestRecord(
            folder=self.folder,
            worker=self._worker,
            modes=tuple(self._modes),
            booted=session.booted,
            lost=session.broken,
            marks=dict(session.marks),
            clock=dict(session.clock),
            cpu=cpu or {},
            counters=counters,
            splats=splats,
        )
        self.records.append(record)
        self._modes.clear()


def _first(exc: tuple[object, ...], passing: tuple[object, ...]) -> tuple[object, ...]:
    return exc if exc[0] is not None else passing
