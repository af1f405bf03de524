# SPDX-License-Identifier: GPL-2.0-or-later
"""The C core's fuzz targets, under the address and undefined behaviour sanitizers."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

CORE = Path(__file__).resolve().parents[2] / "device" / "core"
TARGETS = sorted(path.stem for path in (CORE / "fuzz").glob("fuzz_*.c"))
#: Each finds its way through the same inputs in every run.
RUNS = 100_000
NIGHTLY_SECONDS = 600


def _make(build: Path, *arguments: str, timeout: float) -> str:
    for tool in ("make", "gcc"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    argv = ["make", "-s", "-j2", "-C", str(CORE), f"BUILD={build}", *arguments]
    done = subprocess.run(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=timeout,
        check=False,
    )
    if done.returncode:
        pytest.fail(f"{' '.join(argv)}:\n{done.stdout[-8000:]}", pytrace=False)
    return done.stdout


def test_fuzz_targets_survive_mutated_seeds(tmp_path: Path) -> None:
    output = _make(tmp_path, "check-fuzz", f"FUZZ_RUNS={RUNS}", timeout=600)
    assert output.count(f"Done {RUNS} runs") == len(TARGETS) >= 3


@pytest.mark.nightly
def test_fuzz_targets_survive_ten_minutes_each(tmp_path: Path) -> None:
    timeout = 2 * NIGHTLY_SECONDS * len(TARGETS)
    _make(tmp_path, "fuzz", f"FUZZ_SECONDS={NIGHTLY_SECONDS}", timeout=timeout)
