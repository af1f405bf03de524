# SPDX-License-Identifier: GPL-2.0-or-later
"""A run as JUnit XML, for CI systems: the same that results.json says."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from viotest.report.results import Outcome, Verdict

if TYPE_CHECKING:
    from viotest.report.results import CheckResult, RunResult, Subtest

_ELEMENTS = {Outcome.FAIL: "failure", Outcome.ERROR: "error", Outcome.SKIP: "skipped"}
_COUNTS = {"failures": "failure", "errors": "error", "skipped": "skipped"}
# What XML 1.0 cannot hold, not even escaped.
_UNPRINTABLE = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit_xml(result: RunResult) -> str:
    """Return a run as a JUnit document.

    A run that is not PASS though no check failed has one more case, ``verdict``, that
    holds the cause: so that a guest that did not boot is never green.
    """
    suite = ElementTree.Element("testsuite", name="viotest")
    for check in result.checks:
        _add_case(suite, check)
    bad = {Outcome.FAIL, Outcome.ERROR}
    if result.verdict is not Verdict.PASS and not any(
        check.outcome in bad for check in result.checks
    ):
        case = ElementTree.SubElement(suite, "testcase", classname="viotest")
        case.set("name", "verdict")
        cause = result.cause
        text = f"{cause.category}: {cause.text}" if cause else str(result.verdict)
        why = ElementTree.SubElement(case, "error", message=_clean(text))
        why.text = _clean("\n".join(cause.console)) if cause else ""
    suite.set("tests", str(len(suite)))
    for attribute, element in _COUNTS.items():
        suite.set(attribute, str(sum(1 for _ in suite.iter(element))))
    suite.set("time", f"{result.seconds:.3f}")
    root = ElementTree.Element("testsuites")
    root.append(suite)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _add_case(suite: ElementTree.Element, check: CheckResult) -> None:
    case = ElementTree.SubElement(suite, "testcase", classname="viotest")
    case.set("name", check.id)
    case.set("time", f"{check.seconds:.3f}")
    _explain(case, check)
    for test in check.subtests:
        part = ElementTree.SubElement(suite, "testcase")
        part.set("classname", _clean(f"viotest.{check.id}"))
        part.set("name", _clean(test.name))
        _explain(part, test)


def _explain(case: ElementTree.Element, result: CheckResult | Subtest) -> None:
    element = _ELEMENTS.get(result.outcome)
    if element is not None:
        bad = ElementTree.SubElement(case, element, message=_clean(result.reason))
        bad.text = _clean(result.details)


def _clean(text: str) -> str:
    return _UNPRINTABLE.sub("?", text)
