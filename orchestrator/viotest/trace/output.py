# SPDX-License-Identifier: GPL-2.0-or-later
"""A trace, and what a replay of it came to, as text and as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from viotest.trace.form import header_json
from viotest.trace.model import Opaque, Request, item_words, outcome_words

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from viotest.conformance.target import Target
    from viotest.trace.model import Header, Item
    from viotest.trace.replay import Result

#: Differences that the text shows of each target; JSON has all that were kept.
MAX_SHOWN = 50


@dataclass(frozen=True)
class Report:
    """What a trace's replays came to."""

    trace: str
    #: The version of QEMU.
    qemu: str
    nr_requests: int
    results: Mapping[Target, Result]

    @property
    def differs(self) -> bool:
        """Whether anything went otherwise than it was recorded."""
        return any(result.nr_differences for result in self.results.values())


def show_trace(header: Header, items: Iterable[Item]) -> Iterator[str]:
    """Yield the lines of a trace for a person to read."""
    values = header_json(header)
    if header.comment:
        yield f"# comment: {json.dumps(header.comment)}"
    for key in ("iommu", "endpoints", "mutants", "lost"):
        yield f"# {key}: {json.dumps(values[key])}"
    number = 0
    for item in items:
        mark = "      "
        ended = ""
        if isinstance(item, Request | Opaque):
            number += 1
            mark = f"{number:6}"
        if isinstance(item, Request):
            ended = f"  {outcome_words(item.outcome, item.writable)}"
            mark += "+" if item.together else " "
        yield f"{item.ns / 1e9:12.6f} {mark:7} {item_words(item)}{ended}"


def text(report: Report) -> str:
    """Return a report for a person."""
    what = counted(report.nr_requests, "request")
    lines = [f"{report.trace}: {what}; QEMU {report.qemu}"]
    for target, result in report.results.items():
        lines.append("")
        lines += _target_lines(str(target), result)
    return "\n".join(lines) + "\n"


def _target_lines(name: str, result: Result) -> Iterator[str]:
    yield f"{name}: {_summary(result)}"
    for note in result.notes:
        yield f"  note: {note}"
    shown = result.differences[:MAX_SHOWN]
    for difference in shown:
        yield f"  {difference.number:6}  {difference.what}"
        yield f"          - {difference.recorded}"
        yield f"          + {difference.replayed}"
    more = result.nr_differences - len(shown)
    if more:
        yield f"  and {more} more; --json has {len(result.differences)} in all"


def _summary(result: Result) -> str:
    nr = result.nr_differences
    words = "no difference" if not nr else counted(nr, "difference")
    words += f"; {counted(result.nr_replayed, 'request')} replayed"
    if result.nr_skipped:
        words += f", {result.nr_skipped} not, for lack of a reset"
    if result.nr_opaque:
        words += f", {result.nr_opaque} not in the trace"
    return f"{words}; {result.seconds:.2f} s, {result.per_second:.0f} requests/s"


def counted(nr: int, noun: str) -> str:
    """Return ``1 request``, ``2 requests``."""
    return f"{nr} {noun}{'' if nr == 1 else 's'}"


def as_json(report: Report) -> str:
    """Return a report for a program."""
    targets = {
        str(target): asdict(result) | {"requests_per_second": round(result.per_second)}
        for target, result in report.results.items()
    }
    value = {
        "schema": 1,
        "trace": report.trace,
        "qemu": report.qemu,
        "requests": report.nr_requests,
        "targets": targets,
    }
    return json.dumps(value, indent=2) + "\n"
