# SPDX-License-Identifier: GPL-2.0-or-later
"""What a campaign against mutants came to, as a table, as JSON and as a picture."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

#: Raised when a field of the JSON changes its meaning or goes away.
SCHEMA = 1

_STYLES = {
    "killed": "green",
    "survived": "bold red",
    "explained": "yellow",
    "untested": "bold yellow",
}


@dataclass(frozen=True)
class Row:
    """One mutant."""

    kind: str
    name: str
    title: str
    #: ``killed``, ``survived``, ``explained`` or ``untested``.
    fate: str
    #: The commit that mended it, if it was in a released kernel.
    fixed_by: str
    #: Checks that are aimed at it.
    aimed: Sequence[str]
    #: Those of them that failed.
    caught: Sequence[str]
    #: Checks that failed, too.
    others: Sequence[str]
    #: The outcome of each check that was put.
    outcomes: Mapping[str, str]
    text: str
    seconds: float
    #: Its run, below the out folder.
    folder: str


@dataclass(frozen=True)
class Table:
    """All of it."""

    kernel: str
    release: str
    modes: Sequence[str]
    #: ``PASS``, ``FAIL``, ``UNTESTED``; empty if there was no clean run.
    clean: str
    #: The outcome of each check without a mutant.
    clean_outcomes: Mapping[str, str]
    rows: Sequence[Row]
    seconds: float

    def count(self, fate: str) -> int:
        """Return how many mutants had a fate."""
        return sum(row.fate == fate for row in self.rows)

    @property
    def verdict(self) -> str:
        """One line: the clean run, and how many of what."""
        parts = [f"{self.count(fate)} {fate}" for fate in _STYLES if self.count(fate)]
        clean = f"clean kernel {self.clean}; " if self.clean else ""
        return f"{clean}{', '.join(parts) or 'no mutant'}  in {self.seconds:.0f} s"

    def to_json(self) -> dict[str, object]:
        """Return a value for machines."""
        return {
            "schema": SCHEMA,
            "kernel": self.kernel,
            "release": self.release,
            "modes": list(self.modes),
            "clean": {"verdict": self.clean, "checks": dict(self.clean_outcomes)},
            "counts": {fate: self.count(fate) for fate in _STYLES},
            "seconds": round(self.seconds, 1),
            "mutants": [_row_json(row) for row in self.rows],
        }


def _row_json(row: Row) -> dict[str, object]:
    return {
        "kind": row.kind,
        "name": row.name,
        "title": row.title,
        "fixed_by": row.fixed_by,
        "fate": row.fate,
        "aimed": list(row.aimed),
        "caught": list(row.caught),
        "others": list(row.others),
        "checks": dict(row.outcomes),
        "text": row.text,
        "seconds": round(row.seconds, 1),
        "folder": row.folder,
    }


def write_table(table: Table, out: TextIO) -> None:
    """Write the table for a person.

    :param table: What to write.
    :param out: Where to; narrow or no terminal: nothing is cut off.
    """
    from rich.console import Console
    from rich.table import Table as RichTable

    width = None if out.isatty() else 160
    console = Console(file=out, width=width, highlight=False, soft_wrap=False)
    shown = RichTable(box=None, pad_edge=False, show_lines=False)
    for title in ("mutant", "", "caught by", "also failed"):
        shown.add_column(title, overflow="fold")
    shown.add_column("s", justify="right")
    for row in table.rows:
        caught = ", ".join(row.caught) or row.text
        others = _few(row.others)
        fate = f"[{_STYLES[row.fate]}]{row.fate}[/]"
        name = f"{row.kind} {row.name}"
        shown.add_row(name, fate, _plain(caught), _plain(others), f"{row.seconds:.0f}")
    console.print(shown)
    console.print(table.verdict, markup=False)


def _few(names: Sequence[str], most: int = 4) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _plain(text: str) -> str:
    from rich.markup import escape

    return escape(text)


def html(table: Table, checks: Sequence[str]) -> str:
    """Return the matrix of mutants and checks as a page that needs nothing else.

    :param checks: The columns, in order.
    """
    import jinja2

    source = resources.files("viotest.templates") / "mutants.html.j2"
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    template = environment.from_string(source.read_text(encoding="utf-8"))
    seen = {name for row in table.rows for name in row.outcomes}
    columns = [name for name in checks if name in seen | set(table.clean_outcomes)]
    return template.render(table=table, checks=columns)
