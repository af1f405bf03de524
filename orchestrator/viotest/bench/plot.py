# SPDX-License-Identifier: GPL-2.0-or-later
"""A growth curve as SVG: one line for each series, both axes logarithmic."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

Point = tuple[float, float]

_WIDTH, _HEIGHT = 640, 360
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 90, 46, 50
#: Told apart by people who do not see red and green, too.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")
#: Between the labels at the ends of two lines.
_LABEL_STEP = 15

_STYLE = """\
  text { font: 12px sans-serif; fill: #333 }
  .title { font-size: 14px; font-weight: bold }
  .grid { stroke: #ddd; stroke-width: 1 }
  .line { fill: none; stroke-width: 2 }"""


class _Axes:
    # From values to places in the picture.

    def __init__(self, points: Sequence[Point]) -> None:
        self.x_decades = _decades(x for x, _ in points)
        self.y_decades = _decades(y for _, y in points)

    def x(self, value: float) -> float:
        return _LEFT + _share(value, self.x_decades) * (_WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        height = _HEIGHT - _TOP - _BOTTOM
        return _HEIGHT - _BOTTOM - _share(value, self.y_decades) * height


def _decades(values: Iterable[float]) -> range:
    logs = [math.log10(value) for value in values]
    first = math.floor(min(logs))
    return range(first, max(math.ceil(max(logs)), first + 1) + 1)


def _share(value: float, decades: range) -> float:
    return (math.log10(value) - decades[0]) / (decades[-1] - decades[0])


def growth_svg(
    title: str, x_label: str, y_label: str, series: Mapping[str, Sequence[Point]]
) -> str:
    """Draw one line for each series.

    :param series: Names to points, all of them positive; drawn in the order of x.
    :return: An SVG document.
    """
    axes = _Axes([point for points in series.values() for point in points])
    middle = (_TOP + _HEIGHT - _BOTTOM) / 2
    body = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{_HEIGHT}"'
        f' viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img">',
        f"<title>{escape(title)}</title>",
        f"<style>\n{_STYLE}\n</style>",
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#fff"/>',
        _text(_LEFT, 24, title, kind="title"),
        *_grid(axes),
        _text((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 10, x_label, anchor="middle"),
        _text(16, middle, y_label, anchor="middle", turn=-90),
        *_lines(axes, series),
        "</svg>",
    ]
    return "\n".join(body) + "\n"


def _grid(axes: _Axes) -> list[str]:
    parts = []
    for decade in axes.x_decades:
        x = axes.x(10**decade)
        parts.append(_rule(x, _TOP, x, _HEIGHT - _BOTTOM))
        label = _short(10**decade)
        parts.append(_text(x, _HEIGHT - _BOTTOM + 18, label, anchor="middle"))
    for decade in axes.y_decades:
        y = axes.y(10**decade)
        parts.append(_rule(_LEFT, y, _WIDTH - _RIGHT, y))
        parts.append(_text(_LEFT - 8, y + 4, _short(10**decade), anchor="end"))
    return parts


def _lines(axes: _Axes, series: Mapping[str, Sequence[Point]]) -> list[str]:
    parts, ends = [], []
    for i, (name, unsorted) in enumerate(series.items()):
        colour = _COLOURS[i % len(_COLOURS)]
        points = sorted(unsorted)
        places = " ".join(f"{axes.x(x):.1f},{axes.y(y):.1f}" for x, y in points)
        parts.append(f'<polyline class="line" stroke="{colour}" points="{places}"/>')
        for x, y in points:
            tip = f"<title>{escape(name)}: {_short(x)}: {y:.4g}</title>"
            where = f'cx="{axes.x(x):.1f}" cy="{axes.y(y):.1f}" r="3.5"'
            parts.append(f'<circle {where} fill="{colour}">{tip}</circle>')
        ends.append((axes.y(points[-1][1]), name, colour))
    # A label at its line's end, pushed down if that is another's place.
    lowest = float("-inf")
    for place, name, colour in sorted(ends):
        lowest = max(place + 4, lowest + _LABEL_STEP)
        parts.append(_text(_WIDTH - _RIGHT + 10, lowest, name, colour=colour))
    return parts


def _rule(x1: float, y1: float, x2: float, y2: float) -> str:
    ends = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
    return f'<line class="grid" {ends}/>'


def _text(
    x: float,
    y: float,
    words: str,
    *,
    anchor: str = "start",
    kind: str = "",
    turn: int = 0,
    colour: str = "",
) -> str:
    extra = f' class="{kind}"' if kind else ""
    extra += f' transform="rotate({turn} {x:.1f} {y:.1f})"' if turn else ""
    extra += f' style="fill:{colour}"' if colour else ""
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    return f"<text {place}{extra}>{escape(words)}</text>"


def _short(value: float) -> str:
    for limit, unit in ((1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{value / limit:g} {unit}"
    return f"{value:g}"
