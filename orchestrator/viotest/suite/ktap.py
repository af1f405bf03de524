# SPDX-License-Identifier: GPL-2.0-or-later
"""The results of a program that speaks KTAP: :func:`parse_ktap`.

KTAP version 1 (Documentation/dev-tools/ktap.rst), and TAP 13 as kselftest writes it.
The text is a guest's: whatever is wrong with it becomes a problem, never an error.
"""

from __future__ import annotations

import collections
import re
from dataclasses import dataclass, field

from viotest.report.results import Outcome, Subtest

#: More tests than any program has: the text is not to be trusted any further.
MAX_TESTS = 10_000
#: Nested deeper than any program's.
MAX_DEPTH = 8

_MAX_NAME = 200
_MAX_NOTES = 12
_MAX_PROBLEMS = 20

_VERSION = re.compile(r"(KTAP version 1|TAP version 1[34])\s*")
_PLAN = re.compile(r"1\.\.(\d{1,9})(?:\s*#\s*SKIP\b\s*(.*))?\s*")
_RESULT = re.compile(r"(not ok|ok)\s+(\d{1,9})(?:\s+(.*))?")
_DIRECTIVE = re.compile(
    r"(.*?)(?:^|\s)#\s*(SKIP|TODO|XFAIL|XPASS|TIMEOUT|ERROR)\b:?\s*(.*)", re.IGNORECASE
)
_TOTALS = re.compile(
    r"# Totals:((?: (?:pass|fail|xfail|xpass|skip|error):\d{1,9})+)\s*"
)
# How kselftest_harness.h says where an expectation failed.
_WHERE = re.compile(r"(?:#\s*)?[\w./-]+\.[ch]:\d+:")
# What kselftest_harness.h says of every test; no reason.
_FRAME = re.compile(r"#\s+(?:RUN|OK|FAIL)\s.*|#.*: Test failed")
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")


@dataclass(frozen=True)
class Ktap:
    """What a program said of its tests."""

    #: Those that hold no others; the name of a nested one begins with its parents'.
    tests: tuple[Subtest, ...] = ()
    #: What makes the results incomplete or doubtful, one line each.
    problems: tuple[str, ...] = ()
    #: Why the program skipped everything (``1..0 # SKIP``); None if it did not.
    skipped: str | None = None


@dataclass
class _Level:
    indent: int
    plan: int | None = None
    count: int = 0
    tests: list[Subtest] = field(default_factory=list)


def parse_ktap(text: str) -> Ktap:
    """Return what a program's output says, complete or not.

    :param text: Everything that it wrote, in the order in which it did.
    """
    parser = _Parser()
    for number, line in enumerate(text.split("\n"), 1):
        parser.take(number, line.rstrip("\r"))
        if parser.hopeless:
            break
    return parser.finish()


class _Parser:
    def __init__(self) -> None:
        self._levels: list[_Level] = []
        self._notes: collections.deque[str] = collections.deque(maxlen=_MAX_NOTES)
        self._problems: list[str] = []
        self._totals: collections.Counter[str] | None = None
        self._seen: collections.Counter[str] = collections.Counter()
        self._skipped: str | None = None
        self._nr_tests = 0
        #: There is no sense in what follows.
        self.hopeless = False

    def take(self, number: int, line: str) -> None:
        text = line.lstrip(" ")
        indent = len(line) - len(text)
        if _VERSION.fullmatch(text):
            self._begin(number, indent)
        elif text.startswith("Bail out!"):
            self._problem(f"line {number}: {_clean(text)}")
            self.hopeless = True
        elif found := _PLAN.fullmatch(text):
            self._take_plan(number, indent, found)
        elif found := _RESULT.fullmatch(text):
            self._take_result(number, indent, found)
        elif (found := _TOTALS.fullmatch(text)) and indent == 0:
            self._take_totals(number, found)
        elif text.strip():
            self._notes.append(_clean(text))

    def finish(self) -> Ktap:
        if not self._levels:
            self._problem("there is no KTAP in its output")
            return Ktap(problems=tuple(self._problems))
        while len(self._levels) > 1:
            self._problem("the output ends inside of a nested test")
            inner = self._end_level()
            self._levels[-1].tests += inner.tests
        top = self._end_level()
        if self._totals is not None and not self.hopeless:
            self._compare_totals(self._totals)
        return Ktap(tuple(top.tests), tuple(self._problems), self._skipped)

    # -- lines

    def _begin(self, number: int, indent: int) -> None:
        if self._levels and indent <= self._levels[-1].indent:
            self._problem(f"line {number}: the output begins anew")
            self.hopeless = True
        elif len(self._levels) == MAX_DEPTH:
            self._problem(f"line {number}: nested more than {MAX_DEPTH} deep")
            self.hopeless = True
        else:
            self._levels.append(_Level(indent))
            self._notes.clear()

    def _take_plan(self, number: int, indent: int, found: re.Match[str]) -> None:
        nr, why = int(found[1]), found[2]
        if not self._levels and indent == 0 and why is not None:
            # ksft_exit_skip() may come before the version line does.
            self._levels.append(_Level(indent))
        if not self._levels or self._levels[-1].indent != indent:
            self._notes.append(_clean(found.string))
            return
        level = self._levels[-1]
        if level.plan is not None:
            self._problem(f"line {number}: a second plan")
            return
        level.plan = nr
        if why is not None and nr == 0 and len(self._levels) == 1:
            self._skipped = _clean(why) or "it does not say why"

    def _take_result(self, number: int, indent: int, found: re.Match[str]) -> None:
        inner: list[Subtest] = []
        nested = len(self._levels) > 1 and self._levels[-2].indent == indent
        if nested:
            inner = self._end_level().tests
        if not self._levels or self._levels[-1].indent != indent:
            self._notes.append(_clean(found.string))
            return
        level = self._levels[-1]
        level.count += 1
        if int(found[2]) != level.count:
            self._problem(
                f"line {number}: test {found[2]} comes as number {level.count}"
            )
        test = self._judge(found)
        if indent == 0:
            self._seen[_KEYS[test.outcome]] += 1
        level.tests += self._with_children(number, test, inner) if nested else [test]
        self._notes.clear()
        self._nr_tests += 1
        if self._nr_tests > MAX_TESTS:
            self._problem(f"line {number}: more than {MAX_TESTS} tests")
            self.hopeless = True

    def _judge(self, found: re.Match[str]) -> Subtest:
        description, directive, why = _split(found[3] or "")
        name = description or f"test {found[2]}"
        good = found[1] == "ok"
        match directive:
            case "SKIP" | "TODO":
                outcome, reason = Outcome.SKIP, why or "it does not say why"
            case "XFAIL" | "XPASS" if good:
                outcome, reason = Outcome.PASS, f"{directive}: {why}".rstrip(": ")
            case _ if good:
                outcome, reason = Outcome.PASS, ""
            case _:
                reason = f"{directive}: {why}".strip(": ") if directive else ""
                outcome, reason = Outcome.FAIL, reason or self._complaint()
        details = "\n".join(self._notes) if outcome is Outcome.FAIL else ""
        return Subtest(name, outcome, reason, details)

    # A parent has no result of its own, unless it contradicts its children.
    def _with_children(
        self, number: int, parent: Subtest, inner: list[Subtest]
    ) -> list[Subtest]:
        failed = any(test.outcome is Outcome.FAIL for test in inner)
        if parent.outcome is Outcome.PASS and failed:
            self._problem(
                f"line {number}: {parent.name} is ok, and a part of it is not"
            )
        children = [
            Subtest(
                f"{parent.name}/{t.name}"[:_MAX_NAME], t.outcome, t.reason, t.details
            )
            for t in inner
        ]
        if not children or (parent.outcome is Outcome.FAIL and not failed):
            children.append(parent)
        return children

    def _complaint(self) -> str:
        places = [note for note in self._notes if _WHERE.match(note)]
        said = places[:1] or [n for n in self._notes if not _FRAME.fullmatch(n)][-1:]
        return said[0].lstrip("# ") if said else "it does not say why"

    def _take_totals(self, number: int, found: re.Match[str]) -> None:
        if self._totals is not None:
            self._problem(f"line {number}: a second line of totals")
        self._totals = collections.Counter()
        for item in found[1].split():
            key, _, value = item.partition(":")
            # XFAIL and XPASS are passes here, and errors failures.
            key = {"xfail": "pass", "xpass": "pass", "error": "fail"}.get(key, key)
            self._totals[key] += int(value)

    # -- ends

    def _end_level(self) -> _Level:
        level = self._levels.pop()
        if level.plan is None:
            self._problem("there is no plan (1..N)")
        elif level.plan != level.count:
            missing = f"{level.count} results of {level.plan} that were planned"
            last = f"; its last words: {self._notes[-1]}" if self._notes else ""
            self._problem(missing + last)
        return level

    def _compare_totals(self, totals: collections.Counter[str]) -> None:
        for key in ("pass", "fail", "skip"):
            said, shown = totals[key], self._seen[key]
            if said != shown:
                self._problem(f"it says that {said} tests {key}, and shows {shown}")

    def _problem(self, text: str) -> None:
        if len(self._problems) < _MAX_PROBLEMS:
            self._problems.append(text)


_KEYS = {Outcome.PASS: "pass", Outcome.FAIL: "fail", Outcome.SKIP: "skip"}


def _split(text: str) -> tuple[str, str, str]:
    text = _clean(text, 4 * _MAX_NAME).removeprefix("- ").strip()
    found = _DIRECTIVE.fullmatch(text)
    if found is None:
        return text[:_MAX_NAME], "", ""
    return found[1].strip()[:_MAX_NAME], found[2].upper(), found[3].strip()[:_MAX_NAME]


def _clean(text: str, size: int = _MAX_NAME) -> str:
    return _CONTROL.sub("?", text[:size].replace("\t", " ")).strip()
