# SPDX-License-Identifier: GPL-2.0-or-later
"""Requests go through a virtqueue in batches, and what comes back is looked at."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, cast

import pytest

from tests.unit.trace.fakes import FakeQtest
from viotest.conformance.virtio import NEEDS_RESET
from viotest.trace import ring as subject
from viotest.trace.model import Outcome, Request
from viotest.trace.ring import Ring

if TYPE_CHECKING:
    from collections.abc import Callable

_QUEUE = 0x1000000
_SIZE = 16


class _Transport:
    status_address = FakeQtest.STATUS

    def notify_address(self, index: int) -> int:
        assert index == 0
        return FakeQtest.NOTIFY


class _Queue:
    size = _SIZE
    desc = _QUEUE
    driver = _QUEUE + 0x1000
    device = _QUEUE + 0x2000


def make_ring(
    answer: Callable[[bytes, int], tuple[int, bytes]],
) -> tuple[Ring, FakeQtest]:
    qtest = FakeQtest(answer)
    qtest.size = _SIZE
    qtest.desc, qtest.driver, qtest.device = _Queue.desc, _Queue.driver, _Queue.device
    return Ring(
        cast("Any", qtest), cast("Any", _Transport()), cast("Any", _Queue()), 0
    ), qtest


def request(data: bytes, writable: int = 4, readable: int | None = None) -> Request:
    length = len(data) if readable is None else readable
    return Request(data, length, writable, Outcome(0, writable))


def echo(readable: bytes, room: int) -> tuple[int, bytes]:
    data = readable[:room].ljust(room, b"\0")
    return room, data


def test_batches_go_around_the_ring() -> None:
    ring, qtest = make_ring(echo)
    numbers = itertools.count()
    for size in (1, 8, 3, 8, 8, 5, 8, 1):
        sent = [next(numbers).to_bytes(4, "little") for _ in range(size)]
        result = ring.run([request(data) for data in sent])
        assert [answer.data for answer in result.answers] == sent
        assert [answer.used for answer in result.answers] == [4] * size
        assert result.broken == ""
    assert qtest.nr_exchanges == 8


def test_indices_wrap() -> None:
    ring, _ = make_ring(echo)
    ring._next = 0xFFFD
    qtest = cast("FakeQtest", ring._qtest)
    qtest._next_avail = qtest._next_used = 0xFFFD
    sent = [bytes([i] * 4) for i in range(8)]
    result = ring.run([request(data) for data in sent])
    assert [answer.data for answer in result.answers] == sent
    assert not result.broken


def test_lengths_are_as_the_driver_made_them() -> None:
    seen = []

    def answer(readable: bytes, room: int) -> tuple[int, bytes]:
        seen.append((readable, room))
        return 0, b""

    ring, _ = make_ring(answer)
    sent = [
        request(b"abc", 3),
        request(b"", 4),
        request(b"xy", 0),
        request(b"q" * 72, 600, readable=100),
        request(b"", 0),
    ]
    result = ring.run(sent)
    assert seen == [
        *((b"abc", 3), (b"", 4), (b"xy", 0)),
        (b"q" * 72 + bytes(28), 600),
        (b"", 0),
    ]
    assert [len(answer.data) for answer in result.answers] == [3, 4, 0, 600, 0]
    assert all(not answer.data.strip(b"\xaa") for answer in result.answers)
    assert not result.broken


def test_room_is_limited() -> None:
    ring, _ = make_ring(echo)
    assert ring.size == _SIZE // 2
    assert ring.has_room(ring.size, 1 << 20)
    assert not ring.has_room(ring.size + 1, 4)
    assert not ring.has_room(2, (1 << 20) + 1)


def test_write_past_the_end_is_seen() -> None:
    ring, _ = make_ring(lambda readable, room: (room, bytes(room + 1)))
    assert "beside the writable buffers" in ring.run([request(b"a")]).broken


def test_request_returned_twice_is_seen() -> None:
    ring, qtest = make_ring(echo)
    qtest.returns = lambda number: 2 if number == 2 else 1
    result = ring.run([request(b"a"), request(b"b"), request(b"c")])
    assert "request 2 of 3 was returned twice" in result.broken


def test_request_that_does_not_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "_ANSWER_TIMEOUT", 0.05)
    ring, qtest = make_ring(echo)
    qtest.returns = lambda number: 0 if number == 2 else 1
    result = ring.run([request(b"a"), request(b"b"), request(b"c")])
    assert [answer.used for answer in result.answers] == [4, None, 4]
    assert "no answer" in result.broken


def test_device_that_asks_for_a_reset_is_not_waited_for() -> None:
    ring, qtest = make_ring(echo)
    qtest.returns = lambda number: 0
    qtest.status |= NEEDS_RESET
    result = ring.run([request(b"a")])
    assert result.broken == "the device asks for a reset"
    assert result.answers[0].needs_reset
    assert qtest.nr_exchanges == 1


@pytest.mark.parametrize("head", [1, 6, 0xFFFF])
def test_head_that_is_none_is_seen(head: int) -> None:
    ring, qtest = make_ring(echo)
    take = qtest._take

    def wrong(number: int) -> None:
        take(number)
        at = qtest.device + 4 + 8 * ((qtest._next_used - 1) % _SIZE)
        qtest.memory[at : at + 4] = head.to_bytes(4, "little")

    qtest._take = wrong  # type: ignore[method-assign, assignment]
    result = ring.run([request(b"a"), request(b"b")])
    assert "a head that is none" in result.broken
