# SPDX-License-Identifier: GPL-2.0-or-later
"""A report in each of its forms, and what it says about conformance."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import pytest

from viotest.conformance import output
from viotest.conformance.row import Row, Strength
from viotest.conformance.score import Outcome, Result
from viotest.conformance.session import Report, select_rows
from viotest.conformance.target import Target
from viotest.errors import UsageError

if TYPE_CHECKING:
    from viotest.conformance.lab import Lab


def _check(lab: Lab) -> str | None:
    return None


_MUST = Row("A1", Strength.MUST, "ATTACH", "reserved # bytes", _check)
_MAY = Row("E4", Strength.MAY, "Faults", "may leave out", _check)
_NA = Row("P3", Strength.SHOULD, "PROBE", "not offered", _check)


def make_report(ours: Outcome, theirs: Outcome = Outcome.FAIL) -> Report:
    def results(must: Outcome) -> tuple[Result, ...]:
        return (
            Result(_MUST, must, "status INVAL" * 20, "status <OK>"),
            Result(_MAY, Outcome.FAIL, "this", "that"),
            Result(_NA, Outcome.NA, remark="always offered"),
        )

    found = {Target.VIOTEST: results(ours), Target.QEMU: results(theirs)}
    return Report("11.1.3", (_MUST, _MAY, _NA), found)


def test_ours_is_judged_of_both() -> None:
    assert make_report(Outcome.PASS).conforms
    assert not make_report(Outcome.FAIL, Outcome.PASS).conforms


def test_qemu_alone_is_judged() -> None:
    both = make_report(Outcome.PASS)
    report = Report("11.1.3", both.rows, {Target.QEMU: both.results[Target.QEMU]})
    assert report.judged is Target.QEMU
    assert not report.conforms


def test_text_has_columns_and_failures() -> None:
    text = output.text(make_report(Outcome.PASS))
    lines = text.splitlines()
    assert lines[0].split() == ["row", "strength", "requirement", "viotest", "qemu"]
    assert lines[1].split()[-2:] == ["pass", "FAIL"]
    # What no key word asks for is not in capitals.
    assert lines[2].split()[-2:] == ["fail", "fail"]
    assert lines[3].split()[-2:] == ["n/a", "n/a"]
    assert "qemu: A1 (MUST) FAIL: reserved # bytes" in lines
    assert "  seen:     status <OK>" in lines
    assert "viotest: P3 (SHOULD) n/a: always offered" in lines
    assert max(map(len, lines)) <= 100


def test_text_fits_a_terminal() -> None:
    report = make_report(Outcome.FAIL)
    row = dataclasses.replace(_MUST, title="what is mapped stays so " * 4)
    report = dataclasses.replace(report, rows=(row, *report.rows[1:]))
    assert max(map(len, output.text(report).splitlines())) > 100
    lines = output.text(report, 80).splitlines()
    assert max(map(len, lines)) <= 80
    # The cells are beside the first line of the title.
    assert lines[1].split()[-2:] == ["FAIL", "FAIL"]
    assert lines[2] == " " * 14 + "is mapped stays so what is mapped stays so"


def test_json_has_everything() -> None:
    value = json.loads(output.as_json(make_report(Outcome.FAIL)))
    assert (value["judged"], value["conforms"]) == ("viotest", False)
    first = value["rows"][0]
    assert (first["id"], first["strength"], first["clause"]) == ("A1", "MUST", "ATTACH")
    assert first["results"]["qemu"]["outcome"] == "fail"
    assert first["results"]["qemu"]["seen"] == "status <OK>"
    assert value["rows"][2]["results"]["viotest"]["remark"] == "always offered"


def test_tap_fails_only_by_what_is_judged_and_binding() -> None:
    lines = output.as_tap(make_report(Outcome.FAIL)).splitlines()
    assert lines[:2] == ["TAP version 13", "1..6"]
    points = [line for line in lines if line.startswith(("ok", "not ok"))]
    assert points[0] == "not ok 1 - viotest A1 MUST reserved \\# bytes"
    assert points[1].endswith("# TODO MAY only")
    assert points[2].endswith("# SKIP always offered")
    assert points[3].endswith("# TODO for comparison")
    assert lines.count("  ---") == lines.count("  ...") == 4


def test_junit_fails_only_by_what_is_judged_and_binding() -> None:
    root = ElementTree.fromstring(output.as_junit(make_report(Outcome.FAIL)))
    counts = [
        (suite.get("name"), suite.get("failures"), suite.get("skipped"))
        for suite in root
    ]
    assert counts == [("viotest", "1", "2"), ("qemu", "0", "3")]
    [failure] = root.iter("failure")
    assert "status <OK>" in str(failure.get("message"))


def test_select_rows() -> None:
    assert [row.id for row in select_rows(["A?", "M6*"])][-2:] == ["M6a", "M6b"]
    assert len(select_rows([])) == 67


def test_select_rows_pattern_without_match() -> None:
    with pytest.raises(UsageError, match="Z9"):
        select_rows(["A1", "Z9"])
