# SPDX-License-Identifier: GPL-2.0-or-later
"""The verdict, as a table; and how it is shown."""

from __future__ import annotations

import dataclasses
import io

import pytest

from viotest.report import summary
from viotest.report.results import (
    Category,
    Cause,
    CheckResult,
    Outcome,
    RunResult,
    Subtest,
    Verdict,
    judge,
)
from viotest.report.summary import Terminal

PASS, FAIL, SKIP, ERROR = Outcome.PASS, Outcome.FAIL, Outcome.SKIP, Outcome.ERROR


def check(
    name: str, outcome: Outcome, *, required: bool = True, reason: str = "why"
) -> CheckResult:
    return CheckResult(
        id=f"{name}[type1]",
        name=name,
        outcome=outcome,
        required=required,
        mode="type1",
        seconds=0.5,
        reason="" if outcome is PASS else reason,
    )


PASSED = (check("bind", PASS), check("open", PASS))
INFRA = Cause(Category.INFRA, "QEMU was killed by SIGKILL", ("last line",))
BOOT = Cause(Category.BOOT_FAIL, "boot: not done within 5 s", ("last line",))
HANG = Cause(Category.TIMEOUT, "check: not done within 5 s", ("last line",))


@pytest.mark.parametrize(
    ("checks", "broken", "bad", "verdict", "category", "text"),
    [
        (PASSED, None, False, Verdict.PASS, None, ""),
        (
            (*PASSED, check("bar", SKIP, required=False)),
            None,
            False,
            Verdict.PASS,
            None,
            "",
        ),
        (
            (*PASSED, check("unmap", FAIL), check("flr", FAIL)),
            None,
            False,
            Verdict.FAIL,
            Category.FAIL,
            "unmap[type1]: why",
        ),
        # A check that is not required fails: it was asked, and the answer was no.
        (
            (*PASSED, check("bar", FAIL, required=False)),
            None,
            False,
            Verdict.FAIL,
            Category.FAIL,
            "bar[type1]: why",
        ),
        # A failure outweighs the breakdown after it, and a skip before it.
        (
            (check("bind", FAIL), check("open", SKIP)),
            INFRA,
            False,
            Verdict.FAIL,
            Category.FAIL,
            "bind[type1]: why",
        ),
        (
            (check("bind", FAIL, reason=HANG.text),),
            HANG,
            False,
            Verdict.FAIL,
            Category.TIMEOUT,
            f"bind[type1]: {HANG.text}",
        ),
        (PASSED, INFRA, False, Verdict.UNTESTED, Category.INFRA, INFRA.text),
        ((), BOOT, False, Verdict.UNTESTED, Category.BOOT_FAIL, BOOT.text),
        ((), BOOT, True, Verdict.FAIL, Category.BOOT_FAIL, BOOT.text),
        # Bad boots are the kernel's; a QEMU that does not start is not.
        ((), INFRA, True, Verdict.UNTESTED, Category.INFRA, INFRA.text),
        (
            (check("bind", PASS), check("open", ERROR)),
            None,
            False,
            Verdict.UNTESTED,
            Category.INFRA,
            "open[type1]: why",
        ),
        (
            (check("bind", PASS), check("open", SKIP)),
            None,
            False,
            Verdict.UNTESTED,
            Category.SKIP,
            "open[type1] was skipped: why",
        ),
        # Passing in one mode does not make up for the skip in another.
        (
            (*PASSED, check("open", SKIP)),
            None,
            False,
            Verdict.UNTESTED,
            Category.SKIP,
            "open[type1] was skipped: why",
        ),
        (
            (check("bind", PASS),),
            None,
            False,
            Verdict.UNTESTED,
            Category.SKIP,
            "open did not run",
        ),
    ],
)
def test_judgement(
    checks: tuple[CheckResult, ...],
    broken: Cause | None,
    bad: bool,
    verdict: Verdict,
    category: Category | None,
    text: str,
) -> None:
    seen, cause = judge(checks, ["bind", "open"], broken, broken_is_bad=bad)
    assert seen is verdict
    if category is None:
        assert cause is None
    else:
        assert cause is not None
        assert (cause.category, cause.text) == (category, text)
        if broken is not None:
            assert cause.console == ("last line",)


def test_any_mode_counts_when_all_were_asked_for() -> None:
    checks = [*PASSED, check("open", SKIP), check("open", SKIP)]
    assert judge(checks, ["open"], None, any_mode=True) == (Verdict.PASS, None)
    checks = [check("bind", PASS), check("open", SKIP), check("open", SKIP)]
    verdict, cause = judge(checks, ["open"], None, any_mode=True)
    assert verdict is Verdict.UNTESTED
    assert cause == Cause(Category.SKIP, "open[type1] was skipped: why")


def test_no_check_at_all_is_no_pass() -> None:
    verdict, cause = judge([], [], None)
    assert verdict is Verdict.UNTESTED
    assert cause == Cause(Category.SKIP, "no check ran")


def test_only_skips_are_no_pass() -> None:
    verdict, _ = judge([check("bar", SKIP, required=False)], [], None)
    assert verdict is Verdict.UNTESTED


def test_exit_codes() -> None:
    assert {v: v.exit_code for v in Verdict} == {"PASS": 0, "FAIL": 1, "UNTESTED": 125}


def make_result(*checks: CheckResult, cause: Cause | None = None) -> RunResult:
    verdict, judged = judge(checks, [], cause)
    return RunResult(
        verdict=verdict,
        cause=judged,
        scenario={"kernel": "debian:trixie"},
        qemu={"version": "11.1"},
        kernel={"release": "6.12"},
        accel={"chosen": "tcg", "reason": "asked for"},
        phases={"end": 1.23456789},
        checks=checks,
        device=None,
        seconds=1.25,
    )


def test_json_has_every_promised_field() -> None:
    value = make_result(*PASSED).to_json()
    assert value["verdict"] == "PASS"
    assert value["exit_code"] == 0
    assert value["phases"] == {"end": 1.2346}
    assert value.keys() >= {"schema", "scenario", "qemu", "kernel", "accel", "device"}
    checks = value["checks"]
    assert isinstance(checks, list)
    assert checks[0].keys() >= {"id", "outcome", "required", "mode", "seconds"}


def show(result: RunResult) -> list[str]:
    out = io.StringIO()
    terminal = Terminal(out)
    for one in result.checks:
        terminal.check(one)
    terminal.finish(result, "runs/1")
    return out.getvalue().splitlines()


def test_summary_of_a_pass_ends_with_counts() -> None:
    lines = show(make_result(*PASSED, check("bar", SKIP, required=False)))
    assert lines[-2:] == ["results  runs/1", "PASS  2 passed, 1 skipped  in 1.2 s"]


@pytest.mark.parametrize(("nr", "words"), [(1, "1 error "), (2, "2 errors ")])
def test_summary_counts_errors(nr: int, words: str) -> None:
    assert words in show(make_result(*[check("bind", ERROR)] * nr))[-1]


SUBTESTS = (
    Subtest("dma.map", Outcome.PASS),
    Subtest("dma.2mb", SKIP, "no huge pages"),
    Subtest("dma.1gb", SKIP, "no huge pages"),
    Subtest("dma.copy", FAIL, "Expected 0", "# dma.c:98"),
)


def test_summary_counts_subtests() -> None:
    one = dataclasses.replace(check("bar", FAIL, reason="bad"), subtests=SUBTESTS)
    line = show(make_result(one))[1]
    assert line.strip() == "1 passed, 1 failed, 2 skipped (no huge pages)"


def test_json_has_subtests_where_there_are_any() -> None:
    one = dataclasses.replace(check("bar", FAIL, reason="bad"), subtests=SUBTESTS)
    checks = make_result(one, *PASSED).to_json()["checks"]
    assert isinstance(checks, list)
    assert [test["name"] for test in checks[0]["subtests"]] == [
        test.name for test in SUBTESTS
    ]
    assert checks[0]["subtests"][3] == {
        "name": "dma.copy",
        "outcome": "fail",
        "reason": "Expected 0",
        "details": "# dma.c:98",
    }
    assert "subtests" not in checks[1]


def in_mode(mode: str, result: CheckResult) -> CheckResult:
    return dataclasses.replace(result, id=f"{result.name}[{mode}]", mode=mode)


def test_summary_tells_each_reason_of_a_skip_once() -> None:
    modes = ("type1", "cdev-ioas")
    absent = [
        in_mode(mode, check(name, SKIP, reason="no node", required=False))
        for mode in modes
        for name in ("open", "bar", "flr", "dma", "irq", "msi")
    ]
    last = check("rebind", SKIP, reason="another", required=False)
    # As from two workers.
    lines = show(make_result(absent[0], absent[6], *PASSED, last, *absent))
    assert [" ".join(line.split()) for line in lines[2:4]] == [
        "skip open, bar, flr, dma and 2 more in type1, cdev-ioas no node",
        "skip rebind in type1 another",
    ]
    assert "\n".join(lines).count("no node") == 1


def test_summary_of_a_skip_that_has_no_mode() -> None:
    skip = dataclasses.replace(check("group", SKIP), id="group", mode="")
    assert show(make_result(skip))[0].split() == ["skip", "group", "why"]


LONG = "needs dma engines behind two virtio-iommus: --endpoint dma-engine,iommu=1"
DETAILS = (
    "expected the unmap returns once nothing is in flight, and takes all of it away\n"
    "next     viotest run --config /a/folder/of/some/depth/scenario.json --check unmap"
)


def test_summary_fits_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    failed = dataclasses.replace(check("unmap", FAIL, reason=LONG), details=DETAILS)
    skips = [check(name, SKIP, reason=LONG) for name in ("a" * 30, "b" * 30)]
    result = make_result(failed, *skips, *PASSED)
    whole = show(result)
    monkeypatch.setattr(summary, "width_of", lambda _: 80)
    lines = show(result)
    assert " ".join(" ".join(lines).split()) == " ".join(" ".join(whole).split())
    # But for what is to be copied.
    assert [line.split()[0] for line in lines if len(line) > 80] == ["next"]
    assert lines[0] == f"  fail   {'unmap[type1]':34}   0.50 s"
    assert lines[1:3] == [
        "           needs dma engines behind two virtio-iommus: --endpoint",
        "           dma-engine,iommu=1",
    ]
    assert lines[4].startswith(" " * 20)


def test_summary_of_a_failure_quotes_cause_and_console() -> None:
    lines = show(make_result(check("bind", FAIL, reason=HANG.text), cause=HANG))
    assert f"cause    timeout: bind[type1]: {HANG.text}" in lines
    assert "         | last line" in lines
    assert "again    viotest run --config runs/1/scenario.json" in lines
    assert lines[-1] == "FAIL  0 passed, 1 failed  in 1.2 s"
