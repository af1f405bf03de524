# SPDX-License-Identifier: GPL-2.0-or-later
"""JUnit says what results.json says."""

from __future__ import annotations

import dataclasses
from xml.etree import ElementTree as ET

import pytest

from viotest.report.junit import junit_xml
from viotest.report.results import (
    Category,
    Cause,
    CheckResult,
    Outcome,
    RunResult,
    Subtest,
    Verdict,
)


def _check(name: str, outcome: Outcome, reason: str = "") -> CheckResult:
    return CheckResult(
        id=name,
        name=name,
        outcome=outcome,
        required=True,
        mode="",
        seconds=0.25,
        reason=reason,
        details="expected 1\nseen 2" if reason else "",
    )


def _result(
    verdict: Verdict, *checks: CheckResult, cause: Cause | None = None
) -> RunResult:
    return RunResult(
        verdict=verdict,
        scenario={},
        qemu={},
        kernel={},
        accel={},
        phases={},
        checks=checks,
        device=None,
        cause=cause,
    )


def _suite(result: RunResult) -> ET.Element:
    suite = ET.fromstring(junit_xml(result)).find("testsuite")
    assert suite is not None
    return suite


def test_junit_has_a_case_for_every_check() -> None:
    checks = (
        _check("bind", Outcome.PASS),
        _check("flr", Outcome.FAIL, "no reset"),
        _check("open", Outcome.SKIP, "no vfio"),
        _check("unmap", Outcome.ERROR, "gone"),
    )
    suite = _suite(_result(Verdict.FAIL, *checks))
    cases = {case.get("name"): [e.tag for e in case] for case in suite}
    assert cases == {
        "bind": [],
        "flr": ["failure"],
        "open": ["skipped"],
        "unmap": ["error"],
    }
    counts = [suite.get(k) for k in ("tests", "failures", "errors", "skipped")]
    assert counts == ["4", "1", "1", "1"]
    failure = suite.find("testcase/failure")
    assert failure is not None
    assert failure.get("message") == "no reset"
    assert failure.text == "expected 1\nseen 2"


def test_junit_of_a_failed_boot_is_not_green() -> None:
    cause = Cause(Category.BOOT_FAIL, "no beacon", ("last words",))
    suite = _suite(_result(Verdict.UNTESTED, cause=cause))
    error = suite.find("testcase/error")
    assert error is not None
    assert (error.get("message"), error.text) == ("boot-fail: no beacon", "last words")
    assert suite.get("errors") == "1"


@pytest.mark.parametrize("text", ["\x00", "\x1b[31m", "\ud800", "\uffff", "<&>"])
def test_junit_of_any_text_can_be_parsed(text: str) -> None:
    suite = _suite(_result(Verdict.FAIL, _check("flr", Outcome.FAIL, text)))
    assert suite.find("testcase/failure") is not None


def test_junit_has_a_case_for_every_subtest() -> None:
    subtests = (
        Subtest("dma.map", Outcome.PASS),
        Subtest("dma.huge", Outcome.SKIP, "no huge pages"),
        Subtest("dma.\x1b[copy", Outcome.FAIL, "Expected 0", "# dma.c:98"),
    )
    check = dataclasses.replace(
        _check("selftests[dma]", Outcome.FAIL, "1 of 3 tests failed"),
        subtests=subtests,
    )
    suite = _suite(_result(Verdict.FAIL, check))
    cases = [(c.get("classname"), c.get("name")) for c in suite]
    assert cases == [
        ("viotest", "selftests[dma]"),
        ("viotest.selftests[dma]", "dma.map"),
        ("viotest.selftests[dma]", "dma.huge"),
        ("viotest.selftests[dma]", "dma.?[copy"),
    ]
    counts = {name: suite.get(name) for name in ("tests", "failures", "skipped")}
    assert counts == {"tests": "4", "failures": "2", "skipped": "1"}
    (failure,) = suite[3].iter("failure")
    assert (failure.get("message"), failure.text) == ("Expected 0", "# dma.c:98")
