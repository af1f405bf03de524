# SPDX-License-Identifier: GPL-2.0-or-later
"""How long work is shown to a person: :class:`Progress` and its implementations.

Nothing is printed when there is nothing to do: a step appears only when work starts.
"""

from __future__ import annotations

import contextlib
import sys
import time
from typing import TYPE_CHECKING, Protocol, TextIO

from viotest.folding import fold, width_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

#: Seconds between two lines about the same step where there is no terminal.
LINE_INTERVAL = 3.0


class Step(Protocol):
    """One piece of work that is going on."""

    def update(self, done: float, total: float) -> None:
        """Say how much is done.

        :param done: Amount done so far, in any unit.
        :param total: Amount of the whole, in the same unit; 0: unknown.
        """


class Progress(Protocol):
    """Where long work reports to."""

    def step(self, what: str) -> AbstractContextManager[Step]:
        """Show a piece of work for as long as the context lives.

        :param what: The work, as in "fetching QEMU".
        :return: A context manager that gives the :class:`Step`.
        """

    def note(self, text: str) -> None:
        """Tell something that is worth knowing, one line."""

    def warn(self, text: str) -> None:
        """Tell something that may need attention, one line."""


class _SilentStep:
    def update(self, done: float, total: float) -> None:
        pass


class SilentProgress:
    """Shows nothing; keeps notes and warnings for whoever asks."""

    def __init__(self) -> None:
        #: Every note and warning so far.
        self.messages: list[str] = []

    @contextlib.contextmanager
    def step(self, what: str) -> Iterator[Step]:
        """Show nothing."""
        yield _SilentStep()

    def note(self, text: str) -> None:
        """Keep the note."""
        self.messages.append(text)

    def warn(self, text: str) -> None:
        """Keep the warning."""
        self.messages.append(text)


class _LineStep:
    def __init__(self, what: str, stream: TextIO) -> None:
        self._what = what
        self._stream = stream
        self._last = time.monotonic()

    def update(self, done: float, total: float) -> None:
        now = time.monotonic()
        if total <= 0 or now - self._last < LINE_INTERVAL:
            return
        self._last = now
        print(f"{self._what}: {done / total:.0%}", file=self._stream, flush=True)


class _BarStep:
    def __init__(self, bars: RichProgress, task: TaskID) -> None:
        self._bars = bars
        self._task = task

    def update(self, done: float, total: float) -> None:
        self._bars.update(self._task, completed=done, total=total or None)


class TerminalProgress:
    """Bars where the stream is a terminal, else a line every few seconds.

    :param stream: Where to write; default: standard error.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._bars: RichProgress | None = None

    def step(self, what: str) -> AbstractContextManager[Step]:
        """Show a bar or lines for a piece of work."""
        return self._bar(what) if self._stream.isatty() else self._lines(what)

    def note(self, text: str) -> None:
        """Print a line."""
        line = fold(text, width_of(self._stream), 2)
        print(line, file=self._stream, flush=True)

    def warn(self, text: str) -> None:
        """Print a line that begins with ``warning:``."""
        self.note(f"warning: {text}")

    @contextlib.contextmanager
    def _lines(self, what: str) -> Iterator[Step]:
        begin = time.monotonic()
        self.note(f"{what} ...")
        yield _LineStep(what, self._stream)
        self.note(f"{what}: done in {time.monotonic() - begin:.1f} s")

    @contextlib.contextmanager
    def _bar(self, what: str) -> Iterator[Step]:
        if self._bars is not None:
            # rich allows one live display: an inner step is a task of the outer.
            yield _BarStep(self._bars, self._bars.add_task(what, total=None))
            return
        # Imported late: rich costs more than the whole warm path.
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
        with Progress(*columns, console=Console(file=self._stream)) as bars:
            self._bars = bars
            try:
                task = bars.add_task(what, total=None)
                yield _BarStep(bars, task)
                bars.update(task, total=1, completed=1)
            finally:
                self._bars = None
