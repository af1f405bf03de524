# SPDX-License-Identifier: GPL-2.0-or-later
"""The figures of a benchmark: statistics, aims, table and JSON."""

from __future__ import annotations

import dataclasses
import json

import pytest

from viotest.bench.table import (
    Aim,
    Bound,
    Row,
    Section,
    Spread,
    as_json,
    compare,
    number,
    spread,
    text,
)

_AT_MOST_1 = Aim(Bound.AT_MOST, 1.0)
_AT_LEAST_5M = Aim(Bound.AT_LEAST, 5e6, absolute=True)


def section(*rows: Row) -> Section:
    return Section(
        "a", "maps", "ns", "QEMU's", "viotest bench guest", rows, ("a note",)
    )


def test_spread_is_of_the_middle() -> None:
    assert spread([9.0, 1.0, 2.0]) == Spread(2.0, 1.0, 9.0)
    assert spread([1.0, 2.0]) == Spread(1.5, 1.0, 2.0)


def test_ratio_is_that_of_pairs() -> None:
    # Both twice as slow in the second round: by pairs nothing has changed.
    row = compare("map", [10.0, 20.0, 30.0], [20.0, 40.0, 20.0])
    assert row.ratio == Spread(0.5, 0.5, 1.5)
    assert (row.ours, row.theirs, row.met) == (20.0, 20.0, None)


def test_series_of_different_lengths_cannot_be_paired() -> None:
    with pytest.raises(ValueError, match="zip"):
        compare("map", [1.0, 2.0], [1.0])


@pytest.mark.parametrize(
    ("aim", "ours", "theirs", "met"),
    [
        (_AT_MOST_1, 10.0, 10.0, True),
        (_AT_MOST_1, 10.1, 10.0, False),
        (Aim(Bound.AT_LEAST, 0.8), 8.0, 10.0, True),
        (Aim(Bound.AT_LEAST, 0.8), 7.9, 10.0, False),
        # The ratio does not matter for an absolute aim.
        (_AT_LEAST_5M, 5e6, 9e6, True),
        (_AT_LEAST_5M, 4.9e6, 1.0, False),
    ],
)
def test_aim_is_met(aim: Aim, ours: float, theirs: float, met: bool) -> None:
    assert compare("x", [ours], [theirs], aim).met is met


def test_table_says_whether_aims_are_met() -> None:
    rows = (
        compare("map", [10.0, 11.0, 9.0], [20.0, 20.0, 20.0], _AT_MOST_1),
        compare("unmap", [30.0], [20.0], _AT_MOST_1),
        Row("alone", 4e6, aim=_AT_LEAST_5M),
        Row("no aim", 1.0),
    )
    lines = [" ".join(line.split()) for line in text(section(*rows)).splitlines()]
    assert lines == [
        "a. maps",
        "$ viotest bench guest",
        "ns ours QEMU's ratio (min .. max) aim met",
        "map 10 20 0.50 (0.45 .. 0.55) <= 1 yes",
        "unmap 30 20 1.50 <= 1 no",
        "alone 4.00 M >= 5.00 M no",
        "no aim 1",
        "a note",
    ]


def test_table_fits_a_terminal() -> None:
    ours = [10.0, 11.0, 9.0]
    row = compare("a page, window 30 us, against QEMU", ours, ours, _AT_MOST_1)
    title = "maps of a guest's own making, beside those of QEMU's virtio-iommu"
    note = "the device itself takes 900 ns of each, and what is left is waiting"
    one = dataclasses.replace(section(row), title=title, notes=(note,))
    assert max(map(len, text(one).splitlines())) > 80
    assert text(one, 68).splitlines() == [
        "a. maps of a guest's own making, beside those of QEMU's virtio-iommu",
        "   $ viotest bench guest",
        "  ns                     ours  QEMU's  ratio (min .. max)   aim  met",
        "  a page, window 30 us,    10      10                1.00  <= 1  yes",
        "    against QEMU",
        "  the device itself takes 900 ns of each, and what is left is",
        "    waiting",
    ]


def test_json_holds_every_row_and_whether_it_is_met() -> None:
    rows = (compare("map", [30.0], [20.0], _AT_MOST_1), Row("alone", 1.0))
    value = json.loads(as_json([section(*rows)], {"processors": 2}))
    assert value["host"] == {"processors": 2}
    (only,) = value["sections"]
    assert only["command"] == "viotest bench guest"
    assert [row["met"] for row in only["rows"]] == [False, None]
    assert only["rows"][0]["ratio"] == {"median": 1.5, "min": 1.5, "max": 1.5}
    assert only["rows"][0]["aim"] == {"bound": "<=", "limit": 1.0, "absolute": False}


@pytest.mark.parametrize(
    ("value", "shown"),
    [(4268089, "4.27 M"), (21496, "21496"), (99.96, "100"), (8.077, "8.08")],
)
def test_numbers_have_the_digits_that_matter(value: float, shown: str) -> None:
    assert number(value) == shown
