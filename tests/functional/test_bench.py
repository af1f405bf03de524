# SPDX-License-Identifier: GPL-2.0-or-later
"""``viotest bench guest``: its shape, and that broken mappings give no figure."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.functional, pytest.mark.usefixtures("assets")]

_COMMAND = Path(sys.executable).parent / "viotest"
_SHORT = ("--rounds", "2", "--count", "50", "--also-poll", "0", "--json", "-")


def bench(folder: Path, *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [os.fspath(_COMMAND), "bench", "guest", *_SHORT, "--", "--accel", "tcg", *args],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_maps_and_unmaps_are_measured_of_all_three(tmp_path: Path) -> None:
    done = bench(tmp_path)
    assert done.returncode == 0, done.stderr
    (section,) = json.loads(done.stdout)["sections"]
    assert len(section["rows"]) == 4
    for row in section["rows"]:
        assert row["ours"] > 0
        assert row["theirs"] > 0
        assert row["ratio"]["min"] <= row["ratio"]["median"] <= row["ratio"]["max"]
    assert not list(tmp_path.iterdir())


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("mutant", "why"),
    [
        ("accept-map-ignore", "mappings do not work, their times mean nothing"),
        ("fail-map", "their times mean nothing"),
    ],
)
def test_device_that_maps_nothing_gives_no_figure(
    mutant: str, why: str, tmp_path: Path
) -> None:
    done = bench(tmp_path, "--device-mutant", mutant)
    assert done.returncode == 125, done.stderr
    assert done.stdout == ""
    assert why in done.stderr
