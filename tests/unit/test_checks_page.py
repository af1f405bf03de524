# SPDX-License-Identifier: GPL-2.0-or-later
"""docs/checks.md is about the checks that there are."""

from __future__ import annotations

import re
from pathlib import Path

from viotest.suite.catalog import CHECKS, NAMES

PAGE = Path(__file__).parents[2] / "docs" / "checks.md"


def test_page_has_every_check_with_its_marks() -> None:
    # The first cell of each row of a table: names, and a mark for some or all of them.
    cells = re.findall(r"^\| ([a-z][^|]*) \|", PAGE.read_text(), re.MULTILINE)
    marks: dict[str, str] = {}
    for cell in cells:
        names, mark = re.fullmatch(r"(.*?)( \\\*| [†‡])?", cell).groups()  # type: ignore[union-attr]
        marks |= dict.fromkeys(names.split(", "), (mark or "").strip())
    assert sorted(marks) == sorted(NAMES)
    thorough = {name for name, mark in marks.items() if mark == "‡"}
    assert thorough == {check.name for check in CHECKS if check.thorough}
    required = {name for name, mark in marks.items() if mark == r"\*"}
    assert required == {check.name for check in CHECKS if check.required}
    slow = {name for name, mark in marks.items() if mark == "†"}
    assert slow == {check.name for check in CHECKS if check.slow}
