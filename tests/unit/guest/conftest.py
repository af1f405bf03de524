# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest that is a thread: a real SSH server at the end of a socket pair."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import socket
import subprocess
import threading
import time
from typing import TYPE_CHECKING

import paramiko
import pytest
from paramiko.common import AUTH_FAILED, AUTH_SUCCESSFUL, OPEN_SUCCEEDED

from viotest.guest.keys import GuestKeys
from viotest.machine.latch import Latch, wait_readable
from viotest.machine.watch import GuestLostError, Loss, LossKind

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey


# What this end meets when the other one goes away.
GONE = (OSError, EOFError, paramiko.SSHException)


def paramiko_key(key: Ed25519PrivateKey) -> paramiko.Ed25519Key:
    keys = GuestKeys(host=key, client=key)
    return paramiko.Ed25519Key.from_private_key(io.StringIO(keys.client_private))


class FakeWatch:
    """A watch that is told what is lost."""

    def __init__(self) -> None:
        self.lost = Latch()

    def lose(self) -> None:
        self.lost.set()

    def check(self, timeout: float = 0.0) -> None:
        if self.lost.wait(timeout):
            loss = Loss(LossKind.QEMU_EXITED, "QEMU was killed by SIGKILL", 0)
            raise GuestLostError(loss, ["the last line"])

    def wait_readable(self, fd: int, timeout: float) -> bool:
        ready = wait_readable([fd, self.lost.fileno()], timeout)
        if fd in ready:
            return True
        if ready:
            self.check()
        return False


class SshGuest(paramiko.ServerInterface):
    """Serves one connection; commands run in the host's shell."""

    def __init__(self, keys: GuestKeys) -> None:
        self.keys = keys
        self.sock, theirs = socket.socketpair()
        self.transport = paramiko.Transport(theirs)
        self.transport.set_log_channel("viotest.fake")
        self.transport.add_server_key(paramiko_key(keys.host))
        self.logins: list[str] = []

    def start(self) -> None:
        self.transport.start_server(event=threading.Event(), server=self)

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        self.logins.append(username)
        if key.asbytes() == paramiko_key(self.keys.client).asbytes():
            return AUTH_SUCCESSFUL
        return AUTH_FAILED

    def get_allowed_auths(self, username: str) -> str:
        return "publickey"

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return OPEN_SUCCEEDED

    def check_channel_exec_request(
        self, channel: paramiko.Channel, command: bytes
    ) -> bool:
        if command == b"refuse":
            return False
        threading.Thread(target=run, args=(channel, command), daemon=True).start()
        return True


def run(channel: paramiko.Channel, command: bytes) -> None:
    pipe = subprocess.PIPE
    with (
        contextlib.suppress(*GONE),
        subprocess.Popen(
            ["sh", "-c", command], stdin=pipe, stdout=pipe, stderr=pipe
        ) as process,
    ):
        assert process.stdout is not None
        assert process.stderr is not None
        threads = [
            threading.Thread(target=pump, args=args, daemon=True)
            for args in (
                (process.stdout, channel.sendall),
                (process.stderr, channel.sendall_stderr),
            )
        ]
        for thread in threads:
            thread.start()
        feeder = threading.Thread(target=feed, args=(channel, process), daemon=True)
        feeder.start()
        for thread in threads:
            thread.join()
        # As some servers do: the end of output comes before the status.
        channel.shutdown_write()
        if (status := process.wait()) >= 0:
            channel.send_exit_status(status)
        channel.close()


def pump(pipe: io.BufferedReader, send: object) -> None:
    assert callable(send)
    with contextlib.suppress(*GONE):
        while data := pipe.read1(65536):
            send(data)


def feed(channel: paramiko.Channel, process: subprocess.Popen[bytes]) -> None:
    assert process.stdin
    with contextlib.suppress(*GONE):
        while data := channel.recv(65536):
            process.stdin.write(data)
            process.stdin.flush()
    if not channel.closed:
        # The end of its input, and not of the session.
        with contextlib.suppress(*GONE):
            process.stdin.close()
        while not channel.closed and process.poll() is None:
            time.sleep(0.01)
    process.kill()


@dataclasses.dataclass(frozen=True)
class Bench:
    """Both ends."""

    guest: SshGuest
    keys: GuestKeys
    watch: FakeWatch


@pytest.fixture
def bench() -> Iterator[Bench]:
    """Return a guest that listens, and a watch over it."""
    keys = GuestKeys.generate()
    guest, watch = SshGuest(keys), FakeWatch()
    yield Bench(guest, keys, watch)
    guest.transport.close()
    guest.transport.sock.close()
    guest.sock.close()
    watch.lost.close()
