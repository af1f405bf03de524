# SPDX-License-Identifier: GPL-2.0-or-later
"""The C core's own tests: one test here for each of its programs and builds.

device/core/Makefile builds and runs them; its output is TAP, each program's after
a line `# PROGRAM`.
"""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from tests.core.conftest import CORE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.core.conftest import CoreMake

PROGRAMS = sorted(path.stem for path in (CORE / "tests").glob("test_*.c"))
PLAN = re.compile(r"1\.\.(\d+)")
RESULT = re.compile(r"(?P<failed>not )?ok (?P<number>\d+)")

#: The whole of one build and its tests; a single test ends itself much earlier.
TIMEOUT = 900.0


@dataclass(frozen=True)
class Tap:
    """What one test program said."""

    text: str

    def problems(self) -> list[str]:
        """Tell what is wrong; empty when each planned test is there and is ok."""
        lines = self.text.splitlines()
        results = [match for line in lines if (match := RESULT.match(line))]
        problems = [match.string for match in results if match["failed"]]
        plans = [int(match[1]) for line in lines if (match := PLAN.fullmatch(line))]
        if plans != [len(results)]:
            problems.append(f"{len(results)} results, planned: {plans or 'no plan'}")
        return problems


def split_programs(output: str) -> dict[str, Tap]:
    """Cut the output of `make check` into that of its programs."""
    pieces = re.split(r"^# \S*/(test_\w+)$", output, flags=re.MULTILINE)
    return {
        name: Tap(text) for name, text in zip(pieces[1::2], pieces[2::2], strict=True)
    }


@pytest.fixture(
    scope="module",
    params=[
        "check",
        "check-sanitize",
        pytest.param("check-tsan", marks=pytest.mark.nightly),
    ],
)
def make_output(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    core_make: CoreMake,
) -> Iterator[str]:
    """Run one target of the core's Makefile in a build folder of its own."""
    build = tmp_path_factory.mktemp(request.param)
    done = core_make(request.param, build, timeout=TIMEOUT)
    yield done.stdout
    # Three builds with debug information are not worth keeping.
    shutil.rmtree(build)


@pytest.mark.parametrize("program", PROGRAMS)
def test_core(make_output: str, program: str) -> None:
    taps = split_programs(make_output)
    if program not in taps:
        pytest.fail(f"{program} did not run:\n{make_output[-8000:]}", pytrace=False)
    tap = taps[program]
    if problems := tap.problems():
        text = "\n".join([*problems, "", tap.text[-8000:]])
        pytest.fail(f"{program}: {text}", pytrace=False)


@pytest.mark.parametrize(
    ("text", "nr_problems"),
    [
        ("ok 1 - a\nok 2 - b\n1..2\n", 0),
        ("ok 1 - a\nnot ok 2 - b\n1..2\n", 1),
        ("ok 1 - a\n", 1),
        ("ok 1 - a\n1..2\n", 1),
        ("Bail out! no memory\n", 1),
        ("1..0\n", 0),
    ],
)
def test_tap_problems(text: str, nr_problems: int) -> None:
    assert len(Tap(text).problems()) == nr_problems


def test_split_programs_keeps_each_text() -> None:
    output = "cc ...\n# /b/tests/test_a\nok 1 - x\n# b/tests/test_b_c\n1..0\n"
    taps = split_programs(output)
    assert {name: tap.text.strip() for name, tap in taps.items()} == {
        "test_a": "ok 1 - x",
        "test_b_c": "1..0",
    }
