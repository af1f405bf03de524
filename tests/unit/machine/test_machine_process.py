# SPDX-License-Identifier: GPL-2.0-or-later
"""Process and RunFolder, with real children."""

from __future__ import annotations

import os
import signal
import socket
import time
from typing import TYPE_CHECKING

import pytest

from viotest.machine.errors import LaunchError, MachineError
from viotest.machine.folder import RunFolder
from viotest.machine.latch import Latch, wait_readable
from viotest.machine.process import Process, status_text

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[RunFolder]:
    with RunFolder(tmp_path) as folder:
        yield folder


def shell(folder: RunFolder, script: str) -> Process:
    process = Process("child", ["sh", "-c", script], folder=folder, log="child.log")
    process.launch()
    return process


def test_process_ends(folder: RunFolder) -> None:
    process = shell(folder, "pwd; echo last >&2; exit 3")
    assert process.wait(5) == 3
    assert process.status == "exited with status 3"
    assert process.log_tail() == f"{folder.path}\nlast\n"
    process.close()
    process.close()
    assert process.wait(0) == 3


def test_process_leads_a_session(folder: RunFolder) -> None:
    process = shell(folder, "exec sleep 60")
    assert os.getsid(process.pid) == process.pid
    process.close()


@pytest.mark.parametrize("stop", [False, True])
def test_process_killed(folder: RunFolder, stop: bool) -> None:
    process = shell(folder, "exec sleep 60")
    assert process.alive
    assert process.status == "is running"
    if stop:
        os.kill(process.pid, signal.SIGSTOP)
        until = time.monotonic() + 5
        while process.state() != "T" and time.monotonic() < until:
            time.sleep(0.001)
        assert process.state() == "T"
    process.kill()
    process.kill()
    assert process.status == "was killed by SIGKILL"
    assert wait_readable([process.pidfd], 0)
    process.close()


def test_process_wait_timeout(folder: RunFolder) -> None:
    process = shell(folder, "exec sleep 60")
    with pytest.raises(MachineError, match="child is still running"):
        process.wait(0.01)
    process.close()


def test_process_no_binary(folder: RunFolder) -> None:
    process = Process("child", ["/no/such"], folder=folder, log="child.log")
    with pytest.raises(LaunchError, match="cannot be started: No such file"):
        process.launch()
    assert process.status == "did not start"


def test_process_log_tail_is_the_end(folder: RunFolder) -> None:
    process = shell(folder, "seq 1 20000")
    process.wait(5)
    tail = process.log_tail()
    assert len(tail) == 8192
    assert tail.endswith("\n20000\n")
    process.close()


@pytest.mark.parametrize(
    ("returncode", "text"),
    [
        (0, "exited with status 0"),
        (-signal.SIGSEGV, "was killed by SIGSEGV"),
        (-63, "was killed by signal 63"),
    ],
)
def test_status_text(returncode: int, text: str) -> None:
    assert status_text(returncode) == text


def test_folder_deep_sockets(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 200)
    path.mkdir()
    with RunFolder(path) as folder:
        with folder.listen("a.sock") as listener, folder.connect("a.sock") as client:
            server = listener.accept()[0]
            server.sendall(b"hi")
            assert client.recv(2) == b"hi"
            server.close()
        (path / "file").touch()
    assert [p.name for p in path.iterdir()] == ["file"]


def test_folder_holds_sockets(tmp_path: Path) -> None:
    with RunFolder(tmp_path) as folder, folder.listen("a.sock") as listener:
        folder.hold("a.sock")
        assert list(tmp_path.iterdir()) == []
        for _ in range(2):
            folder.connect("a.sock").close()
            listener.accept()[0].close()


def test_folder_never_follows_links(tmp_path: Path) -> None:
    (tmp_path / "log").symlink_to("/etc/passwd")
    with RunFolder(tmp_path) as folder, pytest.raises(OSError, match="log"):
        folder.open("log", os.O_RDONLY)


def test_folder_removed_meanwhile(tmp_path: Path) -> None:
    path = tmp_path / "run"
    path.mkdir()
    with RunFolder(path):
        path.rmdir()


def test_latch() -> None:
    latch = Latch()
    assert not latch.wait(0)
    latch.set()
    latch.set()
    assert latch.wait(0)
    latch.close()
    latch.close()
    latch.set()
    assert latch.is_set()


def test_wait_readable_many_descriptors() -> None:
    ours, theirs = socket.socketpair()
    theirs.sendall(b"x")
    high = os.dup2(ours.fileno(), 1024 if os.sysconf("SC_OPEN_MAX") > 1024 else 512)
    assert wait_readable([high], 0) == {high}
    os.close(high)
    ours.close()
    theirs.close()
