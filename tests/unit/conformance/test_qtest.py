# SPDX-License-Identifier: GPL-2.0-or-later
"""The qtest client and the queue's memory layout, against a server of a few lines."""

from __future__ import annotations

import base64
import contextlib
import socket
import threading
from typing import TYPE_CHECKING

import pytest

from viotest.conformance.errors import TargetLostError
from viotest.conformance.qtest import Qtest, SocketLink
from viotest.conformance.virtqueue import AREA_SIZE, Buffer, Virtqueue

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@contextlib.contextmanager
def serving(answer: Callable[[list[str]], bytes]) -> Iterator[Qtest]:
    """Serve qtest commands by a function of their words."""
    ours, theirs = socket.socketpair()

    def serve() -> None:
        with theirs, theirs.makefile("rb") as lines:
            for line in lines:
                reply = answer(line.decode().split())
                if not reply:
                    return
                theirs.sendall(reply)

    thread = threading.Thread(target=serve)
    thread.start()
    qtest = Qtest(SocketLink(ours))
    try:
        yield qtest
    finally:
        qtest.close()
        thread.join()


class Ram:
    """Some memory that answers as QEMU does."""

    def __init__(self) -> None:
        self.bytes = bytearray(2 * AREA_SIZE)

    def answer(self, words: list[str]) -> bytes:
        name, at = words[0], int(words[1], 16)
        match name:
            case "memset":
                size = int(words[2], 16)
                self.bytes[at : at + size] = bytes([int(words[3], 16)]) * size
            case "writew":
                self.bytes[at : at + 2] = int(words[2], 16).to_bytes(2, "little")
            case "readw":
                value = int.from_bytes(self.bytes[at : at + 2], "little")
                return f"OK 0x{value:016x}\n".encode()
            case "b64write":
                data = base64.b64decode(words[3])
                self.bytes[at : at + len(data)] = data
            case "b64read":
                data = bytes(self.bytes[at : at + int(words[2], 16)])
                return b"OK " + base64.b64encode(data) + b"\n"
        return b"OK\n"


def test_memory_goes_both_ways() -> None:
    with serving(Ram().answer) as qtest:
        qtest.write(16, b"a piece of memory")
        assert qtest.read(16, 17) == b"a piece of memory"
        qtest.fill(16, 2, 0xAA)
        assert qtest.read_value(16, 2) == 0xAAAA


@pytest.mark.parametrize(
    "reply", [b"FAIL Unknown command\n", b"", b"OK nonsense\n", b"\xff\n"]
)
def test_wrong_answer_is_a_lost_target(reply: bytes) -> None:
    with (
        serving(lambda _: reply) as qtest,
        pytest.raises(TargetLostError, match="readl"),
    ):
        qtest.read_value(0, 4)


def test_queue_chain_lies_as_the_specification_has_it() -> None:
    ram = Ram()
    with serving(ram.answer) as qtest:
        queue = Virtqueue(qtest, 0, 8)
        buffers = [Buffer(0x1000, 20, False), Buffer(0x2000, 4, True)]
        queue.add(buffers, first=3)
        table = ram.bytes[3 * 16 : 5 * 16]
        assert table[:16] == bytes.fromhex("0010000000000000 14000000 0100 0400")
        assert table[16:] == bytes.fromhex("0020000000000000 04000000 0200 0000")
        # Flags: no interrupt; index 1; head 3.
        assert ram.bytes[0x1000:0x1006] == bytes.fromhex("0100 0100 0300")
        assert queue.take() is None
        ram.bytes[0x2000:0x200C] = bytes.fromhex("0000 0100 03000000 04000000")
        assert queue.take() == (3, 4)
        assert queue.take() is None


def test_queue_indirect_chain_has_one_descriptor() -> None:
    ram = Ram()
    with serving(ram.answer) as qtest:
        queue = Virtqueue(qtest, 0, 8)
        queue.add([Buffer(0x1000, 4, False), Buffer(0x2000, 4, True)], indirect=True)
        assert ram.bytes[:16] == bytes.fromhex("0030000000000000 20000000 0400 0000")
        assert ram.bytes[0x301C:0x3020] == bytes.fromhex("0200 0000")
