# SPDX-License-Identifier: GPL-2.0-or-later
"""A report for people and for programs: text, JSON, TAP 13, JUnit. Pure."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from viotest.conformance.score import Outcome
from viotest.folding import fold, fold_cell

if TYPE_CHECKING:
    from collections.abc import Iterator

    from viotest.conformance.score import Result
    from viotest.conformance.session import Report
    from viotest.conformance.target import Target

SPECIFICATION = "virtio 1.2, 5.13 IOMMU Device"
#: Goes up when a reader of the JSON would have to change.
FORMAT = 1

_WIDTH = 96


def text(report: Report, width: int | None = None) -> str:
    """Return the columns side by side, then every failure in full.

    :param width: Columns of the terminal; None: it is none.
    """
    targets = list(report.results)
    lines = _table(report, targets, width)
    for target in targets:
        lines += _details(report, target, min(width or _WIDTH, _WIDTH))
    lines += [""]
    lines += [fold(_summary(report, target), width, 26) for target in targets]
    return "\n".join(lines) + "\n"


def _table(report: Report, targets: list[Target], width: int | None) -> list[str]:
    title = max(len(row.title) for row in report.rows)
    rows = [("row", "strength", "requirement", [str(target) for target in targets])]
    for number, row in enumerate(report.rows):
        cells = [_word(report.results[target][number]) for target in targets]
        rows.append((row.id, str(row.strength), row.title, cells))
    # The last column is not padded.
    full = 15 + title + 9 * (len(targets) - 1) + len(targets[-1])
    lines = []
    for row_id, strength, what, cells in rows:
        first, *more = fold_cell(f"{what:{title}}", full - (width or full))
        words = [f"{row_id:4} {strength:8} {first}", *(f"{cell:8}" for cell in cells)]
        lines += [" ".join(words), *(" " * 14 + rest for rest in more)]
    return [line.rstrip() for line in lines]


def _word(result: Result) -> str:
    # In capitals what the specification asks for.
    return "FAIL" if result.breaks else result.outcome.value


def _details(report: Report, target: Target, width: int) -> Iterator[str]:
    for result in report.results[target]:
        row = result.row
        if result.outcome is Outcome.FAIL:
            yield ""
            head = f"{target}: {row.id} ({row.strength}) {_word(result)}: {row.title}"
            yield fold(head, width, 2)
            yield f"  {row.clause}"
            yield fold(f"  expected: {result.expected}", width, 12)
            yield fold(f"  seen:     {result.seen}", width, 12)
        elif result.outcome is Outcome.NA:
            yield ""
            head = f"{target}: {row.id} ({row.strength}) n/a: {result.remark}"
            yield fold(head, width, 2)


def _summary(report: Report, target: Target) -> str:
    counts = report.counts(target)
    breaks = sum(result.breaks for result in report.results[target])
    words = [f"{counts[outcome]} {outcome}" for outcome in Outcome]
    role = "judged" if target is report.judged else "for comparison"
    what = f"{', '.join(words)}; {breaks} of MUST and SHOULD failed"
    name = f"{target} ({role})"
    return f"{name:25} {what}"


def as_json(report: Report) -> str:
    """Return everything that is known."""
    rows = [
        {
            "id": row.id,
            "strength": row.strength.value,
            "clause": row.clause,
            "title": row.title,
            "results": {
                target.value: _result_json(results[number])
                for target, results in report.results.items()
            },
        }
        for number, row in enumerate(report.rows)
    ]
    value = {
        "format": FORMAT,
        "specification": SPECIFICATION,
        "qemu": report.qemu,
        "judged": report.judged.value,
        "conforms": report.conforms,
        "rows": rows,
    }
    return json.dumps(value, indent=2) + "\n"


def _result_json(result: Result) -> dict[str, object]:
    value: dict[str, object] = {"outcome": result.outcome.value}
    for key in ("expected", "seen", "remark"):
        if content := getattr(result, key):
            value[key] = content
    value["seconds"] = round(result.seconds, 3)
    return value


def as_tap(report: Report) -> str:
    """Return TAP 13; what does not decide the exit code is marked TODO."""
    lines = ["TAP version 13", f"1..{len(report.rows) * len(report.results)}"]
    number = 0
    for target, results in report.results.items():
        for result in results:
            number += 1
            lines += _tap_lines(report, target, result, number)
    return "\n".join(lines) + "\n"


def _tap_lines(
    report: Report, target: Target, result: Result, number: int
) -> Iterator[str]:
    row = result.row
    # "#" begins a directive.
    title = f"{target} {row.id} {row.strength} {row.title}".replace("#", "\\#")
    if result.outcome is not Outcome.FAIL:
        skip = f" # SKIP {result.remark}" if result.outcome is Outcome.NA else ""
        yield f"ok {number} - {title}{skip}"
        return
    todo = ""
    if target is not report.judged:
        todo = " # TODO for comparison"
    elif not result.breaks:
        todo = f" # TODO {row.strength} only"
    yield f"not ok {number} - {title}{todo}"
    yield "  ---"
    for key in ("expected", "seen"):
        # JSON strings are YAML too.
        yield f"  {key}: {json.dumps(getattr(result, key))}"
    yield "  ..."


def as_junit(report: Report) -> str:
    """Return JUnit XML, one suite per target; as :func:`as_tap`."""
    root = ElementTree.Element("testsuites", name="viotest conformance")
    for target, results in report.results.items():
        suite = ElementTree.SubElement(
            root, "testsuite", name=target.value, tests=str(len(results))
        )
        outcomes = [_junit_case(report, target, result, suite) for result in results]
        suite.set("failures", str(outcomes.count("failure")))
        suite.set("skipped", str(outcomes.count("skipped")))
        suite.set("errors", "0")
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _junit_case(
    report: Report, target: Target, result: Result, suite: ElementTree.Element
) -> str:
    row = result.row
    case = ElementTree.SubElement(
        suite,
        "testcase",
        classname=f"conformance.{target}",
        name=f"{row.id} {row.strength} {row.title}",
        time=f"{result.seconds:.3f}",
    )
    what = f"expected {result.expected}; seen {result.seen}"
    match result.outcome:
        case Outcome.PASS:
            return "pass"
        case Outcome.NA:
            ElementTree.SubElement(case, "skipped", message=result.remark)
            return "skipped"
    if result.breaks and target is report.judged:
        ElementTree.SubElement(case, "failure", message=what)
        return "failure"
    ElementTree.SubElement(case, "skipped", message=f"fails, for information: {what}")
    return "skipped"
