# SPDX-License-Identifier: GPL-2.0-or-later
"""The watch over a running guest: :class:`Watch` names the first thing that fails.

Raises :class:`GuestLostError`.
"""

from __future__ import annotations

import contextlib
import enum
import logging
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from viotest.errors import ViotestError
from viotest.machine.latch import Latch, wait_readable
from viotest.machine.record import ignore
from viotest.scenario.model import Phase

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from viotest.machine.console import Beacon, Console
    from viotest.machine.heartbeat import Heartbeat
    from viotest.machine.process import Process
    from viotest.machine.record import Recorder

_LOG = logging.getLogger(__name__)

# How often the heartbeat and the deadline are looked at; all else is an event.
_TICK = 0.1
# A tick this late means that the host stood still or starves us, and then it
# may starve the device too: silence counts from here again.
_LATE_TICK = 0.3
# The device beats every 100 ms. Stopped and silent is beyond doubt; merely
# silent may be a host with too many guests.
_STOPPED_AFTER = 0.6
_SILENT_AFTER = 2.0
# What a dead QEMU has written before is still in the sockets. Both ends
# signal the last byte, so this is a bound, not a delay.
_DRAIN = 0.05
# How much later than the watch somebody who waits looks at the clock himself.
_GRACE = 5.0
_STOPPED_STATES = ("T", "t")


class LossKind(enum.StrEnum):
    """What ended a guest."""

    QEMU_EXITED = "qemu-exited"
    QEMU_STALLED = "qemu-stalled"
    GUEST_PANIC = "guest-panic"
    #: The guest powered off or rebooted without being asked to.
    GUEST_POWEROFF = "guest-poweroff"
    #: The guest's init gave up before the beacon.
    GUEST_INIT_FAILED = "guest-init-failed"
    DEVICE_EXITED = "device-exited"
    DEVICE_STALLED = "device-stalled"
    DEADLINE = "deadline"
    #: The watch itself broke: nothing is known about the guest any more.
    WATCH_FAILED = "watch-failed"


@dataclass(frozen=True)
class Loss:
    """The first thing that went wrong."""

    kind: LossKind
    #: One line for a person.
    detail: str
    #: CLOCK_MONOTONIC when it was recognised.
    time_ns: int


class GuestLostError(ViotestError):
    """The guest cannot be talked to any more.

    :param loss: Why.
    :param console_tail: The console's last lines.
    """

    def __init__(self, loss: Loss, console_tail: Sequence[str]) -> None:
        super().__init__(f"guest lost: {loss.detail}")
        #: Why.
        self.loss = loss
        #: The console's last lines.
        self.console_tail = tuple(console_tail)


class GuestEnd:
    """What QEMU's events tell about the end of the guest."""

    def __init__(self) -> None:
        #: The reason of SHUTDOWN, "guest-reset" for example; empty before.
        self.reason = ""
        #: Whether the guest reported a panic (pvpanic).
        self.panicked = False
        #: Set by either.
        self.latch = Latch()

    def handle_event(self, name: str, data: Mapping[str, object]) -> None:
        """Take one event of QEMU's monitor."""
        if name == "GUEST_PANICKED":
            self.panicked = True
        elif name == "SHUTDOWN":
            self.reason = str(data.get("reason", "unknown"))
        else:
            return
        self.latch.set()


@dataclass(frozen=True)
class _Deadline:
    phase: Phase
    seconds: float
    at: float


class Watch:
    """Waits, in a thread, for the first of all the ways to lose a guest.

    :param qemu: QEMU's process.
    :param device: The device's process.
    :param console: The guest's console.
    :param end: What QEMU's events tell.
    :param heartbeat: The device's sign of life; owned by the watch.
    :param record: Takes the loss.
    """

    def __init__(
        self,
        *,
        qemu: Process,
        device: Process,
        console: Console,
        end: GuestEnd,
        heartbeat: Heartbeat,
        record: Recorder = ignore,
    ) -> None:
        self._qemu = qemu
        self._device = device
        self._console = console
        self._end = end
        self._heartbeat = heartbeat
        self._record = record
        self._lost = Latch()
        self._stop = Latch()
        self._deadline: _Deadline | None = None
        self._qemu_stopped_at: float | None = None
        self._trusted_since = time.monotonic()
        self._thread = threading.Thread(
            target=self._guarded_run, name="viotest-watch", daemon=True
        )
        #: Why the guest is lost; None while it is not.
        self.loss: Loss | None = None

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def stop(self) -> None:
        """End the watch, before an expected shutdown; idempotent.

        A loss stays what it is; :meth:`fileno` must not be used any more.
        """
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()
        self._heartbeat.close()

    def close(self) -> None:
        """End the watch and release everything; idempotent."""
        self.stop()
        self._lost.close()
        self._stop.close()

    def fileno(self) -> int:
        """Return a descriptor that is readable once the guest is lost."""
        return self._lost.fileno()

    def check(self, timeout: float = 0.0) -> None:
        """Return if the guest is not lost.

        :param timeout: Seconds to wait for news: what looks like an error may be
            the first sign of a loss.
        :raise GuestLostError: When it is.
        """
        if timeout > 0:
            self._lost.wait(timeout)
        if self.loss is not None:
            raise self._lost_error(self.loss)

    def wait_readable(self, fd: int, timeout: float) -> bool:
        """Wait for a descriptor, no longer than the guest lives.

        :param fd: What to wait for.
        :param timeout: Seconds.
        :return: Whether it is readable; False when the time is over.
        :raise GuestLostError: When the guest is lost and nothing can be read.
        """
        ready = wait_readable([fd, self.fileno()], timeout)
        if fd in ready:
            return True
        if ready:
            self.check()
        return False

    def wait_for_beacon(self, timeout: float) -> Beacon:
        """Wait for the guest's word that it is ready.

        :param timeout: Seconds; when they are over the guest is lost.
        :raise GuestLostError: When anything else comes first.
        """
        until = time.monotonic() + timeout + _GRACE
        with self.phase(Phase.BOOT, timeout):
            while (beacon := self._console.beacon) is None:
                left = until - time.monotonic()
                if not self.wait_readable(self._console.ready.fileno(), left):
                    # The watch's own deadline is earlier, and it did not keep it.
                    self._declare(LossKind.WATCH_FAILED, "the watch fell silent")
            return beacon

    @contextlib.contextmanager
    def phase(self, phase: Phase, seconds: float) -> Iterator[None]:
        """Make the guest count as lost when the body takes too long.

        :param phase: What the deadline is called.
        :param seconds: How long it may take.
        """
        outer = self._deadline
        self._deadline = _Deadline(phase, seconds, time.monotonic() + seconds)
        try:
            yield
        finally:
            self._deadline = outer

    def _lost_error(self, loss: Loss) -> GuestLostError:
        if loss.kind is LossKind.GUEST_PANIC:
            # The panic's first line is known; let the backtrace come in. QEMU
            # exits at its end (panic=-1).
            self._console.drained.wait(0.2)
        return GuestLostError(loss, self._console.tail())

    def _guarded_run(self) -> None:
        try:
            self._run()
        except Exception as err:  # noqa: BLE001
            # Whoever waits relies on this thread alone to be woken.
            _LOG.exception("the watch failed")
            self._declare(LossKind.WATCH_FAILED, f"the watch failed: {err!r}")

    def _run(self) -> None:
        events = {
            latch.fileno()
            for latch in (self._stop, self._console.fatal, self._end.latch)
        }
        fds = events | {self._qemu.pidfd, self._device.pidfd}
        tick = time.monotonic()
        while self.loss is None:
            ready = wait_readable(fds, tick + _TICK - time.monotonic())
            if self._stop.is_set():
                return
            now = time.monotonic()
            if now - tick > _LATE_TICK:
                self._trusted_since = now
            if now - tick >= _TICK:
                tick = now
            cause = self._exit_cause(ready) if ready else self._tick_cause(now)
            if cause is not None:
                self._declare(*cause)

    def _declare(self, kind: LossKind, detail: str) -> None:
        loss = Loss(kind, detail, time.monotonic_ns())
        _LOG.debug("lost: %s: %s", kind, detail)
        # First of all wake whoever waits: nothing below may keep him waiting.
        self.loss = loss
        self._lost.set()
        data = {"kind": kind.value, "detail": detail}
        self._record("watch", "lost", data, loss.time_ns)

    # Something has happened: which of the things it may mean, most telling first.
    def _exit_cause(self, ready: set[int]) -> tuple[LossKind, str] | None:
        if self._device.pidfd in ready:
            return LossKind.DEVICE_EXITED, _exit_text(self._device)
        if not self._console.fatal.is_set() and not self._end.panicked:
            # QEMU exited, or is about to (SHUTDOWN): a panic is on its way
            # through the console, if that is why.
            self._drain()
        if (cause := self._guest_cause()) is not None:
            return cause
        if self._qemu.pidfd in ready:
            return LossKind.QEMU_EXITED, _exit_text(self._qemu)
        return None

    def _drain(self) -> None:
        until = time.monotonic() + _DRAIN
        waiting = {self._console.drained, self._console.fatal}
        fds = {latch.fileno() for latch in waiting}
        wait_readable(fds, until - time.monotonic())
        if not self._console.fatal.is_set() and not self._end.latch.is_set():
            wait_readable([self._end.latch.fileno()], until - time.monotonic())

    def _guest_cause(self) -> tuple[LossKind, str] | None:
        console = self._console
        if console.init_failure is not None:
            detail = f"the guest's init failed: {console.init_failure}"
            return LossKind.GUEST_INIT_FAILED, detail
        if console.panic is not None or self._end.panicked:
            what = console.panic or "the guest reported a panic"
            after = f", after: {console.trouble}" if console.trouble else ""
            return LossKind.GUEST_PANIC, f"{what}{after}"
        if self._end.reason.startswith("guest-"):
            how = "rebooted" if self._end.reason == "guest-reset" else "powered off"
            return LossKind.GUEST_POWEROFF, f"the guest {how} by itself"
        if self._end.reason:
            return LossKind.QEMU_EXITED, f"QEMU shuts down: {self._end.reason}"
        return None

    def _tick_cause(self, now: float) -> tuple[LossKind, str] | None:
        deadline = self._deadline
        stalled = self._device_cause(now) or self._qemu_cause(now)
        if stalled is not None:
            return stalled
        if deadline is not None and now > deadline.at:
            detail = f"{deadline.phase}: not done within {deadline.seconds:g} s"
            if self._console.trouble:
                detail += f"; the console says: {self._console.trouble}"
            elif not self._console.tail():
                detail += "; the console stayed silent"
            return LossKind.DEADLINE, detail
        return None

    def _device_cause(self, now: float) -> tuple[LossKind, str] | None:
        if now - self._last_beat(now) <= _STOPPED_AFTER:
            return None
        # A second look: a beat that is just being written can read as nonsense.
        silence = now - self._last_beat(now)
        if silence <= _STOPPED_AFTER:
            return None
        state = self._device.state()
        name = self._device.name
        if state in _STOPPED_STATES:
            return LossKind.DEVICE_STALLED, f"{name} was stopped (state {state})"
        if silence > _SILENT_AFTER:
            detail = f"{name} shows no sign of life for {silence:.1f} s (state {state})"
            return LossKind.DEVICE_STALLED, detail
        return None

    def _last_beat(self, now: float) -> float:
        beat = self._heartbeat.read()
        if beat is None or beat / 1e9 > now + 1:
            return self._trusted_since
        return max(beat / 1e9, self._trusted_since)

    def _qemu_cause(self, now: float) -> tuple[LossKind, str] | None:
        state = self._qemu.state()
        if state not in _STOPPED_STATES:
            self._qemu_stopped_at = None
        elif self._qemu_stopped_at is None:
            self._qemu_stopped_at = now
        elif now - max(self._qemu_stopped_at, self._trusted_since) > _STOPPED_AFTER:
            detail = f"{self._qemu.name} was stopped (state {state})"
            return LossKind.QEMU_STALLED, detail
        return None


def _exit_text(process: Process) -> str:
    # The descriptor is readable a moment before the status can be had.
    process.wait(1.0)
    last = process.log_tail().strip().rpartition("\n")[2]
    text = f"{process.name} {process.status}"
    return f"{text}: {last}" if last else text
