# SPDX-License-Identifier: GPL-2.0-or-later
"""Ctrl-C and its like: when they strike."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

_POLITE = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupts:
    """Turns polite signals into KeyboardInterrupt, once per wish.

    An impatient second Ctrl-C must not tear the clean-up of the first apart. And
    Python may swallow an exception that is raised in a destructor: the wish is
    remembered, so that the exit code tells of it.
    """

    #: Seconds in which a repeated signal is the same wish.
    _SAME_WISH = 2.0

    def __init__(self) -> None:
        #: There was a wish.
        self.seen = False
        self._last = float("-inf")
        # A pipe that the C half of Python's signal handler writes to: the other half
        # does not run if a signal comes just before a thread goes to sleep.
        self._pipe = (-1, -1)
        self._waits = False

    def install(self) -> None:
        """Listen, but not to what our parent told us to ignore (nohup, ``&``)."""
        self.seen, self._last = False, float("-inf")
        for number in _POLITE:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._take)

    def end(self) -> None:
        """Listen no more: all that is left is to exit."""
        for number in _POLITE:
            signal.signal(number, signal.SIG_IGN)

    def _take(self, number: int, frame: FrameType | None) -> None:
        self.seen = True
        now = time.monotonic()
        if now - self._last <= self._SAME_WISH:
            return
        self._last = now
        # One that already waits has found no place for too long.
        if self._pipe[0] < 0 or self._waits:
            self._waits = False
            raise KeyboardInterrupt
        self._waits = True

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """Let a wish strike only where :meth:`check` is called, for a with block.

        Anywhere else it may come between the taking of a lock and the try that gives
        it back, in code that is not ours, and whoever cleans up waits for ever.

        :raise KeyboardInterrupt: At the end, when a wish has found no place.
        """
        self._waits = False
        self._pipe = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        before = signal.set_wakeup_fd(self._pipe[1], warn_on_full_buffer=False)
        try:
            yield
            self.check()
        finally:
            signal.set_wakeup_fd(before)
            pipe, self._pipe = self._pipe, (-1, -1)
            for fd in pipe:
                os.close(fd)

    def fileno(self) -> int:
        """Return what this thread should wait for as well; -1 if for nothing.

        Once it is readable :meth:`check` may have something to say.
        """
        in_main = threading.current_thread() is threading.main_thread()
        return self._pipe[0] if in_main else -1

    def check(self) -> None:
        """Let a wish that waits strike here; without :meth:`deferred` none waits.

        :raise KeyboardInterrupt: When there is one.
        """
        if self._pipe[0] < 0:
            return
        with contextlib.suppress(BlockingIOError):
            os.read(self._pipe[0], select.PIPE_BUF)
        if self._waits:
            self._waits = False
            raise KeyboardInterrupt


#: Of this process.
INTERRUPTS = Interrupts()
