# SPDX-License-Identifier: GPL-2.0-or-later
"""The pytest plugin that turns the suite's tests into check results.

It orders and selects the checks, gives each a deadline, and translates how each
ended: into pass, fail, skip, or an error that says nothing about the kernel.
"""

from __future__ import annotations

import fnmatch
import time
from typing import TYPE_CHECKING

import pytest

from viotest.campaign.causes import blames_guest, cause_of
from viotest.errors import ViotestError
from viotest.guest.probe import ProbeError
from viotest.report.results import CheckResult, Outcome
from viotest.scenario.model import Phase
from viotest.suite.catalog import NAMES, check_of_test
from viotest.suite.context import CONTEXT, SCENARIO
from viotest.suite.judgement import CheckFailed, refused

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from viotest.campaign.session import Session
    from viotest.scenario.model import Scenario
    from viotest.suite.catalog import Check

#: The watch recognises a dead process within 100 ms.
_LOSS_NEWS = 0.2
# So many times the deadline of a check is that of a slow one.
_SLOW_SCALE = 4.0


def check_of(item: pytest.Item) -> Check:
    """Return the catalog's entry of a test of the suite."""
    return check_of_test(getattr(item, "originalname", item.name))


def check_id(item: pytest.Item) -> str:
    """Return a check's id: its name, and its parameters in brackets."""
    _, bracket, parameters = item.name.partition("[")
    return check_of(item).name + bracket + parameters


class Collector:
    """Runs beside the suite, in the same process.

    :param session: The guest.
    :param show: Called with every result as it comes.
    """

    def __init__(self, session: Session, show: Callable[[CheckResult], None]) -> None:
        self._session = session
        self._show = show
        self._started = 0.0
        self.results: list[CheckResult] = []
        #: The user does not want to go on.
        self.interrupted = False

    def pytest_configure(self, config: pytest.Config) -> None:
        """Tell the suite which scenario it is, and whose guest."""
        config.stash[SCENARIO] = self._session.scenario
        config.stash[CONTEXT] = self._session

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(
        self, config: pytest.Config, items: list[pytest.Item]
    ) -> None:
        """Keep the checks that were asked for: by mode, then as in the catalog."""
        scenario = self._session.scenario
        wanted = [
            item
            for item in items
            # pytest leaves one item of a test whose modes are none of this run's.
            if check_of(item).modes_among(scenario.modes) and _is_wanted(item, scenario)
        ]
        modes = ["", *scenario.modes]
        wanted.sort(
            key=lambda item: (
                modes.index(_mode(item)),
                NAMES.index(check_of(item).name),
            )
        )
        dropped = [item for item in items if item not in wanted]
        config.hook.pytest_deselected(items=dropped)
        items[:] = wanted

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        """Put the whole check, fixtures included, on the timeline."""
        self._session.timeline.record("check", "start", {"id": check_id(item)}, 0)
        return (yield)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self) -> None:
        """Wait for the guest, so that its boot is not taken for the first check's."""
        self._started = time.monotonic()
        self._session.probe()
        if not self.results:
            self._session.mark("first-check")
        self._started = time.monotonic()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Iterator[None]:
        """Give the check its deadline, and notice a guest that died quietly."""
        try:
            scale = _SLOW_SCALE if check_of(item).slow else 1.0
            with self._session.phase(Phase.CHECK, scale=scale):
                result = yield
        except (CheckFailed, ProbeError):
            # A dead device answers all ones and moves nothing: what looks like the
            # kernel's failure may be the first that is seen of that.
            self._session.check_alive(timeout=_LOSS_NEWS)
            raise
        self._session.check_alive()
        return result

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Iterator[None]:
        """Take down how a part of a check ended."""
        report = yield
        error = call.excinfo.value if call.excinfo else None
        if call.when == "call" or error is not None:
            self._take(item, call, error)
        if self._session.broken is not None:
            item.session.shouldstop = "the guest is lost"
        return report

    def pytest_keyboard_interrupt(
        self, excinfo: pytest.ExceptionInfo[BaseException]
    ) -> None:
        """Tell the user's interrupt from pytest's own, which is a subclass."""
        self.interrupted = excinfo.type is KeyboardInterrupt

    def _take(
        self,
        item: pytest.Item,
        call: pytest.CallInfo[None],
        error: BaseException | None,
    ) -> None:
        if call.when == "teardown" and self._session.broken is not None:
            return  # closing what the lost guest held
        check = check_of(item)
        outcome, reason, details = self._judge(error)
        if self._session.broken is not None and not self._session.booted:
            return  # the boot failed: no check was put to the guest
        result = CheckResult(
            id=check_id(item),
            name=check.name,
            outcome=outcome,
            required=check.required,
            mode=_mode(item),
            seconds=time.monotonic() - self._started,
            reason=reason,
            details=details,
        )
        self.results.append(result)
        data = {"id": result.id, "outcome": str(outcome), "reason": reason}
        self._session.timeline.record("check", "end", data, time.monotonic_ns())
        self._show(result)

    def _judge(self, error: BaseException | None) -> tuple[Outcome, str, str]:
        match error:
            case None:
                return Outcome.PASS, "", ""
            case pytest.skip.Exception():
                return Outcome.SKIP, str(error.msg), ""
            case CheckFailed():
                return Outcome.FAIL, error.reason, error.details
            case ProbeError():
                failure = refused(error, error.command)
                return Outcome.FAIL, failure.reason, failure.details
            case ViotestError():
                cause = cause_of(
                    error,
                    booted=self._session.booted,
                    console=self._session.console_tail(),
                )
                # Whoever raised it, there is nobody left to put checks to.
                self._session.broken = cause
                lost = blames_guest(error) and self._session.booted
                outcome = Outcome.FAIL if lost else Outcome.ERROR
                return outcome, cause.text, "\n".join(cause.console)
            case _:
                what = f"{type(error).__name__}: {error}".splitlines()[0]
                return Outcome.ERROR, f"viotest itself: {what}", "see pytest.log"


def _is_wanted(item: pytest.Item, scenario: Scenario) -> bool:
    if not scenario.checks:
        return not check_of(item).slow or len(scenario.endpoints) > 1
    names = (check_of(item).name, check_id(item))
    return any(
        fnmatch.fnmatchcase(name, pattern)
        for pattern in scenario.checks
        for name in names
    )


def _mode(item: pytest.Item) -> str:
    callspec = getattr(item, "callspec", None)
    return str(callspec.params.get("mode", "")) if callspec else ""
