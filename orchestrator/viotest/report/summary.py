# SPDX-License-Identifier: GPL-2.0-or-later
"""What a person sees in the terminal: one line per check, then the verdict."""

from __future__ import annotations

import collections
import io
import os
import sys
from typing import TYPE_CHECKING

from viotest.folding import fold, width_of
from viotest.report.results import Outcome, Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TextIO

    from viotest.report.results import CheckResult, RunResult, Subtest
    from viotest.report.timeline import Event

_COLOURS = {
    "pass": "32",
    "fail": "1;31",
    "error": "1;31",
    "skip": "33",
    "PASS": "1;32",
    "FAIL": "1;31",
    "UNTESTED": "1;33",
    "dim": "2",
}
_WIDTH = 34
#: Before what belongs to a check.
_INDENT = " " * 11
#: Before what a line of details says, as in ``expected ...``.
_LABEL = " " * 9
_COMMAND = "viotest"
#: Checks that are named beside the reason why they were skipped.
_MAX_NAMES = 4


class _Pipe:
    """A text stream whose reader may go away (``viotest run | head``).

    The run goes on: its verdict is in the run folder and in the exit code.
    """

    def __init__(self, out: TextIO) -> None:
        self._out: TextIO | None = out

    def write(self, text: str) -> None:
        """Write and flush; nothing more once the reader is gone."""
        if self._out is None:
            return
        try:
            self._out.write(text)
            self._out.flush()
        except BrokenPipeError:
            # Else the interpreter complains when it flushes the stream at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._out.fileno())
            self._out = None


class Narrator:
    """Tells what happens while it happens, for ``--verbose``.

    :param start_ns: Where time begins, CLOCK_MONOTONIC nanoseconds.
    """

    def __init__(self, start_ns: int) -> None:
        self._start_ns = start_ns
        self._write = _Pipe(sys.stderr).write

    def __call__(self, event: Event) -> None:
        """Write one event as one line to standard error."""
        seconds = (event.ns - self._start_ns) / 1e9
        details = " ".join(
            str(value) if key == "text" else f"{key}={value}"
            for key, value in event.data.items()
        )
        line = f"[{seconds:8.3f}] {event.source:7} {event.event} {details}"
        self._write(fold(line, width_of(sys.stderr), 11) + "\n")


class Terminal:
    """Writes the report of a run as it happens.

    :param out: Where to; colours only if it is a terminal and NO_COLOR is not set.
        Lines are broken at the width of a terminal, and nowhere else.
    """

    def __init__(self, out: TextIO | None = None) -> None:
        # There may be no standard output at all: `viotest run >&-`.
        self._out = out or sys.stdout or io.StringIO()
        self._write = _Pipe(self._out).write
        self._colour = self._out.isatty() and "NO_COLOR" not in os.environ

    def _paint(self, text: str, style: str) -> str:
        return f"\033[{_COLOURS[style]}m{text}\033[0m" if self._colour else text

    def line(self, text: str = "", style: str = "") -> None:
        """Write one line as it is: something to be copied, or read by a program."""
        self._write((self._paint(text, style) if style else text) + "\n")

    def prose(self, text: str, hang: int, style: str = "") -> None:
        """Write one line, broken to fit a terminal.

        :param hang: Blanks before what follows its first line.
        """
        self.line(fold(text, width_of(self._out), hang), style)

    def check(self, result: CheckResult) -> None:
        """Write the line of a check that has just ended; of one skipped none yet."""
        if result.outcome is Outcome.SKIP:
            return
        head = f"{result.id:{_WIDTH}} {result.seconds:6.2f} s"
        self._outcome(result.outcome, head, result.reason)
        if result.subtests:
            self.prose(f"{_INDENT}{_counted(result.subtests)}", len(_INDENT), "dim")
        if result.outcome in (Outcome.FAIL, Outcome.ERROR):
            for detail in result.details.splitlines():
                self._detail(detail)

    # The reason on lines of its own where it would be broken.
    def _outcome(self, outcome: Outcome, head: str, reason: str) -> None:
        width = width_of(self._out)
        whole = f"  {outcome:5}  {head}{'  ' if reason else ''}{reason}"
        fits = width is None or len(whole) <= width
        first = whole if fits else fold(f"  {outcome:5}  {head.rstrip()}", width, 9)
        mark = self._paint(f"{outcome:5}", str(outcome))
        self.line(f"  {mark}{first[7:]}")
        if reason and not fits:
            self.prose(f"{_INDENT}{reason}", len(_INDENT))

    def _detail(self, text: str) -> None:
        if text[len(_LABEL) :].startswith(f"{_COMMAND} "):
            self.line(f"{_INDENT}{text}")  # a command, to be copied
        else:
            self.prose(f"{_INDENT}{text}", len(_INDENT) + len(_LABEL))

    def finish(self, result: RunResult, folder: str) -> None:
        """Write what is left to say; the last line is the verdict."""
        self._skips(result.checks)
        if result.cause is not None and result.verdict is not Verdict.PASS:
            self.line()
            self.prose(f"cause    {result.cause.category}: {result.cause.text}", 9)
            for text in result.cause.console:
                self.prose(f"         | {text}", 13, "dim")
        for guest in result.guests:
            for what in guest.splats:
                self.prose(f"note     the guest's kernel said as it booted: {what}", 9)
        if result.verdict is not Verdict.PASS:
            self.line(f"again    {_COMMAND} run --config {folder}/scenario.json")
        self.line(f"results  {folder}")
        self.line(self._verdict(result), str(result.verdict))

    # Each reason once: it is the same in most modes, and for several checks.
    def _skips(self, checks: Sequence[CheckResult]) -> None:
        groups: dict[str, list[CheckResult]] = {}
        for check in checks:
            if check.outcome is Outcome.SKIP:
                groups.setdefault(check.reason, []).append(check)
        for reason, group in groups.items():
            names = list(dict.fromkeys(check.name for check in group))
            modes = list(dict.fromkeys(check.mode for check in group if check.mode))
            head = ", ".join(names[:_MAX_NAMES])
            if len(names) > _MAX_NAMES:
                head += f" and {len(names) - _MAX_NAMES} more"
            if modes:
                head += f" in {', '.join(modes)}"
            self._outcome(Outcome.SKIP, f"{head:{_WIDTH}}", reason)

    def _verdict(self, result: RunResult) -> str:
        errors = "error" if result.count(Outcome.ERROR) == 1 else "errors"
        counts = ", ".join(
            f"{result.count(outcome)} {word}"
            for outcome, word in (
                (Outcome.PASS, "passed"),
                (Outcome.FAIL, "failed"),
                (Outcome.ERROR, errors),
                (Outcome.SKIP, "skipped"),
            )
            if result.count(outcome) or outcome is Outcome.PASS
        )
        return f"{result.verdict}  {counts}  in {result.seconds:.1f} s"


# ``20 passed, 5 skipped (no huge pages)``: skips are counted by their reasons.
def _counted(tests: Sequence[Subtest]) -> str:
    nr = collections.Counter(test.outcome for test in tests)
    parts = [f"{nr[Outcome.PASS]} passed"]
    if nr[Outcome.FAIL]:
        parts.append(f"{nr[Outcome.FAIL]} failed")
    skips = collections.Counter(t.reason for t in tests if t.outcome is Outcome.SKIP)
    parts += [f"{count} skipped ({reason})" for reason, count in skips.items()]
    return ", ".join(parts)
