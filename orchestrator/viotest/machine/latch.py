# SPDX-License-Identifier: GPL-2.0-or-later
"""A one-way flag that can be waited for together with file descriptors."""

from __future__ import annotations

import math
import os
import select
import threading
import time
from typing import TYPE_CHECKING

from viotest.interrupts import INTERRUPTS

if TYPE_CHECKING:
    from collections.abc import Iterable


class Latch:
    """A flag that is set once, by any thread, and then stays readable.

    A ``threading.Event`` cannot be polled beside a socket; an eventfd can.
    """

    def __init__(self) -> None:
        self._fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._lock = threading.Lock()
        self._set = False

    def set(self) -> None:
        """Set the flag; setting it again, or after close(), is harmless."""
        with self._lock:
            if not self._set and self._fd >= 0:
                os.eventfd_write(self._fd, 1)
            self._set = True

    def is_set(self) -> bool:
        """Return whether the flag is set; stays valid after close()."""
        return self._set

    def fileno(self) -> int:
        """Return a descriptor that is readable once the flag is set."""
        assert self._fd >= 0, "the latch is closed"
        return self._fd

    def wait(self, timeout: float) -> bool:
        """Wait until the flag is set.

        :param timeout: Seconds.
        :return: Whether it is set.
        """
        return self._set or bool(wait_readable([self.fileno()], timeout))

    def close(self) -> None:
        """Release the descriptor; idempotent."""
        with self._lock:
            if self._fd >= 0:
                os.close(self._fd)
                self._fd = -1


def wait_readable(fds: Iterable[int], timeout: float) -> set[int]:
    """Wait until one of several descriptors is readable or has hung up.

    ``select.select()`` is of no use here: it fails above descriptor 1023.

    :param fds: What to wait for.
    :param timeout: Seconds; at or below 0 only looks.
    :return: Those that are ready; empty when the time is over.
    :raise KeyboardInterrupt: When the user wants to wait no longer.
    """
    poll = select.poll()
    for fd in fds:
        poll.register(fd, select.POLLIN)
    wish = INTERRUPTS.fileno()
    if wish >= 0:
        poll.register(wish, select.POLLIN)
    until = time.monotonic() + timeout
    while True:
        # Rounded up: rounding down spins through the last millisecond.
        left = max(0, math.ceil((until - time.monotonic()) * 1000))
        ready = {fd for fd, _ in poll.poll(left)}
        if wish not in ready:
            return ready
        INTERRUPTS.check()
        # The repetition of a signal that was obeyed before.
        if ready != {wish}:
            return ready - {wish}
