# SPDX-License-Identifier: GPL-2.0-or-later
"""A run as JUnit XML, for CI systems: the same that results.json says."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from viotest.report.results import Outcome, Verdict

if TYPE_CHECKING:
    from viotest.report.results import CheckResult, RunResult

_ELEMENTS = {Outcome.FAIL: "failure", Outcome.ERROR: "error", Outcome.SKIP: "skipped"}
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
    failures, errors = result.count(Outcome.FAIL), result.count(Outcome.ERROR)
    if result.verdict is not Verdict.PASS and not failures + errors:
        case = ElementTree.SubElement(suite, "testcase", classname="viotest")
        case.set("name", "verdict")
        cause = result.cause
        text = f"{cause.category}: {cause.text}" if cause else str(result.verdict)
        bad = ElementTree.SubElement(case, "error", message=_clean(text))
        bad.text = _clean("\n".join(cause.console)) if cause else ""
        errors += 1
    suite.set("tests", str(len(suite)))
    suite.set("failures", str(failures))
    suite.set("errors", str(errors))
    suite.set("skipped", str(result.count(Outcome.SKIP)))
    suite.set("time", f"{result.seconds:.3f}")
    root = ElementTree.Element("testsuites")
    root.append(suite)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _add_case(suite: ElementTree.Element, check: CheckResult) -> None:
    case = ElementTree.SubElement(suite, "testcase", classname="viotest")
    case.set("name", check.id)
    case.set("time", f"{check.seconds:.3f}")
    element = _ELEMENTS.get(check.outcome)
    if element is not None:
        bad = ElementTree.SubElement(case, element, message=_clean(check.reason))
        bad.text = _clean(check.details)


def _clean(text: str) -> str:
    return _UNPRINTABLE.sub("?", text)
