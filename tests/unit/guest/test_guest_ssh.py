# SPDX-License-Identifier: GPL-2.0-or-later
"""SSH sessions and line channels against a real SSH server."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import time
from typing import TYPE_CHECKING

import pytest

from viotest.guest.errors import GuestError, GuestLostError, GuestTimeoutError
from viotest.guest.keys import GuestKeys
from viotest.guest.ssh import SshSession

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.unit.guest.conftest import Bench


@contextlib.contextmanager
def session_of(bench: Bench, keys: GuestKeys | None = None) -> Iterator[SshSession]:
    session = SshSession(bench.guest.sock, keys or bench.keys, bench.watch)
    with contextlib.closing(session):
        yield session


@pytest.fixture
def session(bench: Bench) -> Iterator[SshSession]:
    bench.guest.start()
    with session_of(bench) as session:
        session.connect(10)
        yield session


def lose_soon(bench: Bench) -> None:
    threading.Timer(0.1, bench.watch.lose).start()


def test_exec(session: SshSession, bench: Bench) -> None:
    result = session.exec("echo out; echo err >&2; exit 3", 10)
    assert result == (3, b"out\n", b"err\n")
    assert set(bench.guest.logins) == {"root"}


def test_upload(session: SshSession, tmp_path: Path) -> None:
    data = bytes(range(256)) * 4096
    session.upload(data, str(tmp_path / "file"), 20)
    assert (tmp_path / "file").read_bytes() == data


def test_upload_to_where_no_file_can_be(session: SshSession) -> None:
    with pytest.raises(GuestError, match="ssh: upload of /proc/none/file"):
        session.upload(b"data" * 4096, "/proc/none/file", 20)


def test_tell_waits_for_no_answer(session: SshSession, tmp_path: Path) -> None:
    told = tmp_path / "told"
    channel = session.open_line_channel(f"cat >{told}", 10)
    channel.tell("kexec", 10)
    deadline = time.monotonic() + 10
    while not told.exists() or told.read_text() != "kexec\n":
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_exec_large_output(session: SshSession) -> None:
    result = session.exec("head -c 3000000 /dev/zero", 20)
    assert (result.status, len(result.out)) == (0, 3_000_000)


def test_exec_refused(session: SshSession) -> None:
    with pytest.raises(GuestError, match="ssh: refuse: "):
        session.exec("refuse", 10)


def test_exec_timeout(session: SshSession) -> None:
    with pytest.raises(GuestTimeoutError, match=r"within 0\.2 s"):
        session.exec("sleep 60", 0.2)


@pytest.mark.parametrize("command", ["exec sleep 60", "exec sleep 60 >&- 2>&-"])
def test_exec_guest_lost(session: SshSession, bench: Bench, command: str) -> None:
    lose_soon(bench)
    begin = time.monotonic()
    with pytest.raises(GuestLostError) as caught:
        session.exec(command, 30)
    assert time.monotonic() - begin < 0.5
    assert caught.value.console_tail == ("the last line",)


def test_exec_killed(session: SshSession) -> None:
    assert session.exec("kill -9 $$", 10).status == -1


@pytest.mark.parametrize("lost", [False, True])
def test_exec_connection_breaks(session: SshSession, bench: Bench, lost: bool) -> None:
    threading.Timer(0.1, bench.guest.transport.close).start()
    if lost:
        # Known a moment later only.
        threading.Timer(0.15, bench.watch.lose).start()
    with pytest.raises(GuestLostError if lost else GuestError):
        session.exec("exec sleep 60", 30)


def test_connect_foreign_host_key(bench: Bench) -> None:
    keys = dataclasses.replace(bench.keys, host=GuestKeys.generate().host)
    bench.guest.start()
    with (
        session_of(bench, keys) as session,
        pytest.raises(GuestError, match="host key"),
    ):
        session.connect(10)
    assert bench.guest.logins == []


def test_connect_foreign_client_key(bench: Bench) -> None:
    keys = dataclasses.replace(bench.keys, client=GuestKeys.generate().client)
    bench.guest.start()
    with (
        session_of(bench, keys) as session,
        pytest.raises(GuestError, match="ssh: connect: Authentication failed"),
    ):
        session.connect(10)


def test_connect_silence(bench: Bench) -> None:
    with session_of(bench) as session, pytest.raises(GuestError):
        session.connect(0.2)


def test_connect_guest_lost(bench: Bench) -> None:
    lose_soon(bench)
    begin = time.monotonic()
    with session_of(bench) as session, pytest.raises(GuestLostError):
        session.connect(30)
    assert time.monotonic() - begin < 0.5


def test_connect_closed_by_dying_qemu(bench: Bench) -> None:
    # The connection breaks a moment before the watch knows why.
    bench.guest.transport.sock.close()
    lose_soon(bench)
    with session_of(bench) as session, pytest.raises(GuestLostError):
        session.connect(30)


def test_line_channel(session: SshSession) -> None:
    channel = session.open_line_channel("cat", 10)
    assert [channel.request(f"line {i}", 10) for i in range(50)] == [
        f"line {i}" for i in range(50)
    ]


def test_line_channel_large(session: SshSession) -> None:
    channel = session.open_line_channel("cat", 10)
    line = "x" * 3_000_000
    assert channel.request(line, 20) == line


def test_line_channel_binary(session: SshSession) -> None:
    channel = session.open_line_channel(r"printf '\377\033\n'; cat", 10)
    assert channel.request("x", 10) == "\udcff\x1b"


def test_line_channel_timeout_closes(session: SshSession) -> None:
    channel = session.open_line_channel("read l; sleep 1; echo late; cat", 10)
    with pytest.raises(GuestTimeoutError):
        channel.request("one", 0.1)
    with pytest.raises(GuestError):
        channel.request("two", 10)


def test_line_channel_command_ends(session: SshSession) -> None:
    channel = session.open_line_channel("read l; echo why >&2; exit 4", 10)
    with pytest.raises(GuestError) as caught:
        channel.request("go", 10)
    assert "the command ended" in str(caught.value)
    assert str(caught.value).endswith(": why")


def test_line_channel_endless(session: SshSession) -> None:
    channel = session.open_line_channel("cat /dev/zero", 10)
    with pytest.raises(GuestError, match="never ends"):
        channel.request("go", 30)


def test_line_channel_guest_lost(session: SshSession, bench: Bench) -> None:
    channel = session.open_line_channel("sleep 60", 10)
    lose_soon(bench)
    begin = time.monotonic()
    with pytest.raises(GuestLostError):
        channel.request("go", 30)
    assert time.monotonic() - begin < 0.5
