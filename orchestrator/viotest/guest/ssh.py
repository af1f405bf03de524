# SPDX-License-Identifier: GPL-2.0-or-later
"""SSH to the guest: the only module that knows paramiko.

Main class: :class:`SshSession`. Everything that blocks ends when the guest is
lost. Raises :class:`~viotest.guest.errors.GuestError`,
:class:`~viotest.guest.errors.GuestTimeoutError` and
:class:`~viotest.guest.errors.GuestLostError`, nothing else.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import io
import logging
import socket
import threading
import time
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeVar

import paramiko

from viotest.errors import ViotestError
from viotest.guest.errors import GuestError, GuestTimeoutError
from viotest.machine.latch import Latch

if TYPE_CHECKING:
    from collections.abc import Callable

    from viotest.guest.keys import GuestKeys

_LOG = logging.getLogger(__name__)
_T = TypeVar("_T")

_USER = "root"
# What dropbear has in common with paramiko and is cheapest for an emulated CPU;
# the connection never leaves this host.
_KEX = ("curve25519-sha256@libssh.org",)
_CIPHERS = ("aes128-ctr",)
_DIGESTS = ("hmac-sha2-256",)
_KEY_TYPES = ("ssh-ed25519",)

# What paramiko raises when the peer misbehaves or goes away; OSError covers its
# timeouts.
_PEER_ERRORS = (paramiko.SSHException, OSError, EOFError)

# A connection that breaks may be the first sign that QEMU is dying; its death
# is known this much later at most.
_LOSS_GRACE = 0.2
_CHUNK = 1 << 18
_SLICE = 0.1
_MAX_LINE = 16 << 20
_MAX_OUTPUT = 16 << 20
_MAX_STDERR = 4096
_NO_STATUS = -1


class LossWatch(Protocol):
    """What this module needs of :class:`viotest.machine.watch.Watch`."""

    def wait_readable(self, fd: int, timeout: float) -> bool:
        """Wait for a descriptor; raise GuestLostError when the guest is lost."""

    def check(self, timeout: float = 0.0) -> None:
        """Raise GuestLostError when the guest is lost, or soon is."""


class ExecResult(NamedTuple):
    """How a command in the guest ended."""

    #: The exit status; -1 when a signal ended it.
    status: int
    out: bytes
    err: bytes


class SshSession:
    """One SSH connection to the guest.

    :param sock: Connected to the guest's SSH port; the session's from now on.
    :param keys: Who both sides are.
    :param watch: Ends everything that blocks when the guest is lost.
    """

    def __init__(self, sock: socket.socket, keys: GuestKeys, watch: LossWatch) -> None:
        self._sock = sock
        self._keys = keys
        self._watch = watch
        self._transport: paramiko.Transport | None = None

    def connect(self, timeout: float) -> None:
        """Authenticate both sides; may be called once.

        :param timeout: Seconds.
        :raise GuestError: When it fails; the session is then closed.
        """
        self._call("ssh: connect", lambda: self._connect(timeout), timeout)

    def exec(self, command: str, timeout: float) -> ExecResult:
        """Run a shell command in the guest.

        :param command: The command.
        :param timeout: Seconds.
        :raise GuestError: When there is no result; the command may still run.
        """
        deadline = time.monotonic() + timeout
        what = f"ssh: {command}"
        channel = self._open(command, what, timeout)
        try:
            return _collect(channel, self._watch, what, timeout, deadline)
        except _PEER_ERRORS as err:
            self._watch.check(_LOSS_GRACE)
            raise GuestError(f"{what}: {_reason(err)}") from err
        finally:
            channel.close()

    def upload(self, data: bytes, path: str, timeout: float) -> None:
        """Write a file in the guest.

        :param data: What it is to hold.
        :param path: Its name; no character of a shell in it.
        :param timeout: Seconds.
        :raise GuestError: When it is not there, whole, afterwards.
        """
        deadline = time.monotonic() + timeout
        what = f"ssh: upload of {path}"
        channel = self._open(f"cat >{path}", what, timeout)
        try:
            if not _send_all(channel, self._watch, data, what, timeout):
                raise GuestError(f"{what}: the guest takes no more")
            channel.shutdown_write()
            result = _collect(channel, self._watch, what, timeout, deadline)
        except _PEER_ERRORS as err:
            self._watch.check(_LOSS_GRACE)
            raise GuestError(f"{what}: {_reason(err)}") from err
        finally:
            channel.close()
        if result.status != 0:
            said = result.err.decode(errors="replace").strip()
            raise GuestError(f"{what}: {said}")

    def open_line_channel(self, command: str, timeout: float) -> LineChannel:
        """Start a command in the guest that answers lines with lines.

        :param command: The command.
        :param timeout: Seconds, for the start.
        :raise GuestError: When it cannot be started.
        """
        channel = self._open(command, f"ssh: {command}", timeout)
        return LineChannel(channel, self._watch, name=command)

    def close(self) -> None:
        """End the connection; idempotent, and quick whatever the guest does."""
        # First the connection, so that nobody reads it when its number is closed.
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        if self._transport is not None:
            self._transport.close()
        self._sock.close()

    def _connect(self, timeout: float) -> None:
        transport = self._transport = paramiko.Transport(self._sock)
        # Under our logger: without a handler, logging would print to stderr.
        transport.set_log_channel(f"{__name__}.paramiko")
        options = transport.get_security_options()
        options.kex, options.ciphers = _KEX, _CIPHERS
        options.digests, options.key_types = _DIGESTS, _KEY_TYPES
        transport.banner_timeout = timeout
        transport.handshake_timeout = timeout
        transport.auth_timeout = timeout
        transport.start_client(timeout=timeout)
        if transport.get_remote_server_key().asbytes() != self._keys.host_public:
            raise paramiko.SSHException("the host key is not this run's")
        key = paramiko.Ed25519Key.from_private_key(
            io.StringIO(self._keys.client_private)
        )
        transport.auth_publickey(_USER, key)

    def _open(self, command: str, what: str, timeout: float) -> paramiko.Channel:
        transport = self._transport
        assert transport is not None, "not connected"

        def start() -> paramiko.Channel:
            channel = transport.open_session(timeout=timeout)
            # Made while nothing has arrived: the descriptor is part of the wait.
            channel.fileno()
            channel.exec_command(command)
            return channel

        return self._call(what, start, timeout)

    # paramiko's own timeouts know nothing of the watch, and it blocks in places
    # that have none. So it blocks in a thread of its own, and closing the
    # connection is what ends it.
    def _call(self, what: str, function: Callable[[], _T], timeout: float) -> _T:
        done = Latch()
        future: concurrent.futures.Future[_T] = concurrent.futures.Future()
        thread = threading.Thread(
            target=_run_into,
            args=(future, done, function),
            name="viotest-ssh",
            daemon=True,
        )
        thread.start()
        try:
            if not self._watch.wait_readable(done.fileno(), timeout):
                raise GuestTimeoutError(what, timeout)
            return future.result()
        except BaseException as err:
            self.close()
            if isinstance(err, ViotestError) or not isinstance(err, Exception):
                raise
            # Anything at all: paramiko hands on what its parser died of.
            self._watch.check(_LOSS_GRACE)
            raise GuestError(f"{what}: {_reason(err)}") from err
        finally:
            done.close()


def _run_into(
    future: concurrent.futures.Future[_T], done: Latch, function: Callable[[], _T]
) -> None:
    try:
        future.set_result(function())
    except BaseException as err:  # noqa: BLE001
        # Raised again by whoever waits.
        future.set_exception(err)
    finally:
        done.set()


class LineChannel:
    """A command in the guest that answers each line with one line.

    :param channel: Where it runs.
    :param watch: Ends a wait when the guest is lost.
    :param name: What it is called in errors.
    """

    def __init__(
        self, channel: paramiko.Channel, watch: LossWatch, *, name: str
    ) -> None:
        self._channel = channel
        self._watch = watch
        self._name = name
        self._buffer = bytearray()
        self._stderr = b""

    def request(self, line: str, timeout: float) -> str:
        """Send one line and return the line that answers it.

        After an error the channel is closed: a late answer would be taken for
        that to the next request.

        :param line: The request, without the end of line.
        :param timeout: Seconds.
        :raise GuestError: When there is no answer, or an endless one.
        :raise GuestTimeoutError: When there is none in time.
        :raise GuestLostError: When the guest is lost meanwhile.
        """
        assert "\n" not in line
        what = f"{self._name}: {line.split(maxsplit=1)[0] if line else line}"
        deadline = time.monotonic() + timeout
        try:
            self._send(line.encode() + b"\n", what, timeout)
            return self._receive(what, timeout, deadline)
        except _PEER_ERRORS as err:
            self.close()
            self._watch.check(_LOSS_GRACE)
            raise GuestError(f"{what}: {_reason(err)}") from err
        except BaseException:
            self.close()
            raise

    def tell(self, line: str, timeout: float) -> None:
        """Send one line, and wait for no answer: nobody may be left to give one.

        :param line: The request, without the end of line.
        :param timeout: Seconds.
        :raise GuestError: When it cannot be sent.
        """
        try:
            self._send(line.encode() + b"\n", f"{self._name}: {line}", timeout)
        except _PEER_ERRORS as err:
            self._watch.check(_LOSS_GRACE)
            raise GuestError(f"{self._name}: {line}: {_reason(err)}") from err

    def wait_for_end(self, timeout: float) -> None:
        """Wait until the command has ended; what it had open is closed then.

        :param timeout: Seconds.
        :raise GuestTimeoutError: When it goes on.
        :raise GuestLostError: When the guest is lost meanwhile.
        """
        deadline = time.monotonic() + timeout
        while not self._channel.exit_status_ready():
            if time.monotonic() > deadline:
                raise GuestTimeoutError(f"{self._name}: end", timeout)
            self._channel.status_event.wait(_SLICE)
            self._watch.check()

    def close(self) -> None:
        """End the command; idempotent."""
        self._channel.close()

    def _send(self, data: bytes, what: str, timeout: float) -> None:
        if not _send_all(self._channel, self._watch, data, what, timeout):
            raise self._ended(what)

    def _receive(self, what: str, timeout: float, deadline: float) -> str:
        channel, scanned = self._channel, 0
        while (end := self._buffer.find(b"\n", scanned)) < 0:
            scanned = len(self._buffer)
            if scanned > _MAX_LINE:
                raise GuestError(f"{what}: the answer never ends")
            if channel.recv_ready():
                self._buffer += channel.recv(1 << 16)
            elif channel.recv_stderr_ready():
                data = self._stderr + channel.recv_stderr(1 << 16)
                self._stderr = data[-_MAX_STDERR:]
            elif channel.eof_received or channel.closed:
                raise self._ended(what)
            elif not self._watch.wait_readable(
                channel.fileno(), deadline - time.monotonic()
            ):
                raise GuestTimeoutError(what, timeout)
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        return line.decode("utf-8", "surrogateescape")

    def _ended(self, what: str) -> GuestError:
        self._watch.check(_LOSS_GRACE)
        how = "ended"
        if self._channel.exit_status_ready():
            how = f"ended with status {self._channel.recv_exit_status()}"
        last = self._stderr.decode("utf-8", "replace").strip().rpartition("\n")[2]
        return GuestError(f"{what}: the command {how}" + (f": {last}" if last else ""))


# False: the command has ended.
def _send_all(
    channel: paramiko.Channel, watch: LossWatch, data: bytes, what: str, timeout: float
) -> bool:
    deadline = time.monotonic() + timeout
    view = memoryview(data)
    while view:
        # In slices, as no descriptor tells when the window opens again.
        channel.settimeout(_SLICE)
        try:
            sent = channel.send(bytes(view[:_CHUNK]))
        except TimeoutError:
            watch.check()
            if time.monotonic() > deadline:
                raise GuestTimeoutError(what, timeout) from None
            continue
        if sent == 0:
            return False
        view = view[sent:]
    return True


def _collect(
    channel: paramiko.Channel,
    watch: LossWatch,
    what: str,
    timeout: float,
    deadline: float,
) -> ExecResult:
    out, err = bytearray(), bytearray()
    while True:
        if channel.recv_ready():
            out += channel.recv(1 << 16)
        elif channel.recv_stderr_ready():
            err += channel.recv_stderr(1 << 16)
        elif channel.exit_status_ready() and (channel.eof_received or channel.closed):
            status = channel.recv_exit_status()
            if status == _NO_STATUS:
                _require_connection(channel, watch, what)
            return ExecResult(status, bytes(out), bytes(err))
        elif time.monotonic() > deadline:
            raise GuestTimeoutError(what, timeout)
        elif channel.eof_received or channel.closed:
            # The descriptor stays readable from here on; the status is next.
            channel.status_event.wait(_SLICE)
            watch.check()
        else:
            watch.wait_readable(channel.fileno(), deadline - time.monotonic())
        if len(out) + len(err) > _MAX_OUTPUT:
            raise GuestError(f"{what}: the output never ends")


# A channel whose connection broke looks like one whose command was killed.
def _require_connection(channel: paramiko.Channel, watch: LossWatch, what: str) -> None:
    watch.check(_LOSS_GRACE)
    if not channel.get_transport().is_active():
        raise GuestError(f"{what}: the connection was closed")


def _reason(err: BaseException) -> str:
    if isinstance(err, EOFError):
        return "the connection was closed"
    return " ".join(str(err).split()) or type(err).__name__
