# SPDX-License-Identifier: GPL-2.0-or-later
"""The C core's fuzz targets, under the address and undefined behaviour sanitizers."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.core.conftest import CORE

if TYPE_CHECKING:
    from pathlib import Path

    from tests.core.conftest import CoreMake

TARGETS = sorted(path.stem for path in (CORE / "fuzz").glob("fuzz_*.c"))
SECONDS = 20
NIGHTLY_SECONDS = 600
#: Fewer inputs are not worth being called a run: something is in the way.
MIN_RUNS = 100
BLIND = "no clang with libFuzzer"


def _fuzz(core_make: CoreMake, build: Path, seconds: int) -> str:
    timeout = 300 + 2 * seconds * len(TARGETS)
    done = core_make("fuzz", build, f"FUZZ_SECONDS={seconds}", timeout=timeout)
    if done.returncode:
        pytest.fail(f"make fuzz:\n{done.stdout[-16000:]}", pytrace=False)
    found = re.findall(r"^# (fuzz_\w+): (\d+) runs$", done.stdout, re.MULTILINE)
    runs = {target: int(nr) for target, nr in found}
    assert sorted(runs) == TARGETS
    assert min(runs.values()) >= MIN_RUNS, runs
    return done.stdout


def test_fuzz_targets_survive(core_make: CoreMake, tmp_path: Path) -> None:
    if BLIND in _fuzz(core_make, tmp_path, SECONDS):
        pytest.skip(f"{BLIND}: survived blind mutations only")


@pytest.mark.nightly
def test_fuzz_seeds_survive_blind_mutations(
    core_make: CoreMake, tmp_path: Path
) -> None:
    runs = 2000
    done = core_make("check-fuzz", tmp_path, f"FUZZ_RUNS={runs}", timeout=600)
    assert done.returncode == 0, done.stdout[-8000:]
    assert done.stdout.count(f"Done {runs} runs") == len(TARGETS)


@pytest.mark.nightly
def test_fuzz_targets_survive_ten_minutes_each(
    core_make: CoreMake, tmp_path: Path
) -> None:
    _fuzz(core_make, tmp_path, NIGHTLY_SECONDS)
