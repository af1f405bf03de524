# SPDX-License-Identifier: GPL-2.0-or-later
"""The regression that viotest is named for, put back into a kernel."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.functional

KERNEL = "debian:bookworm-backports"
PATCH = Path(__file__).parents[2] / "guest-images/mutants/no-coherency.patch"


def _viotest(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "viotest", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def module() -> str:
    """A virtio_iommu.ko that does not advertise cache coherency."""
    arguments = ("kernel", "module", "--kernel", KERNEL, "--patch", str(PATCH))
    done = _viotest(*arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def _run(out: Path, *arguments: str) -> tuple[int, dict[str, Any]]:
    done = _viotest(
        "run", "--accel", "tcg", "--kernel", KERNEL, "--out", str(out), *arguments
    )
    return done.returncode, json.loads((out / "results.json").read_text())


def test_kernel_without_coherency_fails_at_the_bind(
    module: str, tmp_path: Path
) -> None:
    status, results = _run(tmp_path / "run", "--replace-module", module)
    assert status == 1
    assert results["verdict"] == "FAIL"
    checks = {check["name"]: check for check in results["checks"]}
    # A check that only looks for the group is content with the broken kernel.
    assert checks["group"]["outcome"] == "pass"
    assert checks["bind"]["outcome"] == "fail"
    assert "EINVAL" in checks["bind"]["reason"]
    assert "cache coherency not advertised" in checks["bind"]["reason"]
    assert "91c98fe7941" in checks["bind"]["details"]
    assert checks["coherency"]["outcome"] == "fail"
    assert results["cause"]["category"] == "fail"
    assert results["cause"]["text"].startswith("bind:")


def test_same_kernel_unmodified_passes(tmp_path: Path) -> None:
    status, results = _run(tmp_path / "run")
    assert (status, results["verdict"]) == (0, "PASS")
