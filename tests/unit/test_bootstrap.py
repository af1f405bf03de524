# SPDX-License-Identifier: GPL-2.0-or-later
"""tools/bootstrap on a host that lacks something; a fake apt-get stands in."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
APT_GET = '#!/bin/sh\necho "$*" >>"$APT_LOG"\nexit 100\n'
INSTALL = "install -y -q --no-install-recommends pkg-a pkg-b"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Make a checkout whose list names two packages that no host has."""
    (tmp_path / "tools").mkdir()
    (tmp_path / "bin").mkdir()
    shutil.copy(ROOT / "tools" / "bootstrap", tmp_path / "tools")
    for name in ("requirements.txt", "pyproject.toml", "setup.py"):
        shutil.copy(ROOT / name, tmp_path)
    binding = tmp_path / "device" / "viotest_device" / "_build.py"
    binding.parent.mkdir(parents=True)
    binding.touch()
    (tmp_path / "host-packages.txt").write_text(
        "# a comment\n"
        "make   command:make\n"
        "pkg-a  command:viotest-no-such-command\n"
        "pkg-b  file:/viotest/no/*/such,/viotest/no-such\n"
    )
    apt_get = tmp_path / "bin" / "apt-get"
    apt_get.write_text(APT_GET)
    apt_get.chmod(0o755)
    return tmp_path


def run_bootstrap(checkout: Path) -> subprocess.CompletedProcess[str]:
    env = {
        **os.environ,
        "PATH": f"{checkout / 'bin'}:{os.environ['PATH']}",
        "APT_LOG": str(checkout / "apt.log"),
        "VIOTEST_CACHE": str(checkout / "cache"),
    }
    return subprocess.run(
        [checkout / "tools" / "bootstrap"],
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.skipif(os.geteuid() == 0, reason="optional: root installs instead")
def test_missing_packages_are_named_in_one_line(checkout: Path) -> None:
    done = run_bootstrap(checkout)
    assert done.returncode == 1
    assert done.stderr.count("apt-get install") == 1
    assert "sudo apt-get install pkg-a pkg-b\n" in done.stderr
    assert not (checkout / "apt.log").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="optional: only root installs")
def test_missing_packages_index_is_renewed_once_needed(checkout: Path) -> None:
    done = run_bootstrap(checkout)
    assert done.returncode == 1
    assert "could not be installed" in done.stderr
    calls = (checkout / "apt.log").read_text().splitlines()
    assert [call.endswith((INSTALL, "update")) for call in calls] == [True] * 4
    assert calls[0].endswith(INSTALL)
    assert calls[1].endswith("update")
    assert calls[-1].endswith(INSTALL)


def test_missing_packages_leave_no_environment(checkout: Path) -> None:
    run_bootstrap(checkout)
    assert not (checkout / ".venv").exists()
    assert not (checkout / "cache").exists()
