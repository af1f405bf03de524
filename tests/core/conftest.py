# SPDX-License-Identifier: GPL-2.0-or-later
"""How the tests here run device/core/Makefile."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Protocol

import pytest

CORE = Path(__file__).resolve().parents[2] / "device" / "core"


class CoreMake(Protocol):
    """Runs a target of the core's Makefile, and returns what became of it."""

    def __call__(
        self, target: str, build: Path, *arguments: str, timeout: float
    ) -> subprocess.CompletedProcess[str]: ...


def _make(
    target: str, build: Path, *arguments: str, timeout: float
) -> subprocess.CompletedProcess[str]:
    for tool in ("make", "gcc"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    argv = ["make", "-s", "-j2", "-C", str(CORE), target, f"BUILD={build}", *arguments]
    return subprocess.run(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=timeout,
        check=False,
    )


@pytest.fixture(scope="session")
def core_make() -> CoreMake:
    """``make TARGET BUILD=... ARGUMENTS``; its output is both streams."""
    return _make
