# SPDX-License-Identifier: GPL-2.0-or-later
"""Many requests on a virtqueue at once, in one exchange with QEMU: :class:`Ring`."""

from __future__ import annotations

import struct
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from viotest.conformance import virtio
from viotest.conformance.lab import POISON, Answer
from viotest.conformance.qtest import (
    decode_read,
    fill_command,
    read_command,
    write_command,
    write_value_command,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from viotest.conformance.qtest import Qtest
    from viotest.conformance.virtio import VirtioPci
    from viotest.conformance.virtqueue import Virtqueue
    from viotest.trace.model import Request

_READABLE = 0x1100000
_WRITABLE = 0x2000000
#: What is made writable at once, at the most; a single request always fits.
_MAX_WRITABLE = 1 << 20
#: Between two writable buffers, poisoned: a write past the end is seen.
_GAP = 16
#: Two descriptors for each request.
_PER_REQUEST = 2
_F_NEXT, _F_WRITE = 1, 2

_ANSWER_TIMEOUT = 5.0


@dataclass(frozen=True)
class BatchAnswer:
    """What became of requests that were made available together."""

    #: One for each request; used None: it was not returned.
    answers: tuple[Answer, ...]
    #: What the device did that no driver can live with; empty if nothing.
    broken: str = ""


@dataclass(frozen=True)
class _Layout:
    readable: bytes
    table: bytes
    #: Offset and size of each request's writable buffer.
    buffers: tuple[tuple[int, int], ...]
    extent: int


class Ring:
    """The request queue of a device that is ready, used for nothing else.

    :param qtest: The machine.
    :param device: The device.
    :param queue: Its request queue, unused yet.
    :param index: The number of the queue.
    """

    def __init__(
        self, qtest: Qtest, device: VirtioPci, queue: Virtqueue, index: int
    ) -> None:
        self._qtest = qtest
        self._queue = queue
        self._index = index
        self._notify = device.notify_address(index)
        self._status = device.status_address
        self._next = 0
        #: How many requests fit.
        self.size = queue.size // _PER_REQUEST

    def run(self, requests: Sequence[Request]) -> BatchAnswer:
        """Make requests available together, and wait for all of them.

        :param requests: As many as :meth:`has_room` allows.
        """
        layout = _lay_out(requests)
        collect = [
            f"readb {self._status:#x}",
            read_command(self._queue.device, 4 + 8 * self._queue.size),
            read_command(_WRITABLE, layout.extent),
        ]
        answers = self._qtest.exchange([*self._submit(layout), *collect])[-3:]
        deadline = time.monotonic() + _ANSWER_TIMEOUT
        while not self._is_done(answers, len(requests)):
            if time.monotonic() > deadline:
                break
            answers = self._qtest.exchange(collect)
        return self._result(answers, layout)

    def has_room(self, nr: int, writable: int) -> bool:
        """Whether so many requests, with so many writable bytes in all, fit."""
        return nr <= self.size and writable <= _MAX_WRITABLE

    # The index comes after the ring entries: the device may look while we write.
    def _submit(self, layout: _Layout) -> list[str]:
        queue, nr = self._queue, len(layout.buffers)
        entries = [(self._next + i) % queue.size for i in range(nr)]
        ring = queue.driver + 4
        commands = [
            fill_command(_WRITABLE, layout.extent, POISON),
            write_command(queue.desc, layout.table),
        ]
        if layout.readable:
            commands.append(write_command(_READABLE, layout.readable))
        # At most two pieces: up to the end of the ring, and from its start on.
        first = min(nr, queue.size - entries[0])
        for begin, end in ((0, first), (first, nr)):
            if end > begin:
                heads = [_PER_REQUEST * i for i in range(begin, end)]
                data = struct.pack(f"<{len(heads)}H", *heads)
                commands.append(write_command(ring + 2 * entries[begin], data))
        index = (self._next + nr) & 0xFFFF
        commands.append(write_value_command(queue.driver + 2, 2, index))
        commands.append(write_value_command(self._notify, 2, self._index))
        return commands

    def _is_done(self, answers: Sequence[str], nr: int) -> bool:
        used = decode_read(answers[1])
        done = (int.from_bytes(used[2:4], "little") - self._next) & 0xFFFF
        return done >= nr or bool(int(answers[0], 16) & virtio.NEEDS_RESET)

    def _result(self, answers: Sequence[str], layout: _Layout) -> BatchAnswer:
        used, image = decode_read(answers[1]), bytearray(decode_read(answers[2]))
        needs_reset = bool(int(answers[0], 16) & virtio.NEEDS_RESET)
        nr = len(layout.buffers)
        lengths, broken = self._used_lengths(used, nr)
        self._next = (self._next + nr) & 0xFFFF
        found = []
        for number, (offset, size) in enumerate(layout.buffers):
            data = bytes(image[offset : offset + size])
            image[offset : offset + size] = bytes([POISON]) * size
            found.append(Answer(lengths.get(number), data, needs_reset))
        if image.strip(bytes([POISON])):
            broken = broken or "bytes were written beside the writable buffers"
        if needs_reset:
            broken = broken or "the device asks for a reset"
        elif len(lengths) < nr:
            broken = broken or f"no answer within {_ANSWER_TIMEOUT:g} s"
        return BatchAnswer(tuple(found), broken)

    def _used_lengths(self, used: bytes, nr: int) -> tuple[dict[int, int], str]:
        done = (int.from_bytes(used[2:4], "little") - self._next) & 0xFFFF
        lengths: dict[int, int] = {}
        for i in range(min(done, self._queue.size)):
            slot = 4 + 8 * ((self._next + i) % self._queue.size)
            head, length = struct.unpack_from("<II", used, slot)
            number, odd = divmod(head, _PER_REQUEST)
            if odd or number >= nr:
                return lengths, f"the used ring has a head that is none, {head}"
            if number in lengths:
                return lengths, f"request {number + 1} of {nr} was returned twice"
            lengths[number] = length
        return lengths, ""


def _lay_out(requests: Sequence[Request]) -> _Layout:
    readable, table = bytearray(), bytearray()
    buffers, at = [], 0
    for number, request in enumerate(requests):
        source, target = _READABLE + len(readable), _WRITABLE + at
        buffers.append((at, request.writable))
        readable += request.data.ljust(request.readable, b"\0")
        readable += bytes(-len(readable) % 8)
        at += request.writable + _GAP
        at += -at % 8
        second = _PER_REQUEST * number + 1
        write = struct.pack("<QIHH", target, request.writable, _F_WRITE, 0)
        # A chain has one descriptor at least, and none that is empty beside others.
        if request.readable and request.writable:
            table += struct.pack("<QIHH", source, request.readable, _F_NEXT, second)
            table += write
        elif request.writable:
            table += write + bytes(16)
        else:
            table += struct.pack("<QIHH", source, request.readable, 0, 0) + bytes(16)
    return _Layout(bytes(readable), bytes(table), tuple(buffers), at)
