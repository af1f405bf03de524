# SPDX-License-Identifier: GPL-2.0-or-later
"""The console's reader, fed by a socket pair with whatever a guest may print."""

from __future__ import annotations

import contextlib
import socket
import time
from typing import TYPE_CHECKING

import pytest

from viotest.machine.console import Console, parse_beacon, printable
from viotest.machine.folder import RunFolder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.unit.machine.conftest import Timeline

BEACON = b'VIOTEST-BEACON {"monotonic_ns": 1234, "release": "6.12.1-amd64"}\r\n'


@contextlib.contextmanager
def console_of(
    folder: Path, *chunks: bytes, record: Timeline | None = None
) -> Iterator[Console]:
    ours, theirs = socket.socketpair()
    with RunFolder(folder) as run:
        console = Console(run) if record is None else Console(run, record=record)
        console.start(ours)
        for chunk in chunks:
            theirs.sendall(chunk)
            time.sleep(0.01 if len(chunks) > 1 else 0)
        theirs.close()
        assert console.drained.wait(5)
        yield console
        console.close()


def test_console_log_is_raw(tmp_path: Path) -> None:
    data = b"\x1b[1mhello\x1b[0m\r\n\xff\xfe\x00\r\nno end"
    with console_of(tmp_path, data) as console:
        assert console.tail() == ("hello", "\ufffd\ufffd\\x00", "no end")
    assert (tmp_path / "console.log").read_bytes() == data


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
