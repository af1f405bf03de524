# SPDX-License-Identifier: GPL-2.0-or-later
"""Ctrl-C strikes where it may, and is not forgotten."""

from __future__ import annotations

import os
import signal
import threading
from typing import TYPE_CHECKING

import pytest

from viotest.interrupts import INTERRUPTS, Interrupts
from viotest.machine.latch import wait_readable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LONG = 30.0


@pytest.fixture
def interrupts() -> Iterator[Interrupts]:
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}
    INTERRUPTS.install()
    yield INTERRUPTS
    for number, handler in before.items():
        signal.signal(number, handler)


def strike(number: signal.Signals = signal.SIGINT) -> None:
    os.kill(os.getpid(), number)


def defer(interrupts: Interrupts, work: Callable[[], object]) -> list[str]:
    """Do some work, which must be interrupted; return how far it came."""
    steps: list[str] = []

    def carry_out() -> None:
        with interrupts.deferred():
            steps.append("begun")
            work()
            steps.append("worked")

    with pytest.raises(KeyboardInterrupt):
        carry_out()
    return steps


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_wish_strikes_at_once(interrupts: Interrupts, number: signal.Signals) -> None:
    with pytest.raises(KeyboardInterrupt):
        strike(number)
    assert interrupts.seen


def test_none_waits_where_it_strikes_at_once(interrupts: Interrupts) -> None:
    with pytest.raises(KeyboardInterrupt):
        strike()
    interrupts.check()


def test_deferred_wish_strikes_in_a_wait_and_only_once(interrupts: Interrupts) -> None:
    cleaned: list[set[int]] = []

    def work() -> None:
        strike()
        strike(signal.SIGTERM)
        try:
            wait_readable([], LONG)
            pytest.fail("waited in vain")
        finally:
            strike()
            # What cleans up waits in peace.
            cleaned.append(wait_readable([], 0))

    assert defer(interrupts, work) == ["begun"]
    assert cleaned == [set()]


def test_repeated_wish_does_not_shorten_a_wait(interrupts: Interrupts) -> None:
    ready, write = os.pipe()
    found: list[set[int]] = []

    def work() -> None:
        strike()
        try:
            interrupts.check()
        finally:
            strike()
            timer = threading.Timer(0.1, os.write, (write, b"x"))
            timer.start()
            found.append(wait_readable([ready], LONG))
            timer.join()

    assert defer(interrupts, work) == ["begun"]
    assert found == [{ready}]
    os.close(ready)
    os.close(write)


def test_deferred_wish_ends_a_wait(interrupts: Interrupts) -> None:
    main = threading.main_thread().ident
    assert main is not None
    ready, write = os.pipe()
    entered = threading.Event()

    def strike_when_entered() -> None:
        entered.wait(LONG)
        signal.pthread_kill(main, signal.SIGINT)

    def work() -> None:
        entered.set()
        if not wait_readable([ready], LONG):
            pytest.fail("the wait went on")

    thread = threading.Thread(target=strike_when_entered)
    thread.start()
    assert defer(interrupts, work) == ["begun"]
    thread.join()
    os.close(ready)
    os.close(write)


def test_deferred_wish_does_not_reach_other_threads(interrupts: Interrupts) -> None:
    seen: list[object] = []

    def wait() -> None:
        try:
            seen.append(wait_readable([], 0))
        except KeyboardInterrupt as error:
            seen.append(error)

    def work() -> None:
        strike()
        thread = threading.Thread(target=wait)
        thread.start()
        thread.join()

    assert defer(interrupts, work) == ["begun", "worked"]
    assert seen == [set()]


def test_deferred_wish_strikes_at_the_end_at_the_latest(interrupts: Interrupts) -> None:
    assert defer(interrupts, strike) == ["begun", "worked"]
    # From then on it is as before.
    interrupts.install()
    with pytest.raises(KeyboardInterrupt):
        strike()


def test_second_wish_does_not_wait_as_the_first_did(
    interrupts: Interrupts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Interrupts, "_SAME_WISH", -1.0)

    def work() -> None:
        strike()
        strike()
        pytest.fail("the second wish waits, too")

    assert defer(interrupts, work) == ["begun"]


def test_lock_is_not_lost_to_a_wish(interrupts: Interrupts) -> None:
    lock = threading.Lock()

    def work() -> None:
        lock.acquire()  # the try comes too late for a wish that strikes here
        strike()
        lock.release()

    assert defer(interrupts, work) == ["begun", "worked"]
    assert not lock.locked()
