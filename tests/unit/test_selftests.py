# SPDX-License-Identifier: GPL-2.0-or-later
"""What a selftest came to: by its status, by its output, and by both together."""

from __future__ import annotations

import pytest

from viotest.report.results import Outcome
from viotest.suite.selftests import SelftestRun, judge_selftest, skip_reason

OK = "TAP version 13\n1..2\nok 1 a\nok 2 b # SKIP no memory\n"
BAD = "TAP version 13\n1..2\nok 1 a\n# x.c:1:b:Expected 1\nnot ok 2 b\n"


def _run(output: str, status: int) -> SelftestRun:
    return SelftestRun("vfio_test", status, output)


def test_selftest_that_passes_has_no_failure() -> None:
    tests, failure = judge_selftest(_run(OK, 0))
    assert failure is None
    assert [t.outcome for t in tests] == [Outcome.PASS, Outcome.SKIP]
    assert skip_reason(_run(OK, 0)) == ""


def test_selftest_that_fails_is_quoted() -> None:
    _, failure = judge_selftest(_run(BAD, 1))
    assert failure is not None
    assert failure.reason == "1 of 2 tests failed: b: x.c:1:b:Expected 1"
    assert "not ok b: x.c:1:b:Expected 1" in failure.details


@pytest.mark.parametrize(
    ("output", "status", "reason"),
    [
        (OK, 137, "killed after"),
        (OK, 139, "it ended with status 139"),
        (OK, -1, "it ended with status -1"),
        (OK, 1, "it ended with status 1, and no test failed"),
        (BAD, 0, "1 of 2 tests failed"),
        (OK.replace("1..2", "1..3"), 0, "2 results of 3"),
        ("", 0, "there is no KTAP"),
        ("Unable to determine which device(s) to use", 4, "it cannot run here"),
        ("sh: timeout: not found", 127, "it ended with status 127"),
    ],
)
def test_crash_or_silence_is_a_failure(output: str, status: int, reason: str) -> None:
    _, failure = judge_selftest(_run(output, status))
    assert failure is not None
    assert reason in failure.reason


def test_selftest_with_nothing_to_do_is_a_skip() -> None:
    run = _run("1..0 # SKIP SR-IOV may not be supported\n", 4)
    assert judge_selftest(run) == ((), None)
    assert skip_reason(run) == "SR-IOV may not be supported"
    none = _run("TAP version 13\n1..1\nok 1 b # SKIP no memory\n", 0)
    assert judge_selftest(none)[1] is None
    assert skip_reason(none) == "every test was skipped: no memory"
