# SPDX-License-Identifier: GPL-2.0-or-later
"""The look for leftovers finds them: every other test here relies on it."""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path

import pytest

from tests.functional.harness import RUN_FILES, Viotest, wait_for


@pytest.fixture
def watcher(tmp_path: Path) -> Viotest:
    """A harness of a test that has made nothing yet."""
    return Viotest(tmp_path)


def test_nothing_is_nothing(watcher: Viotest) -> None:
    watcher.expect_nothing_left()


def test_process_is_found_and_ended(watcher: Viotest) -> None:
    # In a session of its own, as QEMU and the device are.
    argv = ["sleep", "60"]
    process = subprocess.Popen(argv, env=watcher.env, start_new_session=True)
    # Popen returns in the middle of exec, when there is no environment yet.
    environ = Path(f"/proc/{process.pid}/environ")
    wait_for(lambda: len(environ.read_bytes()) or None, "the environment of sleep")
    with pytest.raises(AssertionError, match=r"still running.*sleep 60"):
        watcher.expect_gone(timeout=0.2)
    assert process.wait(5) < 0
    watcher.expect_nothing_left()


def test_process_of_another_test_is_left_alone(
    watcher: Viotest, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = Viotest(tmp_path_factory.mktemp("other"))
    with subprocess.Popen(["sleep", "60"], env=other.env) as process:
        watcher.expect_nothing_left()
        assert process.poll() is None
        process.kill()


def test_socket_is_found(watcher: Viotest) -> None:
    path = watcher.folder / "deep" / "ssh.sock"
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(os.fspath(path))
    with pytest.raises(AssertionError, match=r"ssh\.sock"):
        watcher.expect_nothing_left()


def test_temporary_file_is_found(watcher: Viotest) -> None:
    (watcher.folder / "tmp" / "viotest-x").touch()
    with pytest.raises(AssertionError, match="viotest-x"):
        watcher.expect_nothing_left()


def test_stranger_in_the_run_folder_is_found(watcher: Viotest) -> None:
    assert "initrd.cpio" not in RUN_FILES
    out = watcher.folder / "run0"
    watcher.run("--check", "nothing", out=out)
    out.mkdir()
    (out / "initrd.cpio").touch()
    with pytest.raises(AssertionError, match=r"initrd\.cpio"):
        watcher.expect_nothing_left()
