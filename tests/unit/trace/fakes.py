# SPDX-License-Identifier: GPL-2.0-or-later
"""Targets for replays that need no QEMU: a model, and a machine with a ring."""

from __future__ import annotations

import base64
import struct
from typing import TYPE_CHECKING

from tests.unit.conformance.model import Model
from viotest.conformance.errors import TargetLostError
from viotest.conformance.lab import Answer, Shape
from viotest.trace.ring import BatchAnswer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from viotest.conformance.wire import Feature
    from viotest.trace.model import Request

#: What the model is, and what the traces of these tests say of it.
SHAPE = Shape("trace")


class ModelDevice:
    """The model of the specification as a target; ``defect`` as there.

    :param dies_at: The batch in which it is lost.
    """

    def __init__(self, defect: str = "", *, dies_at: int = 0) -> None:
        self.model = Model(SHAPE, defect)
        self.ids: Mapping[int, int] = {}
        #: How many requests each batch had.
        self.batches: list[int] = []
        #: What was done beside requests.
        self.calls: list[str] = []
        self._dies_at = dies_at

    def offered(self) -> Feature:
        return self.model.offered()

    def reset(self) -> None:
        self.calls.append("reset")
        self.model.reset()

    def system_reset(self) -> None:
        self.calls.append("system reset")
        self.model.system_reset()

    def negotiate(self, features: Feature) -> bool:
        self.calls.append(f"negotiate {int(features):#x}")
        return self.model.negotiate(features)

    def write_config(self, offset: int, size: int, value: int) -> None:
        self.calls.append(f"config {offset} {size} {value}")
        self.model.write_config(offset, size, value)

    def has_room(self, nr: int, writable: int) -> bool:
        return nr <= 4 and writable <= 4096

    def run(self, requests: Sequence[Request]) -> BatchAnswer:
        self.batches.append(len(requests))
        if len(self.batches) == self._dies_at:
            raise TargetLostError("the connection is closed")
        answers = [
            self.model.submit([r.data.ljust(r.readable, b"\0")], [r.writable])
            for r in requests
        ]
        stuck = next((i for i, a in enumerate(answers) if a.used is None), None)
        if stuck is None:
            return BatchAnswer(tuple(answers))
        rest = [Answer(None, a.data) for a in answers[stuck:]]
        return BatchAnswer((*answers[:stuck], *rest), "the device asks for a reset")

    def post_mortem(self) -> str:
        return "QEMU was killed by SIGSEGV" if self._dies_at else ""


class FakeQtest:
    """A machine of memory and one device that takes what is on the ring when notified.

    :param answer: What the device does with a chain: gets its readable bytes and the
        size of what it may write; returns used length and what it writes.
    """

    NOTIFY = 0xC0003000
    STATUS = 0xC0000014

    def __init__(self, answer: Callable[[bytes, int], tuple[int, bytes]]) -> None:
        self.memory = bytearray(0x3000000)
        self.status = 0xF
        #: What is said of each chain: how often it comes back.
        self.returns: Callable[[int], int] = lambda number: 1
        self.nr_exchanges = 0
        self.nr_chains = 0
        self._answer = answer
        self._next_avail = self._next_used = 0
        self.desc = self.driver = self.device = 0
        self.size = 0

    def exchange(self, commands: Sequence[str]) -> list[str]:
        self.nr_exchanges += 1
        return [self._command(*command.split()) for command in commands]

    def _command(self, verb: str, where: str, *rest: str) -> str:
        at = int(where, 16)
        if verb == "b64write":
            data = base64.b64decode(rest[1])
            assert len(data) == int(rest[0], 16)
            self.memory[at : at + len(data)] = data
        elif verb == "memset":
            self.memory[at : at + int(rest[0], 16)] = bytes([int(rest[1], 16)]) * int(
                rest[0], 16
            )
        elif verb == "b64read":
            return base64.b64encode(self.memory[at : at + int(rest[0], 16)]).decode()
        elif verb == "readb":
            assert at == self.STATUS
            return hex(self.status)
        elif verb == "writew" and at == self.NOTIFY:
            self._run()
        else:
            assert verb == "writew"
            struct.pack_into("<H", self.memory, at, int(rest[0], 16))
        return ""

    def _run(self) -> None:
        (index,) = struct.unpack_from("<H", self.memory, self.driver + 2)
        while self._next_avail != index:
            slot = self.driver + 4 + 2 * (self._next_avail % self.size)
            (head,) = struct.unpack_from("<H", self.memory, slot)
            self._next_avail = (self._next_avail + 1) & 0xFFFF
            self.nr_chains += 1
            self._take(head)

    def _take(self, head: int) -> None:
        readable, room, at = b"", 0, 0
        number: int | None = head
        while number is not None:
            address, size, flags, following = struct.unpack_from(
                "<QIHH", self.memory, self.desc + 16 * number
            )
            if flags & 2:
                room, at = size, address
            else:
                readable += self.memory[address : address + size]
            number = following if flags & 1 else None
        used, data = self._answer(readable, room)
        self.memory[at : at + len(data)] = data
        for _ in range(self.returns(self.nr_chains)):
            slot = self.device + 4 + 8 * (self._next_used % self.size)
            struct.pack_into("<II", self.memory, slot, head, used)
            self._next_used = (self._next_used + 1) & 0xFFFF
        struct.pack_into("<H", self.memory, self.device + 2, self._next_used)
