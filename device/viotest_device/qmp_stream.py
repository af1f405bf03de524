# SPDX-License-Identifier: GPL-2.0-or-later
"""Cuts a byte stream into JSON objects.

QMP clients need not end a message with a newline (qemu.qmp does not), so the end
of an object is found by its brackets, as QEMU's own monitor does.
"""

from __future__ import annotations

import json

#: A longer message is refused: nobody sends one, and memory is finite.
MAX_MESSAGE = 64 * 1024

_QUOTE, _BACKSLASH = ord('"'), ord("\\")
_OPEN, _CLOSE = frozenset(b"{["), frozenset(b"}]")


class StreamError(Exception):
    """The stream holds something that is no JSON object."""


class JsonStream:
    """Collects bytes and hands out the complete objects among them."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._scanned = 0
        self._depth = 0
        self._in_string = False
        self._escaped = False

    def feed(self, data: bytes) -> list[dict[str, object]]:
        """Take more bytes.

        :param data: What came off the socket.
        :return: The objects that are complete now, in order.
        :raise StreamError: When the bytes are no JSON object, or the object is
            longer than :data:`MAX_MESSAGE`; the stream cannot be used afterwards.
        """
        self._buffer += data
        found = []
        while (end := self._find_end()) is not None:
            message = bytes(self._buffer[:end])
            del self._buffer[:end]
            self._scanned = 0
            found.append(_parse(message))
        if len(self._buffer) > MAX_MESSAGE:
            raise StreamError(f"message longer than {MAX_MESSAGE} bytes")
        return found

    def _find_end(self) -> int | None:
        for i in range(self._scanned, len(self._buffer)):
            if self._step(self._buffer[i]):
                return i + 1
        self._scanned = len(self._buffer)
        return None

    def _step(self, byte: int) -> bool:
        if self._in_string:
            if self._escaped:
                self._escaped = False
            elif byte == _BACKSLASH:
                self._escaped = True
            elif byte == _QUOTE:
                self._in_string = False
            return False
        if byte == _QUOTE and self._depth:
            self._in_string = True
        elif byte in _OPEN:
            self._depth += 1
        elif byte in _CLOSE and self._depth:
            self._depth -= 1
            return self._depth == 0
        elif not self._depth and not chr(byte).isspace():
            raise StreamError(f"byte {byte:#04x} where an object should begin")
        return False


def _parse(message: bytes) -> dict[str, object]:
    try:
        value = json.loads(message)
    except (ValueError, RecursionError) as error:
        raise StreamError(f"not JSON: {error}") from error
    if not isinstance(value, dict):
        raise StreamError("not a JSON object")
    return value
