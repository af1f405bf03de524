# SPDX-License-Identifier: GPL-2.0-or-later
"""Guest and its clock."""

from __future__ import annotations

import shlex
import sys
import time
from typing import TYPE_CHECKING

from viotest.guest import guest as guest_module
from viotest.guest.clock import ClockMap, RoundTrip, map_clock, tie_clocks
from viotest.guest.guest import Guest
from viotest.guest.keys import GuestKeys

if TYPE_CHECKING:
    import pytest

    from tests.unit.guest.conftest import Bench

# Answers every command with the host's clock, an hour behind.
HOUR = 3600 * 10**9
PROBE = f"""
import os, sys, time
for line in sys.stdin:
    now = time.monotonic_ns() - {HOUR}
    answer = '{{"ok":true,"command":"hello","monotonic_ns":%d,"pid":%d}}'
    print(answer % (now, os.getpid()), flush=True)
"""


def probe_command(script: str) -> str:
    return f"exec {shlex.quote(sys.executable)} -S -E -c {shlex.quote(script)}"


def test_guest_clock_is_mapped(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guest_module, "PROBE_COMMAND", probe_command(PROBE))
    bench.guest.start()
    with Guest(bench.guest.sock, bench.keys, bench.watch) as guest:
        guest.connect(timeout=10)
        clock = guest.measure_clock()
        now = time.monotonic_ns()
        assert abs(clock.offset_ns - HOUR) <= clock.error_ns
        assert abs(clock.host_ns(now - HOUR) - now) <= clock.error_ns
        assert guest.exec("echo hi", timeout=10).out == b"hi\n"


def test_guest_probe_restarts(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guest_module, "PROBE_COMMAND", probe_command(PROBE))
    bench.guest.start()
    with Guest(bench.guest.sock, bench.keys, bench.watch) as guest:
        guest.connect(timeout=10)
        first = guest.probe
        pid = first.call("hello")["pid"]
        guest.restart_probe(timeout=10)
        # Whoever holds the probe goes on with the other process.
        assert guest.probe is first
        assert first.call("hello")["pid"] != pid


def test_map_clock_takes_what_is_common() -> None:
    # Offsets 90..110 and 100..160.
    trips = [RoundTrip(100, 10, 120), RoundTrip(200, 100, 260)]
    assert map_clock(trips) == ClockMap(offset_ns=105, error_ns=5, at_guest_ns=100)


def test_map_clock_after_a_step_takes_the_best() -> None:
    trips = [RoundTrip(100, 10, 130), RoundTrip(500, 10, 510)]
    assert map_clock(trips) == ClockMap(offset_ns=495, error_ns=5, at_guest_ns=10)


def test_tied_clocks_agree_with_both_measurements() -> None:
    # A guest whose clock runs at a quarter of the host's speed.
    first = ClockMap(offset_ns=1000, error_ns=2, at_guest_ns=100)
    last = ClockMap(offset_ns=1300, error_ns=7, at_guest_ns=200)
    clock = tie_clocks(first, last)
    assert (clock.host_ns(100), clock.host_ns(200)) == (1100, 1500)
    assert clock.host_ns(150) == 1300
    assert clock.host_ns(0) == 700
    assert (clock.rate, clock.error_ns) == (4.0, 7)


def test_clock_that_went_back_is_not_tied() -> None:
    first = ClockMap(offset_ns=1000, error_ns=2, at_guest_ns=100)
    last = ClockMap(offset_ns=1300, error_ns=7, at_guest_ns=100)
    assert tie_clocks(first, last) == first


def test_keys_are_new_each_time() -> None:
    one, two = GuestKeys.generate(), GuestKeys.generate()
    assert one.host_public != two.host_public
    assert one.authorized_key.startswith("ssh-ed25519 AAAA")
    assert one.authorized_key.endswith(" viotest")
    assert "PRIVATE" not in repr(one)
