# SPDX-License-Identifier: GPL-2.0-or-later
"""What a run found out, as values; ``results.json`` is :meth:`RunResult.to_json`."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

#: Raised when a field of results.json changes its meaning or goes away.
SCHEMA = 1


class Outcome(enum.StrEnum):
    """How one check ended."""

    PASS = "pass"
    FAIL = "fail"
    SKIP = "skip"
    #: The check met an error that says nothing about the kernel.
    ERROR = "error"


class Verdict(enum.StrEnum):
    """The answer of a run."""

    PASS = "PASS"
    FAIL = "FAIL"
    UNTESTED = "UNTESTED"

    @property
    def exit_code(self) -> int:
        """0, 1, or 125, which ``git bisect run`` takes as "skip this commit"."""
        return {Verdict.PASS: 0, Verdict.FAIL: 1, Verdict.UNTESTED: 125}[self]


class Category(enum.StrEnum):
    """What kind of cause a verdict other than PASS has."""

    #: A check failed.
    FAIL = "fail"
    #: The guest did not reach its readiness beacon.
    BOOT_FAIL = "boot-fail"
    #: A deadline passed.
    TIMEOUT = "timeout"
    #: QEMU, the device, an asset or the host failed.
    INFRA = "infra"
    #: A required check was skipped.
    SKIP = "skip"


@dataclass(frozen=True)
class Cause:
    """Why the verdict is not PASS."""

    category: Category
    #: One line for a person.
    text: str
    #: The last lines of the guest's console, where they help.
    console: tuple[str, ...] = ()


@dataclass(frozen=True)
class Subtest:
    """What one test of a program came to that a check lets run in the guest."""

    name: str
    outcome: Outcome
    #: Why it failed or was skipped, one line.
    reason: str = ""
    #: The last lines that the program wrote before it failed.
    details: str = ""


@dataclass(frozen=True)
class CheckResult:
    """The outcome of one check, in one mode."""

    #: ``dma-read[type1v2-4KiB]``.
    id: str
    #: The check's name in the catalog.
    name: str
    outcome: Outcome
    required: bool
    #: The VFIO mode; empty if the check does not depend on it.
    mode: str
    seconds: float
    #: Why it failed or was skipped, one line; empty on a pass.
    reason: str = ""
    #: What was expected, what was seen, and what to do: a few lines.
    details: str = ""
    #: The folder of the guest that it was put to, relative to the run folder.
    guest: str = ""
    #: What it consists of, where that has names of its own.
    subtests: tuple[Subtest, ...] = ()


@dataclass(frozen=True)
class GuestRecord:
    """What became of one guest of a run."""

    #: Its folder relative to the run folder; empty: the run folder itself.
    folder: str
    #: The worker that it belonged to; empty without workers.
    worker: str
    #: The modes whose checks were put to it.
    modes: tuple[str, ...]
    #: Its readiness beacon was seen.
    booted: bool
    #: What ended it early; None if nothing did.
    lost: Cause | None
    #: CLOCK_MONOTONIC nanoseconds at which phases were reached.
    marks: Mapping[str, int] = field(default_factory=dict)
    clock: Mapping[str, object] = field(default_factory=dict)
    #: CPU seconds of its device and its QEMU.
    cpu: Mapping[str, float] = field(default_factory=dict)
    #: What its device has counted; None if the device never came up.
    counters: Mapping[str, int] | None = None
    #: What its kernel complained of before the first check.
    splats: tuple[str, ...] = ()

    def to_json(self) -> dict[str, object]:
        """Return an entry of ``guests`` in ``results.json``."""
        return {
            "folder": self.folder,
            "worker": self.worker,
            "modes": list(self.modes),
            "booted": self.booted,
            "lost": _cause_json(self.lost),
            "clock": dict(self.clock),
            "cpu": {name: round(value, 3) for name, value in self.cpu.items()},
            "boot_complaints": list(self.splats),
        }


@dataclass(frozen=True)
class RunResult:
    """One run."""

    verdict: Verdict
    scenario: Mapping[str, object]
    qemu: Mapping[str, object]
    kernel: Mapping[str, object]
    accel: Mapping[str, object]
    #: Seconds from the start of the run to the end of each phase.
    phases: Mapping[str, float]
    checks: Sequence[CheckResult]
    device: Mapping[str, object] | None
    cause: Cause | None = None
    seconds: float = 0.0
    clock: Mapping[str, object] = field(default_factory=dict)
    #: CPU seconds of each kind of process, up to the verdict.
    cpu: Mapping[str, float] = field(default_factory=dict)
    guests: Sequence[GuestRecord] = ()
    #: Ids of the checks that nobody was left to put to.
    not_run: Sequence[str] = ()

    def count(self, outcome: Outcome) -> int:
        """Return how many checks ended with ``outcome``."""
        return sum(check.outcome is outcome for check in self.checks)

    def to_json(self) -> dict[str, object]:
        """Return the value of ``results.json``."""
        return {
            "schema": SCHEMA,
            "verdict": str(self.verdict),
            "exit_code": self.verdict.exit_code,
            "cause": _cause_json(self.cause),
            "scenario": dict(self.scenario),
            "qemu": dict(self.qemu),
            "kernel": dict(self.kernel),
            "accel": dict(self.accel),
            "phases": {name: round(value, 4) for name, value in self.phases.items()},
            "seconds": round(self.seconds, 4),
            "clock": dict(self.clock),
            "cpu": {name: round(value, 3) for name, value in self.cpu.items()},
            "checks": [_check_json(check) for check in self.checks],
            "not_run": list(self.not_run),
            "device": self.device,
            "guests": [guest.to_json() for guest in self.guests],
        }


def _cause_json(cause: Cause | None) -> dict[str, object] | None:
    if cause is None:
        return None
    return {
        "category": str(cause.category),
        "text": cause.text,
        "console": list(cause.console),
    }


def _check_json(check: CheckResult) -> dict[str, object]:
    value: dict[str, object] = {
        "id": check.id,
        "name": check.name,
        "outcome": str(check.outcome),
        "required": check.required,
        "mode": check.mode,
        "seconds": round(check.seconds, 4),
        "reason": check.reason,
        "details": check.details,
        "guest": check.guest,
    }
    if check.subtests:
        value["subtests"] = [_subtest_json(test) for test in check.subtests]
    return value


def _subtest_json(test: Subtest) -> dict[str, object]:
    return {
        "name": test.name,
        "outcome": str(test.outcome),
        "reason": test.reason,
        "details": test.details,
    }


def judge(
    checks: Sequence[CheckResult],
    wanted: Sequence[str],
    broken: Cause | None,
    *,
    broken_is_bad: bool = False,
    not_run: Sequence[str] = (),
    any_mode: bool = False,
) -> tuple[Verdict, Cause | None]:
    """Judge a run.

    :param checks: What the checks that ran came to.
    :param wanted: Names of the required checks that the user asked for.
    :param broken: What ended the run early, if something did.
    :param broken_is_bad: A failed boot counts against the kernel.
    :param not_run: Ids of the checks that were to be put and were not.
    :param any_mode: A check may have been skipped in one mode if it passed in another.
    :return: The verdict and its cause. A failed check outweighs everything: it was
        seen before the rest broke. ``PASS`` needs each required check to have passed
        at least once and none to have been skipped.
    """
    failed = [check for check in checks if check.outcome is Outcome.FAIL]
    if failed:
        first = failed[0]
        text = f"{first.id}: {first.reason}"
        # A check in which the guest hung keeps the name of a timeout.
        lost = broken is not None and broken.text == first.reason
        category = broken.category if broken and lost else Category.FAIL
        return Verdict.FAIL, _with_console(Cause(category, text), broken)
    if broken is not None:
        bad = broken_is_bad and broken.category is Category.BOOT_FAIL
        return (Verdict.FAIL if bad else Verdict.UNTESTED), broken
    passed = {check.name for check in checks if check.outcome is Outcome.PASS}
    answered = passed if any_mode else set()
    for check in checks:
        if check.outcome is Outcome.ERROR:
            cause = Cause(Category.INFRA, f"{check.id}: {check.reason}")
            return Verdict.UNTESTED, cause
        skipped = check.outcome is Outcome.SKIP and check.name not in answered
        if skipped and check.required:
            cause = Cause(Category.SKIP, f"{check.id} was skipped: {check.reason}")
            return Verdict.UNTESTED, cause
    if not_run:
        more = f", nor did {len(not_run) - 1} more" if len(not_run) > 1 else ""
        return Verdict.UNTESTED, Cause(
            Category.INFRA, f"{not_run[0]} did not run{more}"
        )
    for name in wanted:
        if name not in passed:
            return Verdict.UNTESTED, Cause(Category.SKIP, f"{name} did not run")
    if not passed:
        return Verdict.UNTESTED, Cause(Category.SKIP, "no check ran")
    return Verdict.PASS, None


def _with_console(cause: Cause, broken: Cause | None) -> Cause:
    return Cause(cause.category, cause.text, broken.console) if broken else cause
