# SPDX-License-Identifier: GPL-2.0-or-later
"""Lines no longer than a terminal is wide, and whole lines everywhere else."""

from __future__ import annotations

import os
import textwrap
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import TextIO

#: Columns that text is given at the least, however narrow the terminal.
_MIN_WIDTH = 20


def width_of(stream: TextIO | None) -> int | None:
    """Return the columns of a terminal; None if the stream is none, or does not know.

    :param stream: Where lines are written to. A pipe and a file take them whole.
    """
    if stream is None:
        return None
    try:
        return os.get_terminal_size(stream.fileno()).columns or None
    except (OSError, ValueError):
        return None


def fold(line: str, width: int | None, hang: int = 0) -> str:
    """Break a line at blanks; words stay whole, so that they can be copied.

    :param line: The line.
    :param width: The columns that there are; None: as many as it takes.
    :param hang: Blanks before each line but the first.
    """
    if width is None or len(line) <= width:
        return line
    return textwrap.fill(
        line,
        max(width, hang + _MIN_WIDTH),
        subsequent_indent=" " * hang,
        break_long_words=False,
        break_on_hyphens=False,
    )


def fold_cell(text: str, too_long: int) -> list[str]:
    """Break the text of a table's cell, so that the table fits its terminal.

    :param text: The cell, padded to the width of its column.
    :param too_long: By how many columns the table is wider; none if not positive.
    :return: Lines of one length, at least one.
    """
    if too_long <= 0:
        return [text]
    width = max(len(text) - too_long, _MIN_WIDTH)
    lines = textwrap.wrap(text, width, break_on_hyphens=False) or [""]
    return [f"{line:{width}}" for line in lines]
