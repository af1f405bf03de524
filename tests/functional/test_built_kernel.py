# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernels that viotest builds pass its suite, and their modules can be rebuilt."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.functional.harness import Viotest

PATCH = Path(__file__).parents[2] / "guest-images/mutants/no-coherency.patch"
#: A build from nothing on two busy cores.
BUILD_TIMEOUT = 3000.0


def _viotest_kernel(*arguments: str) -> list[str]:
    command = [sys.executable, "-m", "viotest", "kernel", *arguments]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=BUILD_TIMEOUT, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize(
    "name", ["linux-7.3", pytest.param("linux-6.12", marks=pytest.mark.nightly)]
)
def test_built_kernel_passes_the_suite(viotest: Viotest, name: str) -> None:
    assert _viotest_kernel("build", name) == [f"build:{name}"]
    results = viotest.run("--kernel", f"build:{name}").expect("PASS", 0)
    assert results["kernel"]["release"].endswith("-viotest")


def test_rebuilt_module_puts_the_regression_back(viotest: Viotest) -> None:
    kernel = "build:linux-7.3"
    (module,) = _viotest_kernel("module", "--kernel", kernel, "--patch", str(PATCH))
    arguments = ("--kernel", kernel, "--replace-module", module, "--check", "bind")
    results = viotest.run(*arguments).expect("FAIL", 1)
    assert "cache coherency not advertised" in results["checks"][0]["reason"]
