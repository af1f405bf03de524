# SPDX-License-Identifier: GPL-2.0-or-later
"""The OS in the guest: :class:`Guest`."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from viotest.guest.clock import ClockMap, RoundTrip, map_clock
from viotest.guest.errors import GuestError
from viotest.guest.kernel_log import KernelLog
from viotest.guest.probe import Probe
from viotest.guest.ssh import SshSession
from viotest.machine.record import ignore

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator
    from types import TracebackType

    from viotest.guest.keys import GuestKeys
    from viotest.guest.ssh import ExecResult, LineChannel, LossWatch
    from viotest.machine.record import Recorder

#: Where the initramfs has the program that acts in the guest.
PROBE_COMMAND = "exec vfio-probe"

# The first ones carry the cost of cold code in an emulated guest.
_CLOCK_TRIPS = 5


# A tmpfs, so that it is no part of what is packed; and the root once more, as what
# is mounted on it would hide the device node that the next kernel's init needs.
_KEXEC = "/run/kexec"
_PACK_ROOT = (
    f"mkdir -p {_KEXEC} /run/root && mount -t tmpfs tmpfs {_KEXEC}"
    " && mount --bind / /run/root && cd /run/root"
    f" && busybox find . -xdev | busybox cpio -o -H newc >{_KEXEC}/initrd"
)


class ProbeProcess:
    """A vfio-probe of its own process, to be killed at will.

    :param guest: Where it runs.
    :param channel: The way to it.
    """

    def __init__(self, guest: Guest, channel: LineChannel) -> None:
        self._guest = guest
        self._channel = channel
        #: The program.
        self.probe = Probe(channel)
        stat = self.probe.call("read", path="/proc/self/stat")["text"]
        self._pid = int(str(stat).split(maxsplit=1)[0])

    def kill(self, *, timeout: float) -> None:
        """Send it SIGKILL, and wait until the kernel has closed what it had open.

        :param timeout: Seconds.
        :raise GuestError: When it does not end.
        """
        self._guest.exec(f"kill -9 {self._pid}", timeout=timeout)
        self._channel.wait_for_end(timeout)


class Guest:
    """A guest that has sent its beacon.

    :param sock: Leads to its SSH port (:meth:`~viotest.machine.machine.Machine.\
connect_ssh`); the guest's from now on.
    :param keys: The keys that were put into its initramfs.
    :param watch: Ends everything that blocks when it is lost.
    :param record: Takes what happens, source "guest".
    :param probe: That of the guest before it was rebooted, to be driven on.
    """

    def __init__(
        self,
        sock: socket.socket,
        keys: GuestKeys,
        watch: LossWatch,
        *,
        record: Recorder = ignore,
        probe: Probe | None = None,
    ) -> None:
        self._ssh = SshSession(sock, keys, watch)
        self._record = record
        self._channel: LineChannel | None = None
        self._probe = probe
        #: What was read of the kernel's log.
        self.kernel_log = KernelLog()

    def __enter__(self) -> Guest:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def probe(self) -> Probe:
        """The program that acts in the guest."""
        assert self._probe is not None, "not connected"
        return self._probe

    def connect(self, *, timeout: float) -> None:
        """Log in and start the probe; may be called once.

        :param timeout: Seconds.
        :raise GuestError: When it fails.
        :raise GuestLostError: When the guest is lost meanwhile.
        """
        deadline = time.monotonic() + timeout
        self._ssh.connect(timeout)
        self.restart_probe(timeout=deadline - time.monotonic())
        self._record("guest", "connected", {}, time.monotonic_ns())

    def restart_probe(self, *, timeout: float) -> None:
        """Start the probe, or start it anew: what it had open in VFIO is closed.

        :param timeout: Seconds.
        :raise GuestError: When it cannot be started.
        """
        if self._channel is not None:
            self._channel.close()
        self._channel = self._ssh.open_line_channel(PROBE_COMMAND, timeout)
        if self._probe is None:
            self._probe = Probe(self._channel, on_reply=self.kernel_log.take)
        else:
            self._probe.reconnect(self._channel, on_reply=self.kernel_log.take)

    @contextmanager
    def start_probe(self, *, timeout: float) -> Iterator[ProbeProcess]:
        """Run another probe, beside the one that is there anyway.

        :param timeout: Seconds, to start it.
        :raise GuestError: When it cannot be started.
        """
        channel = self._ssh.open_line_channel(PROBE_COMMAND, timeout)
        try:
            yield ProbeProcess(self, channel)
        finally:
            channel.close()

    @contextmanager
    def start_lines(self, command: str, *, timeout: float) -> Iterator[LineChannel]:
        """Run a command as root that answers each line with one line.

        The end of the body does not end the command, only the way to it.

        :param command: The command.
        :param timeout: Seconds, to start it.
        :raise GuestError: When it cannot be started.
        """
        channel = self._ssh.open_line_channel(command, timeout)
        self._record("guest", "start", {"command": command}, time.monotonic_ns())
        try:
            yield channel
        finally:
            channel.close()

    def exec(self, command: str, *, timeout: float) -> ExecResult:
        """Run a shell command as root.

        :param command: The command.
        :param timeout: Seconds.
        :raise GuestError: When there is no result.
        """
        result = self._ssh.exec(command, timeout)
        data = {"command": command, "status": result.status}
        self._record("guest", "exec", data, time.monotonic_ns())
        return result

    def upload(self, data: bytes, path: str, *, timeout: float) -> None:
        """Write a file in the guest.

        :param data: What it is to hold.
        :param path: Its name.
        :param timeout: Seconds.
        :raise GuestError: When it cannot be written.
        """
        self._ssh.upload(data, path, timeout)

    def load_kexec(self, kernel: bytes, *, timeout: float) -> None:
        """Let the guest's kernel load another one, for :meth:`kexec`.

        The new guest is made of the files that this one has now.

        :param kernel: A bzImage.
        :param timeout: Seconds, for each step.
        :raise ProbeError: When the kernel does not take it.
        :raise GuestError: When it cannot be brought there.
        """
        result = self.exec(_PACK_ROOT, timeout=timeout)
        if result.status != 0:
            said = result.err.decode(errors="replace").strip()
            raise GuestError(f"the guest's files cannot be packed: {said}")
        self.upload(kernel, f"{_KEXEC}/kernel", timeout=timeout)
        self.probe.call(
            "kexec-load",
            kernel=f"{_KEXEC}/kernel",
            initrd=f"{_KEXEC}/initrd",
            timeout=timeout,
        )

    def reboot(self, *, timeout: float) -> None:
        """Let the guest reboot itself.

        Returns when it has been told: the connection may end before it can answer.

        :param timeout: Seconds.
        :raise GuestError: When it cannot be told.
        """
        self._ssh.open_line_channel("reboot", timeout)

    def kexec(self, *, timeout: float) -> None:
        """Let the guest's kernel start the one that it has loaded.

        Returns when it has been told: nobody is left to say that it did.

        :param timeout: Seconds.
        :raise GuestError: When it cannot be told.
        """
        # Not the probe that the checks drive: what that has open stays open.
        channel = self._ssh.open_line_channel(PROBE_COMMAND, timeout)
        channel.tell("kexec", timeout)

    def measure_clock(self, *, timeout: float = 5.0) -> ClockMap:
        """Compare the guest's clock with the host's.

        :param timeout: Seconds, for each of a few round trips.
        :raise GuestError: When the guest gives no time.
        """
        clock = map_clock([self._round_trip(timeout) for _ in range(_CLOCK_TRIPS)])
        data = {"offset_ns": clock.offset_ns, "error_ns": clock.error_ns}
        self._record("guest", "clock", data, time.monotonic_ns())
        return clock

    def close(self) -> None:
        """End the connection; idempotent."""
        self._ssh.close()

    def _round_trip(self, timeout: float) -> RoundTrip:
        before = time.monotonic_ns()
        guest = self.probe.call("hello", timeout=timeout).get("monotonic_ns")
        after = time.monotonic_ns()
        if not isinstance(guest, int):
            raise GuestError(f"vfio-probe: hello: {guest!r} is no time")
        return RoundTrip(before, guest, after)
