# SPDX-License-Identifier: GPL-2.0-or-later
"""The console's reader, fed through its pipe with whatever a guest may print."""

from __future__ import annotations

import contextlib
import ctypes
import os
import stat
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from viotest.machine.console import Console, parse_beacon, printable
from viotest.machine.folder import RunFolder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.unit.machine.conftest import Timeline

# Like QEMU's serial port: a byte at a time, and what does not fit is lost.
FLOOD = """
import os
fd = os.open("console.out", os.O_RDWR | os.O_NONBLOCK)
for number in range(30_000):
    for byte in b"%9d\\n" % number:
        try:
            os.write(fd, bytes((byte,)))
        except BlockingIOError:
            pass
"""
BEACON = b'VIOTEST-BEACON {"monotonic_ns": 1234, "release": "6.12.1-amd64"}\r\n'


@contextlib.contextmanager
def console_of(
    folder: Path, *chunks: bytes, record: Timeline | None = None
) -> Iterator[Console]:
    with RunFolder(folder) as run:
        console = Console(run) if record is None else Console(run, record=record)
        console.start()
        with (folder / "console.out").open("wb", buffering=0) as pipe:
            console.connected()
            for chunk in chunks:
                assert pipe.write(chunk) == len(chunk)
                time.sleep(0.01 if len(chunks) > 1 else 0)
        assert console.drained.wait(5)
        yield console
        console.close()


def test_console_log_is_raw(tmp_path: Path) -> None:
    data = b"\x1b[1mhello\x1b[0m\r\n\xff\xfe\x00\r\nno end"
    with console_of(tmp_path, data) as console:
        assert console.tail() == ("hello", "\ufffd\ufffd\\x00", "no end")
    assert (tmp_path / "console.log").read_bytes() == data


def hold_gil_until_end(pid: int) -> None:
    """Wait for a process in a way that lets no other thread run Python."""
    info = ctypes.create_string_buffer(128)  # a siginfo_t
    # Unlike CDLL, PyDLL keeps the lock for the length of the call.
    waitid = ctypes.PyDLL(None).waitid
    assert waitid(os.P_PID, pid, info, os.WEXITED | os.WNOWAIT) == 0


def test_console_loses_nothing_while_python_is_busy(tmp_path: Path) -> None:
    with RunFolder(tmp_path) as run, contextlib.closing(Console(run)) as console:
        console.start()
        argv = [sys.executable, "-S", "-E", "-c", FLOOD]
        with subprocess.Popen(argv, cwd=tmp_path) as child:
            hold_gil_until_end(child.pid)
        assert child.returncode == 0
        console.connected()
        assert console.drained.wait(10)
    data = (tmp_path / "console.log").read_bytes()
    assert data == b"".join(b"%9d\n" % number for number in range(30_000))


def test_console_pipes_are_private_and_go(tmp_path: Path) -> None:
    names = {"console.in", "console.out"}
    with RunFolder(tmp_path) as run, contextlib.closing(Console(run)) as console:
        console.start()
        modes = {path.name: path.stat().st_mode for path in tmp_path.iterdir()}
        assert {n for n, mode in modes.items() if stat.S_ISFIFO(mode)} == names
        assert {stat.S_IMODE(modes[name]) for name in names} == {0o600}
        # Nobody has written yet, but that is not the end.
        assert not console.drained.wait(0.05)
        console.connected()
        assert console.drained.wait(5)
        assert not names & {path.name for path in tmp_path.iterdir()}


def test_console_that_nobody_opens_is_closed_at_once(tmp_path: Path) -> None:
    begin = time.monotonic()
    with RunFolder(tmp_path) as run, contextlib.closing(Console(run)) as console:
        console.start()
    assert time.monotonic() - begin < 0.5
    assert [path.name for path in tmp_path.iterdir()] == ["console.log"]


def test_console_is_closed_though_someone_holds_it(tmp_path: Path) -> None:
    with RunFolder(tmp_path) as run:
        console = Console(run)
        console.start()
        with (tmp_path / "console.out").open("r+b", buffering=0) as pipe:
            console.connected()
            pipe.write(b"the last words")
            begin = time.monotonic()
            console.close()
        assert time.monotonic() - begin < 5
        assert console.drained.is_set()
    assert (tmp_path / "console.log").read_bytes() == b"the last words"


def test_console_lines_are_stamped(tmp_path: Path, timeline: Timeline) -> None:
    begin = time.monotonic_ns()
    with console_of(tmp_path, b"one\r\ntwo\n\n", record=timeline):
        pass
    assert timeline.named("console", "line") == [{"text": "one"}, {"text": "two"}]
    assert all(begin <= e[3] <= time.monotonic_ns() for e in timeline.events)


def test_console_beacon_in_pieces(tmp_path: Path) -> None:
    with console_of(tmp_path, BEACON[:9], BEACON[9:30], BEACON[30:]) as console:
        assert console.ready.is_set()
        assert console.beacon is not None
        assert console.beacon.release == "6.12.1-amd64"


def test_console_first_beacon_counts(tmp_path: Path) -> None:
    again = BEACON.replace(b"1234", b"9999")
    with console_of(tmp_path, BEACON + again) as console:
        assert console.beacon is not None
        assert console.beacon.monotonic_ns == 1234


@pytest.mark.parametrize(
    "body",
    [
        "",
        "{",
        "[]",
        "null",
        "[" * 100_000,
        '{"release": "x"}',
        '{"monotonic_ns": true, "release": "x"}',
        '{"monotonic_ns": -1, "release": "x"}',
        '{"monotonic_ns": 1e3, "release": "x"}',
        '{"monotonic_ns": 9223372036854775808, "release": "x"}',
        '{"monotonic_ns": 1, "release": 6}',
        '{"monotonic_ns": 1, "release": "' + "x" * 65 + '"}',
        '{"monotonic_ns": ' + "9" * 5000 + ', "release": "x"}',
    ],
)
def test_beacon_malformed(body: str) -> None:
    assert parse_beacon(f"VIOTEST-BEACON {body}", 0) is None


def test_beacon_after_kernel_message() -> None:
    line = '[    1.2] eth0: up VIOTEST-BEACON {"monotonic_ns": 7, "release": "6"} x'
    beacon = parse_beacon(line, 5)
    assert beacon is not None
    assert (beacon.time_ns, beacon.monotonic_ns) == (5, 7)


@pytest.mark.parametrize(
    ("line", "fatal"),
    [
        (b"Kernel panic - not syncing: VFS: Unable to mount root fs", True),
        (b"BUG: unable to handle page fault for address: ffff", False),
        (b"Oops: Oops: 0000 [#1] PREEMPT SMP", False),
        (b"Oops: general protection fault, probably for non-canonical", False),
        (b"watchdog: BUG: soft lockup - CPU#0 stuck for 26s!", False),
        (b"rcu: INFO: rcu_preempt self-detected stall on CPU", False),
        (b"rcu: INFO: rcu_sched detected stalls on CPUs/tasks:", False),
    ],
)
def test_console_trouble(tmp_path: Path, line: bytes, fatal: bool) -> None:
    with console_of(tmp_path, b"[    1.0] " + line + b"\r\n") as console:
        text = f"[    1.0] {line.decode()}"
        assert (console.panic if fatal else console.trouble) == text
        assert console.fatal.is_set() is fatal


def test_console_harmless(tmp_path: Path) -> None:
    lines = b"DEBUG: x\r\nVIOTEST-BEACON \r\nrcu: Hierarchical RCU implementation\r\n"
    with console_of(tmp_path, lines) as console:
        assert (console.panic, console.trouble, console.beacon) == (None, None, None)


def test_console_endless_line_is_cut(tmp_path: Path) -> None:
    with console_of(tmp_path, b"x" * 200_000) as console:
        assert max(len(line) for line in console.tail()) < 10_000


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        (b"plain\r\n", "plain"),
        (b"\x1bc\x1b[?7l\x1b[2J\x1b[0mSeaBIOS", "SeaBIOS"),
        (b"\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        (b"a\x08b\tc", "a\\x08b\tc"),
        ("\u202eevil".encode(), "\\u202eevil"),
        (b"\x9b31m", "\ufffd31m"),
    ],
)
def test_printable(data: bytes, shown: str) -> None:
    assert printable(data) == shown
