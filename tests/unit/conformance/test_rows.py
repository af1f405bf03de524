# SPDX-License-Identifier: GPL-2.0-or-later
"""Every row passes on a model of the specification, and can fail."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.unit.conformance.defects import DEFECTS
from tests.unit.conformance.model import Model, ModelLab
from viotest.conformance.errors import NotApplicableError
from viotest.conformance.row import Row, Strength
from viotest.conformance.rows import ROWS
from viotest.conformance.score import Outcome, Result, judge

if TYPE_CHECKING:
    from viotest.conformance.lab import Shape

#: The rows of the project's checklist of virtio-iommu requirements; R4 is M8.
_CHECKLIST = re.findall(
    r"\w+",
    "F1 F2 F3 C1 C2 C3 C4a C4b C5 C6 C7 O1 O2 O3a O3b O4 O5 O6 O7 O8"
    " A1 A2 A3 A4 A5 A6 A7 A8 D1 D2 D3 D4 D5 M1 M2 M3 M4 M5 M6a M6b M7 M8"
    " U1 U2 U3 U4 U5 U6 P1 P2 P3 P4 P5 P6 P7 P8 R1 R2 R3 R5 E1 E2 E3 E4 E5 E6 E7",
)

_BY_ID = {row.id: row for row in ROWS}


def run_row(row: Row, defect: str = "") -> Result:
    [result] = judge([row], ModelLab(defect))
    return result


def test_rows_are_those_of_the_checklist() -> None:
    assert [row.id for row in ROWS] == _CHECKLIST
    assert len(ROWS) == 67


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
def test_row_passes_on_model(row: Row) -> None:
    result = run_row(row)
    assert result.outcome is Outcome.PASS, f"{result.expected}; {result.seen}"


@pytest.mark.parametrize(("defect", "row_id"), DEFECTS)
def test_row_finds_defect(defect: str, row_id: str) -> None:
    result = run_row(_BY_ID[row_id], defect)
    assert result.outcome is Outcome.FAIL
    assert result.expected
    assert result.seen
    assert result.expected != result.seen


def test_every_row_has_a_defect() -> None:
    assert {row_id for _, row_id in DEFECTS} == set(_CHECKLIST)


class LimitedLab(ModelLab):
    """Has a device in some shapes only.

    :param shapes: Their names.
    """

    def __init__(self, *shapes: str, defect: str = "") -> None:
        super().__init__(defect)
        self._shapes = shapes

    def device(self, shape: Shape) -> Model:
        if shape.name not in self._shapes:
            raise NotApplicableError(f"it cannot be configured as {shape.name!r}")
        return super().device(shape)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
def test_row_that_has_seen_no_device_does_not_pass(row: Row) -> None:
    [result] = judge([row], LimitedLab())
    assert result.outcome is Outcome.NA
    assert result.remark


def test_row_remarks_the_shapes_that_it_has_not_seen() -> None:
    [result] = judge([_BY_ID["F3"]], LimitedLab("full", "bare"))
    assert (result.outcome, result.remark) == (Outcome.PASS, "not seen as old-bypass")
    [result] = judge([_BY_ID["F3"]], LimitedLab("full", defect="offers-both"))
    assert result.outcome is Outcome.FAIL


def test_lost_target_fails_the_row_and_is_given_up() -> None:
    lab = ModelLab("lost")
    results = list(judge(ROWS[:2], lab))
    assert [result.outcome for result in results] == [Outcome.FAIL] * 2
    assert "QEMU was killed by SIGSEGV" in results[0].seen
    assert lab.discarded == 2


def test_lost_target_breaks_whatever_the_row_asks() -> None:
    row = next(row for row in ROWS if not row.strength.binding)
    assert run_row(row, "lost").breaks


def test_only_must_and_should_are_binding() -> None:
    binding = {strength for strength in Strength if strength.binding}
    assert binding == {Strength.MUST, Strength.SHOULD}
