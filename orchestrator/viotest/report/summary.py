# SPDX-License-Identifier: GPL-2.0-or-later
"""What a person sees in the terminal: one line per check, then the verdict."""

from __future__ import annotations

import collections
import io
import os
import sys
from typing import TYPE_CHECKING

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
        self._write(f"[{seconds:8.3f}] {event.source:7} {event.event} {details}\n")


class Terminal:
    """Writes the report of a run as it happens.

    :param out: Where to; colours only if it is a terminal and NO_COLOR is not set.
    """

    def __init__(self, out: TextIO | None = None) -> None:
        # There may be no standard output at all: `viotest run >&-`.
        out = out or sys.stdout or io.StringIO()
        self._write = _Pipe(out).write
        self._colour = out.isatty() and "NO_COLOR" not in os.environ
        # The mode and the reason of the skip told last, and how many were like it.
        self._skipped: tuple[str, str] | None = None
        self._more = 0

    def _paint(self, text: str, style: str) -> str:
        return f"\033[{_COLOURS[style]}m{text}\033[0m" if self._colour else text

    def line(self, text: str = "", style: str = "") -> None:
        """Write one line."""
        self._write((self._paint(text, style) if style else text) + "\n")

    def check(self, result: CheckResult) -> None:
        """Write the line of a check that has just ended.

        Of checks skipped in a row, for one reason and in one mode, the first speaks.
        """
        skipped = (result.mode, result.reason)
        if result.outcome is Outcome.SKIP and skipped == self._skipped:
            self._more += 1
            return
        self._tell_more()
        self._skipped = skipped if result.outcome is Outcome.SKIP else None
        outcome = str(result.outcome)
        mark = self._paint(f"{outcome:5}", outcome)
        reason = f"  {result.reason}" if result.reason else ""
        self.line(f"  {mark}  {result.id:{_WIDTH}} {result.seconds:6.2f} s{reason}")
        if result.subtests:
            self.line(f"           {_counted(result.subtests)}", "dim")
        if result.outcome in (Outcome.FAIL, Outcome.ERROR):
            for detail in result.details.splitlines():
                self.line(f"           {detail}")

    def _tell_more(self) -> None:
        if self._more:
            self.line(f"         and {self._more} more for the same reason", "dim")
        self._more = 0

    def finish(self, result: RunResult, folder: str) -> None:
        """Write what is left to say; the last line is the verdict."""
        self._tell_more()
        if result.cause is not None and result.verdict is not Verdict.PASS:
            self.line()
            self.line(f"cause    {result.cause.category}: {result.cause.text}")
            for text in result.cause.console:
                self.line(f"         | {text}", "dim")
        for guest in result.guests:
            for what in guest.splats:
                self.line(f"note     the guest's kernel said as it booted: {what}")
        if result.verdict is not Verdict.PASS:
            self.line(f"again    viotest run --config {folder}/scenario.json")
        self.line(f"results  {folder}")
        self.line(self._verdict(result), str(result.verdict))

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
