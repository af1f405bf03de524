# SPDX-License-Identifier: GPL-2.0-or-later
"""What a benchmark comes to: :class:`Section`, its rows, and how they are shown.

Pure functions and values; nothing here measures.
"""

from __future__ import annotations

import enum
import json
import statistics
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from viotest.folding import fold, fold_cell

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any


@dataclass(frozen=True)
class Spread:
    """The middle and the ends of several samples."""

    median: float
    min: float
    max: float


class Bound(enum.StrEnum):
    """Which side of its limit an aim is on."""

    AT_MOST = "<="
    AT_LEAST = ">="


@dataclass(frozen=True)
class Aim:
    """What a row should come to."""

    bound: Bound
    limit: float
    #: The limit is one of our figure, not of the ratio.
    absolute: bool = False

    def met(self, value: float) -> bool:
        """Tell whether a value is on the right side."""
        if self.bound is Bound.AT_MOST:
            return value <= self.limit
        return value >= self.limit


@dataclass(frozen=True)
class Row:
    """One figure of ours beside what it is compared with."""

    what: str
    ours: float
    theirs: float | None = None
    #: Ours by theirs; each pair was measured in neighbouring turns.
    ratio: Spread | None = None
    aim: Aim | None = None

    @property
    def met(self) -> bool | None:
        """The aim is met; None without one."""
        if self.aim is None:
            return None
        if self.aim.absolute:
            return self.aim.met(self.ours)
        assert self.ratio is not None, self.what
        return self.aim.met(self.ratio.median)


@dataclass(frozen=True)
class Section:
    """The rows of one benchmark, and the command that shows them."""

    #: The letter of the section.
    key: str
    title: str
    #: Of ``ours`` and ``theirs``.
    unit: str
    #: What ``theirs`` is.
    theirs: str
    command: str
    rows: tuple[Row, ...]
    #: Where the time goes, and under what circumstances; a line each.
    notes: tuple[str, ...] = ()


def spread(values: Sequence[float]) -> Spread:
    """Return median, minimum and maximum."""
    return Spread(statistics.median(values), min(values), max(values))


def compare(
    what: str, ours: Sequence[float], theirs: Sequence[float], aim: Aim | None = None
) -> Row:
    """Return the row of two series whose samples were taken in turns.

    :param ours: A sample of ours for each round.
    :param theirs: As many of theirs.
    :param aim: Of the ratio.
    """
    ratio = spread([a / b for a, b in zip(ours, theirs, strict=True)])
    return Row(what, statistics.median(ours), statistics.median(theirs), ratio, aim)


def as_json(sections: Sequence[Section], host: Mapping[str, object]) -> str:
    """Return all of it as one JSON document.

    :param host: What was measured on, for whoever compares two documents.
    """
    document = {"host": dict(host), "sections": [_section(one) for one in sections]}
    return json.dumps(document, indent=2) + "\n"


def _section(section: Section) -> dict[str, Any]:
    value = asdict(section)
    for row, seen in zip(value["rows"], section.rows, strict=True):
        row["met"] = seen.met
    return value


def text(section: Section, width: int | None = None) -> str:
    """Return the section as a table.

    :param width: Columns of the terminal; None: it is none.
    """
    header = (section.unit, "ours", section.theirs, "ratio (min .. max)", "aim", "met")
    lines = [header, *(_cells(row) for row in section.rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    full = sum(widths) + 2 * len(widths)
    table = []
    for line in lines:
        first, *more = fold_cell(line[0].ljust(widths[0]), full - (width or full))
        cells = [cell.rjust(widths[i]) for i, cell in enumerate(line) if i]
        table.append("  " + "  ".join([first, *cells]).rstrip())
        table += [f"    {rest.rstrip()}" for rest in more]
    notes = [fold(f"  {note}", width, 4) for note in section.notes]
    head = fold(f"{section.key}. {section.title}", width, 3)
    return "\n".join([head, f"   $ {section.command}", *table, *notes]) + "\n"


def _cells(row: Row) -> tuple[str, ...]:
    ratio = ""
    if row.ratio is not None:
        ratio = f"{row.ratio.median:.2f}"
        if row.ratio.min != row.ratio.max:
            ratio += f" ({row.ratio.min:.2f} .. {row.ratio.max:.2f})"
    aim = "" if row.aim is None else f"{row.aim.bound} {number(row.aim.limit)}"
    met = {None: "", True: "yes", False: "no"}[row.met]
    theirs = "" if row.theirs is None else number(row.theirs)
    return (row.what, number(row.ours), theirs, ratio, aim, met)


def number(value: float) -> str:
    """Return a figure with as many digits as mean something."""
    if value >= 1e6:
        return f"{value / 1e6:.2f} M"
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
