# SPDX-License-Identifier: GPL-2.0-or-later
"""The pytest plugin that turns the suite's tests into check results.

It orders and selects the checks, gives each a deadline, and translates how each
ended: into pass, fail, skip, or an error that says nothing about the kernel.
"""

from __future__ import annotations

import collections
import fnmatch
import pickle
import time
from typing import TYPE_CHECKING

import pytest

from viotest.campaign.causes import blames_guest, cause_of
from viotest.campaign.evidence import Evidence
from viotest.errors import UsageError, ViotestError
from viotest.guest.probe import ProbeError
from viotest.interrupts import INTERRUPTS
from viotest.report.results import CheckResult, Outcome
from viotest.scenario.model import Phase
from viotest.suite.catalog import NAMES, check_of_test
from viotest.suite.context import CONTEXT, SCENARIO, SUBTESTS
from viotest.suite.judgement import CheckFailed, refused

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from viotest.campaign.guests import Guests
    from viotest.campaign.session import Session
    from viotest.scenario.model import Scenario
    from viotest.suite.catalog import Check

_Judged = tuple[Outcome, str, str]

#: The property of pytest's report that holds a pickled CheckResult.
RESULT = "viotest_result"

#: The watch recognises a dead process within 100 ms.
_LOSS_NEWS = 0.2


def check_of(item: pytest.Item) -> Check:
    """Return the catalog's entry of a test of the suite."""
    return check_of_test(getattr(item, "originalname", item.name))


def check_name(name: str) -> str:
    """Return a check's id from the name of its test: ``test_dma_read[type1]``."""
    test, bracket, parameters = name.partition("[")
    return test.removeprefix("test_").replace("_", "-") + bracket + parameters


def check_id(item: pytest.Item) -> str:
    """Return a check's id: its name, and its parameters in brackets."""
    return check_name(item.name)


class Collector:
    """Runs beside the suite, in the same process.

    :param guests: Whom the checks are put to; started when the first one needs it.
    :param show: Called with every result as it comes.
    """

    def __init__(self, guests: Guests, show: Callable[[CheckResult], None]) -> None:
        self._guests = guests
        self._show = show
        self._started = 0.0
        # The guest is lost, or its kernel has complained: it gets no further check.
        self._doubt = False
        # There will be no other guest: the kernel does not boot (any more).
        self._hopeless = False
        self._renewed: collections.Counter[str] = collections.Counter()
        # From the start of the current check on.
        self._evidence: Evidence | None = None
        self.results: list[CheckResult] = []
        #: The ids of the checks that are to be put, in order.
        self.wanted: list[str] = []
        #: The user does not want to go on.
        self.interrupted = False

    @property
    def _session(self) -> Session:
        assert self._guests.session is not None, "there is no guest"
        return self._guests.session

    def pytest_configure(self, config: pytest.Config) -> None:
        """Tell the suite which scenario it is."""
        config.stash[SCENARIO] = self._guests.scenario

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(
        self, config: pytest.Config, items: list[pytest.Item]
    ) -> None:
        """Keep the checks that were asked for: by mode, then as in the catalog."""
        scenario = self._guests.scenario
        wanted = [
            item
            for item in items
            # pytest leaves one item of a test whose modes are none of this run's.
            if check_of(item).modes_among(scenario.modes) and _is_wanted(item, scenario)
        ]
        modes = ["", *scenario.modes]
        wanted.sort(
            key=lambda item: (
                modes.index(mode_of(item)),
                NAMES.index(check_of(item).name),
            )
        )
        dropped = [item for item in items if item not in wanted]
        config.hook.pytest_deselected(items=dropped)
        items[:] = wanted
        self.wanted = [check_id(item) for item in wanted]

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> bool | None:
        """Have a guest ready, or leave the check out; put it on the timeline."""
        INTERRUPTS.check()
        if not self._ready(mode_of(item)):
            return True
        item.config.stash[CONTEXT] = self._session
        self._guests.use(mode_of(item))
        timeline = self._guests.timeline
        timeline.record("check", "start", {"id": check_id(item)}, 0)
        return None

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self) -> None:
        """Wait for the guest, so that its boot is not taken for the first check's."""
        self._started = time.monotonic()
        self._session.probe()
        if "first-check" not in self._session.marks:
            self._session.mark("first-check")
        nr_iommus = len(self._session.topology.iommus)
        self._evidence = Evidence(self._session.device_log(), nr_iommus)
        self._started = time.monotonic()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Iterator[None]:
        """Give the check its deadline, and notice a guest that died quietly."""
        try:
            with self._session.phase(Phase.CHECK, scale=check_of(item).patience):
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
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Take down how a part of a check ended."""
        report = yield
        error = call.excinfo.value if call.excinfo else None
        if call.when == "call" or error is not None:
            result = self._take(item, call, error)
            if result is not None:
                report.user_properties.append((RESULT, pickle.dumps(result)))
        return report

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_teardown(
        self, item: pytest.Item, nextitem: pytest.Item | None
    ) -> Iterator[None]:
        """Take down what belongs to the guest, if the next check gets another one."""
        result = yield
        if self._doubt and nextitem is not None and self._may_renew(mode_of(nextitem)):
            # The suite's fixtures live as long as the session, because the guest
            # does. pytest has no public way to end them earlier.
            item.session._setupstate.teardown_exact(None)
        return result

    def pytest_keyboard_interrupt(
        self, excinfo: pytest.ExceptionInfo[BaseException]
    ) -> None:
        """Tell the user's interrupt from pytest's own, which is a subclass."""
        self.interrupted = excinfo.type is KeyboardInterrupt

    # Whether there is a guest that a check of this mode may be put to.
    def _ready(self, mode: str) -> bool:
        if self._hopeless:
            return False
        try:
            if self._guests.session is None:
                self._guests.start()
            elif self._doubt and self._may_renew(mode):
                self._renewed[mode] += 1
                self._guests.renew()
                self._doubt = False
        except UsageError:
            raise
        except ViotestError as error:
            self._guests.failures.append(cause_of(error, booted=False))
            self._hopeless = True
            return False
        # With no more to be had, one that only complained still is of use.
        return self._session.broken is None

    def _may_renew(self, mode: str) -> bool:
        return self._renewed[mode] < self._guests.scenario.reboots

    def _take(
        self,
        item: pytest.Item,
        call: pytest.CallInfo[None],
        error: BaseException | None,
    ) -> CheckResult | None:
        if call.when == "teardown" and self._session.broken is not None:
            return None  # closing what the lost guest held
        check = check_of(item)
        seconds = time.monotonic() - self._started
        outcome, reason, details = self._with_splats(*self._judge(error))
        if outcome is Outcome.FAIL:
            details = self._explain(item, details)
        self._doubt = self._doubt or self._session.broken is not None
        if self._session.broken is not None and not self._session.booted:
            self._hopeless = True
            return None  # the boot failed: no check was put to the guest
        result = CheckResult(
            id=check_id(item),
            name=check.name,
            outcome=outcome,
            required=check.required,
            mode=mode_of(item),
            seconds=seconds,
            reason=reason,
            details=details,
            guest=self._guests.folder,
            subtests=item.stash.get(SUBTESTS, ()),
        )
        self.results.append(result)
        data = {"id": result.id, "outcome": str(outcome), "reason": reason}
        self._guests.timeline.record("check", "end", data, time.monotonic_ns())
        self._show(result)
        return result

    # Everybody's failure comes with what was wanted, who did what, and what to do now.
    def _explain(self, item: pytest.Item, details: str) -> str:
        lines = details.splitlines()
        check, mode = check_of(item), mode_of(item)
        if not any(line.startswith("expected ") for line in lines):
            lines.insert(0, f"expected {check.title}")
        # What broke the guest ended its kernel's answers too.
        alive = self._session.broken is None
        if self._evidence is not None:
            lines += self._evidence.lines(self._session.kernel_lines if alive else ())
        if not any(line.startswith("next ") for line in lines):
            again = f"--check {check.name}" + (f" --mode {mode}" if mode else "")
            lines.append(f"next     {self._guests.command} {again}")
        # The advice last, where it is looked for.
        lines.sort(key=lambda line: line.startswith("next "))
        return "\n".join(lines)

    def _judge(self, error: BaseException | None) -> _Judged:
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

    # A check does not pass in which the guest's kernel has complained.
    def _with_splats(self, outcome: Outcome, reason: str, details: str) -> _Judged:
        if self._session.broken is not None:
            return outcome, reason, details
        try:
            splats = self._session.new_splats()
        except ViotestError as error:
            judged = self._judge(error)
            return judged if outcome is not Outcome.FAIL else (outcome, reason, details)
        if not splats:
            return outcome, reason, details
        self._doubt = True
        quoted = [f"dmesg    {line}" for splat in splats[:2] for line in splat.lines]
        details = "\n".join([*details.splitlines(), *quoted])
        if outcome is not Outcome.FAIL:
            outcome, reason = Outcome.FAIL, f"the guest's kernel said: {splats[0].what}"
        return outcome, reason, details


def _is_wanted(item: pytest.Item, scenario: Scenario) -> bool:
    check = check_of(item)
    if not scenario.checks:
        slow = scenario.thorough or len(scenario.endpoints) > 1
        return (
            not check.on_request
            and (slow or not check.slow)
            and (scenario.thorough or not check.thorough)
        )
    names = (check.name, check_id(item))
    return any(
        # An id has brackets, which mean something else in a pattern.
        name == pattern or fnmatch.fnmatchcase(name, pattern)
        for pattern in scenario.checks
        for name in names
    )


def mode_of(item: pytest.Item) -> str:
    """Return the VFIO mode of a check; empty if it does not depend on it."""
    callspec = getattr(item, "callspec", None)
    return str(callspec.params.get("mode", "")) if callspec else ""
