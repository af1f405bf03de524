# SPDX-License-Identifier: GPL-2.0-or-later
"""KTAP as the kernel's programs write it, and as nobody should."""

from __future__ import annotations

import random

import pytest

from viotest.report.results import Outcome
from viotest.suite.ktap import MAX_DEPTH, MAX_TESTS, parse_ktap

GOOD = """\
TAP version 13
1..3
# Starting 3 tests from 1 test cases.
#  RUN           irq.msi.trigger ...
#      SKIP      MSI: not supported
#            OK  irq.msi.trigger
ok 1 irq.msi.trigger # SKIP MSI: not supported

#  RUN           irq.msix.trigger ...
MSI-x: enabled 4 interrupts
ok 2 irq.msix.trigger
#  RUN           dma.copy ...
# dma.c:98:copy:Expected 0 (0) == memcmp(a, b, n) (1)
# copy: Test terminated by assertion
not ok 3 dma.copy
# FAILED: 2 / 3 tests passed.
# Totals: pass:1 fail:1 xfail:0 xpass:0 skip:1 error:0
"""


def test_every_test_has_its_outcome_and_reason() -> None:
    ktap = parse_ktap(GOOD)
    assert ktap.problems == ()
    assert [(t.name, t.outcome, t.reason) for t in ktap.tests] == [
        ("irq.msi.trigger", Outcome.SKIP, "MSI: not supported"),
        ("irq.msix.trigger", Outcome.PASS, ""),
        (
            "dma.copy",
            Outcome.FAIL,
            "dma.c:98:copy:Expected 0 (0) == memcmp(a, b, n) (1)",
        ),
    ]
    assert "terminated by assertion" in ktap.tests[2].details
    assert ktap.tests[1].details == ""


@pytest.mark.parametrize(
    ("notes", "reason"),
    [
        ("# a: Test terminated by timeout", "a: Test terminated by timeout"),
        (
            "lib/device.c:297: Assertion Failure\nopen(/dev/vfio/0) failed\n"
            "# a: Test failed",
            "lib/device.c:297: Assertion Failure",
        ),
        ("", "it does not say why"),
    ],
)
def test_failure_is_told_by_what_the_program_said(notes: str, reason: str) -> None:
    frame = f"#  RUN           a ...\n{notes}\n#          FAIL  a\n"
    (test,) = parse_ktap(f"TAP version 13\n1..1\n{frame}not ok 1 a\n").tests
    assert test.reason == reason


NESTED = """\
KTAP version 1
1..2
  KTAP version 1
  # Subtest: outer
  1..2
    KTAP version 1
    1..1
    not ok 1 deep # TIMEOUT 45 seconds
  not ok 1 inner
  ok 2 second # XFAIL known
not ok 1 outer
ok 2 - flat
"""


def test_nested_tests_are_named_after_their_parents() -> None:
    ktap = parse_ktap(NESTED)
    assert ktap.problems == ()
    assert [(t.name, t.outcome, t.reason) for t in ktap.tests] == [
        ("outer/inner/deep", Outcome.FAIL, "TIMEOUT: 45 seconds"),
        ("outer/second", Outcome.PASS, "XFAIL: known"),
        ("flat", Outcome.PASS, ""),
    ]


def test_parent_that_fails_alone_is_a_test() -> None:
    text = NESTED.replace("not ok 1 deep # TIMEOUT 45 seconds", "ok 1 deep")
    names = [t.name for t in parse_ktap(text).tests if t.outcome is Outcome.FAIL]
    assert names == ["outer/inner"]


def test_parent_that_hides_a_failure_is_a_problem() -> None:
    (problem,) = parse_ktap(NESTED.replace("\nnot ok 1 outer", "\nok 1 outer")).problems
    assert problem == "line 11: outer is ok, and a part of it is not"


def test_program_that_skips_all_says_why() -> None:
    assert parse_ktap("1..0 # SKIP no SR-IOV\n").skipped == "no SR-IOV"
    assert parse_ktap(GOOD).skipped is None


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        (GOOD, "", "there is no KTAP in its output"),
        ("TAP version 13\n", "", "there is no KTAP in its output"),
        ("1..3\n", "", "there is no plan (1..N)"),
        ("1..3\n", "1..3\n1..3\n", "line 3: a second plan"),
        ("1..3\n", "1..4\n", "3 results of 4 that were planned"),
        ("ok 2 irq", "ok 3 irq", "line 11: test 3 comes as number 2"),
        ("pass:1", "pass:2", "it says that 2 tests pass, and shows 1"),
        ("skip:1", "skip:0", "it says that 0 tests skip, and shows 1"),
        ("ok 2 irq.msix.trigger\n", "Bail out! no device\n", "line 11: Bail out!"),
        ("ok 2 irq.msix.trigger\n", "TAP version 13\n", "line 11: the output begins"),
    ],
)
def test_what_is_missing_or_doubtful_is_a_problem(
    old: str, new: str, problem: str
) -> None:
    problems = parse_ktap(GOOD.replace(old, new, 1)).problems
    assert any(problem in said for said in problems), problems


def test_output_that_ends_early_tells_its_last_words() -> None:
    text = GOOD[: GOOD.index("# dma.c")]
    (problem,) = parse_ktap(text).problems
    assert problem.startswith("2 results of 3 that were planned; its last words:")
    assert "RUN           dma.copy" in problem


def test_output_that_ends_inside_of_a_nested_test_is_a_problem() -> None:
    ktap = parse_ktap(NESTED[: NESTED.index("not ok 1 outer")])
    assert "the output ends inside of a nested test" in ktap.problems
    assert Outcome.FAIL in {test.outcome for test in ktap.tests}


def test_hostile_depth_and_number_are_bounded() -> None:
    deep = "\n".join(f"{' ' * n}KTAP version 1" for n in range(10 * MAX_DEPTH))
    assert any("nested more than" in said for said in parse_ktap(deep).problems)
    many = "\n".join(f"ok {n} t" for n in range(1, 2 * MAX_TESTS))
    ktap = parse_ktap(f"KTAP version 1\n1..{2 * MAX_TESTS}\n{many}")
    assert len(ktap.tests) == MAX_TESTS + 1
    assert any("more than" in said for said in ktap.problems)


def test_hostile_bytes_reach_no_name() -> None:
    text = "KTAP version 1\n1..1\nnot ok 1 \x1b[2J\x00x" + "y" * 10_000 + "\n"
    (test,) = parse_ktap(text).tests
    assert test.name.isprintable()
    assert len(test.name) <= 200


def test_noise_raises_nothing_and_is_never_all_well() -> None:
    pieces = [
        *GOOD.splitlines(),
        *NESTED.splitlines(),
        *("1..99999999999999", "ok", "not ok -1", "ok 1 # SKIP", "\x00", "    ok 1"),
    ]
    draw = random.Random(4)
    for _ in range(500):
        lines = draw.choices(pieces, k=draw.randrange(30))
        ktap = parse_ktap("\n".join(lines))
        if not ktap.problems:
            said = [line.strip() for line in lines]
            assert {"KTAP version 1", "TAP version 13"} & set(said)
            assert any(line.startswith("1..") for line in said)
            assert ktap.tests
