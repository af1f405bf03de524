# SPDX-License-Identifier: GPL-2.0-or-later
"""The guest's serial console: kept, stamped, and read for signs of trouble.

Everything here comes from the guest and may be anything at all.
"""

from __future__ import annotations

import collections
import contextlib
import fcntl
import json
import logging
import os
import re
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from viotest.machine import names
from viotest.machine.latch import Latch, wait_readable
from viotest.machine.record import ignore

if TYPE_CHECKING:
    from viotest.machine.folder import RunFolder
    from viotest.machine.record import Recorder

_LOG = logging.getLogger(__name__)

#: The line that says that the guest listens, followed by a JSON object.
BEACON = "VIOTEST-BEACON "
#: The line that says that the guest's init gave up, followed by step and reason.
INIT_FAILED = "VIOTEST-INIT-FAILED "

_PANIC = "Kernel panic - not syncing"
_TROUBLE = re.compile(
    "|".join(
        (
            re.escape(_PANIC),
            r"\bBUG:",
            r"\bOops:",
            r"general protection fault",
            r"rcu: INFO: rcu_\w+ (?:self-)?detected",
            r"Unable to handle kernel",
            r"Internal error: Oops",
        )
    )
)

# CSI sequences (colours, cursor), then the two-byte ones (SeaBIOS: ESC c).
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[0-Z\\^-~])")

_DRAIN_TIMEOUT = 1.0
# poll() wants an end that fits an int; the drain then waits again.
_LONG = 86_400.0
# What QEMU can write while our interpreter is busy elsewhere: the most that an
# ordinary user may have.
_PIPE_SIZE = 1 << 20
_MAX_LINE = 4096
_MAX_TAIL = 40
_MAX_RELEASE = 64
# A guest that prints without end must not fill the host's disk.
_MAX_LOG = 64 << 20


@dataclass(frozen=True)
class Beacon:
    """The guest's word that it is ready."""

    #: CLOCK_MONOTONIC of the host when it arrived.
    time_ns: int
    #: CLOCK_MONOTONIC of the guest when it was sent.
    monotonic_ns: int
    #: The kernel's release, as the guest tells it.
    release: str


class Console:
    """Drains the console into a file, in a thread, until the guest is gone.

    :param folder: Where QEMU finds the console, and where ``console.log`` is written:
        the bytes as they came.
    :param record: Takes every line, and what was recognised.
    """

    def __init__(self, folder: RunFolder, *, record: Recorder = ignore) -> None:
        self._folder = folder
        self._record = record
        self._pipe = -1
        # Our own, until QEMU has its: a pipe without a writer is at its end.
        self._writer = -1
        self._stop = Latch()
        self._log = -1
        self._logged = 0
        self._thread: threading.Thread | None = None
        self._tail: collections.deque[str] = collections.deque(maxlen=_MAX_TAIL)
        self._partial = bytearray()
        self._lock = threading.Lock()
        #: The beacon, once it came.
        self.beacon: Beacon | None = None
        #: The first line of an oops or a stall, once there was one.
        self.trouble: str | None = None
        #: The line of a panic, once there was one.
        self.panic: str | None = None
        #: Step and reason, once the guest's init gave up.
        self.init_failure: str | None = None
        #: Set when :attr:`beacon` is.
        self.ready = Latch()
        #: Set when :attr:`panic` or :attr:`init_failure` is.
        self.fatal = Latch()
        #: Set when QEMU has closed the console and every byte was read.
        self.drained = Latch()

    def start(self) -> None:
        """Make what QEMU writes to, and begin to drain it; may be called once.

        :raise OSError: When the pipe or the log cannot be made.
        """
        for name in (names.CONSOLE_IN, names.CONSOLE_OUT):
            self._folder.make_fifo(name)
        # Without O_NONBLOCK each would wait for the other to be opened.
        flags = os.O_NONBLOCK
        self._pipe = self._folder.open(names.CONSOLE_OUT, os.O_RDONLY | flags)
        self._writer = self._folder.open(names.CONSOLE_OUT, os.O_WRONLY | flags)
        # Refused to a user who has many: it works with less, too.
        with contextlib.suppress(OSError):
            fcntl.fcntl(self._pipe, fcntl.F_SETPIPE_SZ, _PIPE_SIZE)
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        self._log = self._folder.open(names.CONSOLE_LOG, flags)
        self._thread = threading.Thread(
            target=self._drain, name="viotest-console", daemon=True
        )
        self._thread.start()

    def connected(self) -> None:
        """Leave the console to QEMU, which has opened it: its end is QEMU's now."""
        for name in (names.CONSOLE_IN, names.CONSOLE_OUT):
            self._folder.unlink(name)
        self._close_writer()

    def tail(self) -> tuple[str, ...]:
        """Return the last lines, fit to be shown to a person."""
        with self._lock:
            lines = list(self._tail)
            if self._partial:
                lines.append(printable(bytes(self._partial)))
        return tuple(lines[-_MAX_TAIL:])

    def close(self) -> None:
        """Stop draining and release everything; idempotent.

        To be called when QEMU is gone, so that nothing is cut off.
        """
        self._close_writer()
        if self._thread is not None:
            self._thread.join(_DRAIN_TIMEOUT)
            # Someone else holds the other end, if the thread is still there.
            self._stop.set()
            self._thread.join()
        if self._pipe >= 0:
            os.close(self._pipe)
            self._pipe = -1
        if self._log >= 0:
            os.close(self._log)
            self._log = -1
        for latch in (self.ready, self.fatal, self.drained, self._stop):
            latch.close()

    def _close_writer(self) -> None:
        if self._writer >= 0:
            os.close(self._writer)
            self._writer = -1

    def _drain(self) -> None:
        try:
            while not self._stop.is_set():
                ready = wait_readable([self._pipe, self._stop.fileno()], _LONG)
                if self._pipe not in ready:
                    continue
                # Small reads: they bound a line that never ends.
                data = os.read(self._pipe, _MAX_LINE)
                if not data:
                    break
                self._take(data, time.monotonic_ns())
        except OSError as err:
            _LOG.debug("console: %s", err)
        finally:
            self._end_line(time.monotonic_ns())
            self.drained.set()

    def _take(self, data: bytes, time_ns: int) -> None:
        self._write(data, time_ns)
        for piece in data.splitlines(keepends=True):
            with self._lock:
                self._partial += piece
            if piece.endswith((b"\n", b"\r")) or len(self._partial) >= _MAX_LINE:
                self._end_line(time_ns)

    def _write(self, data: bytes, time_ns: int) -> None:
        if self._log < 0 or self._logged >= _MAX_LOG:
            return
        self._logged += len(data)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(self._log, view) :]
        except OSError as err:
            # Draining goes on: a console that nobody reads stops the guest.
            self._logged = _MAX_LOG
            self._record("console", "log-failed", {"reason": str(err)}, time_ns)
        else:
            if self._logged >= _MAX_LOG:
                self._record("console", "log-full", {"size": self._logged}, time_ns)

    def _end_line(self, time_ns: int) -> None:
        with self._lock:
            text = printable(bytes(self._partial))
            self._partial.clear()
            if not text:
                return
            self._tail.append(text)
        if self._logged < _MAX_LOG:
            self._record("console", "line", {"text": text}, time_ns)
        self._recognise(text, time_ns)

    def _recognise(self, text: str, time_ns: int) -> None:
        if BEACON in text:
            self._take_beacon(text, time_ns)
        elif INIT_FAILED in text:
            if self.init_failure is None:
                self.init_failure = text.partition(INIT_FAILED)[2]
                self.fatal.set()
        elif _TROUBLE.search(text):
            self._take_trouble(text, time_ns)

    def forget_beacon(self) -> None:
        """Look for another beacon from now on: the guest is about to reboot."""
        old, self.ready = self.ready, Latch()
        self.beacon = None
        old.close()

    def _take_beacon(self, text: str, time_ns: int) -> None:
        beacon = parse_beacon(text, time_ns)
        if beacon is None or self.beacon is not None:
            return
        self.beacon = beacon
        data = {"monotonic_ns": beacon.monotonic_ns, "release": beacon.release}
        self._record("console", "beacon", data, time_ns)
        self.ready.set()

    def _take_trouble(self, text: str, time_ns: int) -> None:
        if _PANIC in text:
            if self.panic is None:
                self.panic = text
                self._record("console", "panic", {"text": text}, time_ns)
                self.fatal.set()
        elif self.trouble is None:
            self.trouble = text
            self._record("console", "trouble", {"text": text}, time_ns)


def parse_beacon(text: str, time_ns: int) -> Beacon | None:
    """Read a beacon line.

    :param text: The line; a kernel message may precede the beacon on it.
    :param time_ns: When it arrived.
    :return: The beacon, or None when the line holds none that is well formed.
    """
    body = text.partition(BEACON)[2].strip()
    try:
        value, _ = json.JSONDecoder().raw_decode(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict):
        return None
    monotonic_ns, release = value.get("monotonic_ns"), value.get("release")
    if type(monotonic_ns) is not int or not 0 <= monotonic_ns < 1 << 63:
        return None
    if not isinstance(release, str) or len(release) > _MAX_RELEASE:
        return None
    return Beacon(time_ns, monotonic_ns, release)


def printable(data: bytes) -> str:
    """Return a console line that does nothing to the terminal that shows it.

    Colours are dropped; other control characters, and those that reorder text,
    are shown as escapes.

    :param data: The bytes of the line; line ends and blanks at its end are dropped.
    """
    text = _ESCAPES.sub("", data.decode("utf-8", "replace").rstrip())
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() or c == "\t" else c.encode("unicode_escape").decode()
        for c in text
    )
