# SPDX-License-Identifier: GPL-2.0-or-later
"""The switch that makes a missing need a failure, in a pytest of its own."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CONFTEST = Path(__file__).resolve().parents[1] / "conftest.py"
TESTS = """
import pytest
def test_need(): pytest.skip("no compiler")
def test_optional(): pytest.skip("optional: no such hardware")
@pytest.mark.skipif(True, reason="optional: not here")
def test_mark(): pass
@pytest.mark.xfail(strict=True)
def test_xfail(): assert False
def test_pass(): pass
"""
MODULE = 'import pytest\npytest.skip("no module", allow_module_level=True)\n'


@pytest.mark.parametrize(
    ("switch", "outcomes"),
    [
        ("", {"passed": 1, "skipped": 4, "xfailed": 1}),
        ("1", {"passed": 1, "skipped": 2, "xfailed": 1, "failed": 1, "error": 1}),
    ],
)
def test_missing_need(tmp_path: Path, switch: str, outcomes: dict[str, int]) -> None:
    shutil.copy(CONFTEST, tmp_path)
    (tmp_path / "test_a.py").write_text(TESTS)
    (tmp_path / "test_b.py").write_text(MODULE)
    argv = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--rootdir=."]
    done = subprocess.run(
        [*argv, "--continue-on-collection-errors", "."],
        cwd=tmp_path,
        env={**os.environ, "VIOTEST_CI": switch},
        capture_output=True,
        text=True,
        check=False,
    )
    found = re.findall(r"(\d+) (\w+)", done.stdout.splitlines()[-1].split(" in ")[0])
    assert {word: int(number) for number, word in found} == outcomes, done.stdout
