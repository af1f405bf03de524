# SPDX-License-Identifier: GPL-2.0-or-later
"""What /proc knows about a process: its time, its threads."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")

# Positions in /proc/PID/stat, counted from the field behind the name (proc(5)).
_UTIME, _STIME, _STARTTIME = 11, 12, 19


_PR_SET_PDEATHSIG = 1


def die_with(parent_pid: int) -> None:
    """Have the kernel kill this process when its parent is gone.

    :param parent_pid: Who the parent should be; ends this process if it is not.
    """
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:
        os._exit(1)  # it was too late already


def _stat(pid: int | str) -> list[bytes]:
    # The name is in parentheses and may hold anything.
    return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()


def process_cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process and its threads, user and system.

    :return: Seconds; 0.0 when the process is gone.
    """
    try:
        fields = _stat(pid)
    except OSError:
        return 0.0
    return (int(fields[_UTIME]) + int(fields[_STIME])) / _TICKS


def process_threads(pid: int) -> list[int]:
    """Return the ids of a process's threads; empty when the process is gone."""
    try:
        return [int(entry.name) for entry in Path(f"/proc/{pid}/task").iterdir()]
    except OSError:
        return []


def process_start_ns() -> int:
    """Return when this process was started, CLOCK_MONOTONIC nanoseconds.

    The kernel knows it to a clock tick (10 ms); it includes what the interpreter
    needs before our first line.
    """
    started = int(_stat("self")[_STARTTIME]) * 10**9 // _TICKS
    # starttime counts CLOCK_BOOTTIME, which goes on while the host sleeps.
    boottime_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    return started - (boottime_ns - time.monotonic_ns())
