# SPDX-License-Identifier: GPL-2.0-or-later
"""QEMU's qtest socket: port and memory accesses of a machine without a CPU.

:class:`Qtest` speaks the line protocol (QEMU, system/qtest.c). Only
:class:`~viotest.conformance.errors.TargetLostError` leaves this module.
"""

from __future__ import annotations

import base64
import time
from typing import TYPE_CHECKING, Protocol

from viotest.conformance.errors import TargetLostError
from viotest.machine.latch import wait_readable

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence

#: What a command of the protocol may take; QEMU answers most in microseconds, but a
#: device behind it may need its own timeout before it gives up.
_TIMEOUT = 40.0
#: Bytes of memory per command: QEMU reads a whole line before it does anything.
_PIECE = 1 << 20
_WIDTHS = {1: "b", 2: "w", 4: "l", 8: "q"}


def write_command(address: int, data: bytes) -> str:
    """Return the command that writes RAM."""
    text = base64.b64encode(data).decode()
    return f"b64write {address:#x} {len(data):#x} {text}"


def write_value_command(address: int, size: int, value: int) -> str:
    """Return the command that writes 1, 2, 4 or 8 bytes at once."""
    return f"write{_WIDTHS[size]} {address:#x} {value:#x}"


def fill_command(address: int, size: int, value: int) -> str:
    """Return the command that fills RAM with one byte."""
    return f"memset {address:#x} {size:#x} {value:#x}"


def read_command(address: int, size: int) -> str:
    """Return the command that reads RAM; :func:`decode_read` reads its answer."""
    return f"b64read {address:#x} {size:#x}"


def decode_read(answer: str) -> bytes:
    """Return the bytes that a command of :func:`read_command` was answered.

    :raise TargetLostError: When that is no base64.
    """
    try:
        return base64.b64decode(answer, validate=True)
    except ValueError as error:
        raise TargetLostError(f"qtest: answer {answer[:60]!r} is no base64") from error


class Link(Protocol):
    """The way to a qtest server."""

    def exchange(self, lines: Sequence[str]) -> list[str]:
        """Send lines, and return the one that answers each.

        :raise OSError: When there is no answer.
        """

    def close(self) -> None:
        """Hang up."""


class SocketLink:
    """A qtest server of this host; the socket is the link's own from now on.

    :param sock: A connected socket.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._buffer = b""

    def close(self) -> None:
        """Hang up."""
        self._sock.close()

    def exchange(self, lines: Sequence[str]) -> list[str]:
        """Send lines at once, and return the one that answers each."""
        self._sock.sendall("".join(f"{line}\n" for line in lines).encode())
        deadline = time.monotonic() + _TIMEOUT
        return [self._line(deadline) for _ in lines]

    def _line(self, deadline: float) -> str:
        while b"\n" not in self._buffer:
            if not wait_readable([self._sock.fileno()], deadline - time.monotonic()):
                raise TimeoutError("no answer in time")
            data = self._sock.recv(1 << 21)
            if not data:
                raise ConnectionResetError("QEMU has closed the connection")
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line.decode("ascii", "replace").strip()


class Qtest:
    """A client of QEMU's qtest server.

    :param link: The way to it; the client's own from now on.
    """

    def __init__(self, link: Link) -> None:
        self._link = link

    def close(self) -> None:
        """Hang up."""
        self._link.close()

    def out(self, port: int, size: int, value: int) -> None:
        """Write to an I/O port."""
        self._command(f"out{_WIDTHS[size]} {port:#x} {value:#x}")

    def in_(self, port: int, size: int) -> int:
        """Read from an I/O port."""
        return self._number(f"in{_WIDTHS[size]} {port:#x}")

    def write_value(self, address: int, size: int, value: int) -> None:
        """Write 1, 2, 4 or 8 bytes at once, to RAM or to a device."""
        self._command(write_value_command(address, size, value))

    def read_value(self, address: int, size: int) -> int:
        """Read 1, 2, 4 or 8 bytes at once, from RAM or from a device."""
        return self._number(f"read{_WIDTHS[size]} {address:#x}")

    def write(self, address: int, data: bytes) -> None:
        """Write RAM."""
        for offset in range(0, len(data), _PIECE):
            piece = data[offset : offset + _PIECE]
            self._command(write_command(address + offset, piece))

    def read(self, address: int, size: int) -> bytes:
        """Read RAM."""
        data = b""
        for offset in range(0, size, _PIECE):
            piece = min(_PIECE, size - offset)
            data += decode_read(self._command(read_command(address + offset, piece)))
        return data

    def fill(self, address: int, size: int, value: int) -> None:
        """Fill RAM with one byte."""
        self._command(fill_command(address, size, value))

    def exchange(self, commands: Sequence[str]) -> list[str]:
        """Send commands at once, and return what each is answered, without the OK.

        One wait instead of one for each. QEMU must not have to wait for us while
        we wait for it: commands with a long answer come last.
        """
        try:
            answers = self._link.exchange(commands)
        except OSError as error:
            raise TargetLostError(f"qtest: {commands[0][:60]}: {error}") from error
        for command, line in zip(commands, answers, strict=True):
            if line.partition(" ")[0] != "OK":
                raise TargetLostError(f"qtest: {command[:60]}: answer {line!r}")
        return [line.partition(" ")[2] for line in answers]

    def _number(self, command: str) -> int:
        answer = self._command(command)
        try:
            return int(answer, 16)
        except ValueError as error:
            raise TargetLostError(f"qtest: {command}: answer {answer!r}") from error

    def _command(self, command: str) -> str:
        return self.exchange([command])[0]
