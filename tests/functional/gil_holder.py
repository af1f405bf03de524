# SPDX-License-Identifier: GPL-2.0-or-later
"""``viotest-device`` that stops all of its Python for a while on SIGUSR1.

It says so on stderr, with CLOCK_MONOTONIC nanoseconds: ``GIL held BEGIN`` at once,
``GIL free END`` afterwards.
"""

from __future__ import annotations

import ctypes
import os
import signal
import time
from typing import TYPE_CHECKING

from viotest_device.cli import main

if TYPE_CHECKING:
    from types import FrameType

HOLD_SECONDS = 5


def _say(what: str) -> None:
    os.write(2, f"GIL {what} {time.monotonic_ns()}\n".encode())


def _hold(number: int, frame: FrameType | None) -> None:
    _say("held")
    # Unlike CDLL, PyDLL keeps the lock for the length of the call.
    ctypes.PyDLL(None).sleep(HOLD_SECONDS)
    _say("free")


if __name__ == "__main__":
    signal.signal(signal.SIGUSR1, _hold)
    raise SystemExit(main())
