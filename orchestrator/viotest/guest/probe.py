# SPDX-License-Identifier: GPL-2.0-or-later
"""The orchestrator's side of vfio-probe, the program that acts in the guest.

One command is one line, and one line of JSON answers it: see
guest-images/probe/README.md. The main class is `Probe`. Errors: `ProbeError` when
the guest refused a step, `ProbeReplyError` when the answer is no answer.
"""

from __future__ import annotations

import errno as errno_module
import json
import re
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol
from urllib.parse import quote

from viotest.errors import UntestableError, ViotestError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    #: Told a command that went well, and its results.
    OnReply = Callable[[str, Mapping[str, object]], None]

#: Long enough for any command but those with a timeout_ms of their own.
DEFAULT_TIMEOUT = 30.0

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15
_COMMAND = re.compile(r"[a-z]+(-[a-z]+)*")
# What stays readable in a log; blanks, "%" and what is not ASCII are encoded.
_PLAIN = "/:=,.$@+*()[]{}<>;!?&|^#'\""
# How much of an answer that cannot be understood is quoted.
_EXCERPT = 200


class Transport(Protocol):
    """A way to a running vfio-probe."""

    def request(self, line: str, timeout: float) -> str:
        """Send one line and return the line that answers it.

        :param line: The command, without the end of line.
        :param timeout: Seconds to wait for the answer.
        """


class ProbeError(ViotestError):
    """A step of a command failed in the guest.

    :param command: The command.
    :param op: The step of it that failed, such as VFIO_SET_IOMMU.
    :param errno: The guest's errno; Linux's numbers.
    :param text: What the probe says about it.
    :param reply: The whole answer, with what was known before the failure.
    """

    def __init__(
        self,
        command: str,
        op: str,
        errno: int,
        text: str,
        *,
        reply: Mapping[str, object] | None = None,
    ) -> None:
        #: The errno's name, such as EINVAL.
        self.error = errno_name(errno)
        super().__init__(f"{command}: {op}: {self.error}: {text}")
        #: The command that failed.
        self.command = command
        #: The step of it that failed.
        self.op = op
        #: The guest's errno.
        self.errno = errno
        #: What the probe says about it.
        self.text = text
        #: The whole answer.
        self.reply: Mapping[str, object] = reply or {}


def errno_name(errno: int) -> str:
    """Return the name that the kernel's sources have for a number."""
    if errno == errno_module.EOPNOTSUPP:
        return "EOPNOTSUPP"  # Python's table has the number as ENOTSUP
    return errno_module.errorcode.get(errno, f"errno {errno}")


class ProbeReplyError(UntestableError):
    """What came back is no answer to the command.

    :param command: The command.
    :param line: What came back.
    """

    def __init__(self, command: str, line: str) -> None:
        super().__init__(
            f"{command}: not an answer of vfio-probe: {line[:_EXCERPT]!r}",
            hint="the guest's console tells what became of it",
        )
        #: The command.
        self.command = command
        #: What came back.
        self.line = line


@dataclass
class _Line:
    # One process in the guest, and which of its devices commands go to now.
    transport: Transport
    on_reply: OnReply | None = None
    device: str = ""


class Probe:
    """A vfio-probe, driven command by command.

    :param transport: The way to it.
    :param on_reply: Told each command that went well, and its results.
    """

    def __init__(
        self, transport: Transport, *, on_reply: OnReply | None = None
    ) -> None:
        self._line = _Line(transport, on_reply)
        self._device = ""

    def reconnect(
        self, transport: Transport, *, on_reply: OnReply | None = None
    ) -> None:
        """Go on with another process; what the old one had open is gone.

        :param transport: The way to it; also for what :meth:`device` returned.
        :param on_reply: As of the constructor.
        """
        self._line.transport, self._line.device = transport, ""
        self._line.on_reply = on_reply

    def device(self, name: str) -> Probe:
        """Return the same probe, with a device of its own to open and to use.

        :param name: Any name, 15 characters at most; the probe itself is "".
        """
        view = Probe(self._line.transport)
        view._line, view._device = self._line, name
        return view

    def call(
        self,
        command: str,
        /,
        *,
        timeout: float = DEFAULT_TIMEOUT,
        **args: str | int,
    ) -> Mapping[str, object]:
        """Run one command in the guest and return its results.

        :param command: The command's name.
        :param timeout: Seconds until the transport gives up.
        :param args: The command's keys and values.
        :return: The fields of the answer.
        :raise ProbeError: When a step of the command failed.
        :raise ProbeReplyError: When the answer cannot be understood.
        """
        if self._line.device != self._device:
            self._request("use", timeout, {"device": self._device})
            self._line.device = self._device
        return self._request(command, timeout, args)

    def _request(
        self, command: str, timeout: float, args: Mapping[str, str | int]
    ) -> Mapping[str, object]:
        request = format_command(command, **args)
        line = self._line.transport.request(request, timeout)
        reply = _parse_reply(command, line)
        if reply["ok"]:
            if self._line.on_reply is not None:
                self._line.on_reply(command, reply)
            return reply
        match reply:
            case {"op": str(op), "errno": int(errno), "text": str(text)}:
                raise ProbeError(command, op, errno, text, reply=reply)
        raise ProbeReplyError(command, line)


def format_command(command: str, /, **args: str | int) -> str:
    """Format one command line, values percent-encoded.

    :param command: The command's name.
    :param args: Keys and values; text that is not UTF-8 in the guest is spelled
        with surrogate escapes, as everywhere in Python.
    :return: The line, without its end.
    """
    assert _COMMAND.fullmatch(command), command
    words = [command]
    for key, value in args.items():
        assert key.isidentifier(), key
        words.append(f"{key}={_format_value(value)}")
    return " ".join(words)


def _format_value(value: str | int) -> str:
    if isinstance(value, str):
        return quote(value, safe=_PLAIN, errors="surrogateescape")
    assert 0 <= value <= _MASK, value
    return f"{value:d}"


def _parse_reply(command: str, line: str) -> dict[str, object]:
    try:
        reply = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ProbeReplyError(command, line) from error
    if not isinstance(reply, dict) or reply.get("command") != command:
        raise ProbeReplyError(command, line)
    if not isinstance(reply.get("ok"), bool):
        raise ProbeReplyError(command, line)
    return reply


def pattern(seed: int, size: int, *, position: int = 0) -> bytes:
    """Return the bytes that the probe's `fill` writes.

    They are the SplitMix64 sequence of the seed as little-endian words, so every
    word follows from its index alone.

    :param seed: The seed, 64 bits.
    :param size: How many bytes.
    :param position: The byte of the stream to begin at.
    """
    first, skip = divmod(position, 8)
    count = (skip + size + 7) // 8
    words = [_pattern_word(seed, first + index) for index in range(count)]
    return struct.pack(f"<{count}Q", *words)[skip : skip + size]


def _pattern_word(seed: int, index: int) -> int:
    z = (seed + (index + 1) * _GOLDEN) & _MASK
    z = ((z ^ z >> 30) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ z >> 27) * 0x94D049BB133111EB) & _MASK
    return z ^ z >> 31
