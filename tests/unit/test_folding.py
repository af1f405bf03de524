# SPDX-License-Identifier: GPL-2.0-or-later
"""Lines are broken where a terminal ends, and nowhere else."""

from __future__ import annotations

import io
import os
import termios
from typing import TYPE_CHECKING

from viotest.folding import fold, fold_cell, width_of

if TYPE_CHECKING:
    from pathlib import Path

LINE = "viotest: --endpoint nvme@hotplug: only a dma-engine can be unplugged"


def test_width_is_that_of_the_terminal() -> None:
    master, slave = os.openpty()
    with os.fdopen(master), os.fdopen(slave, "w") as stream:
        termios.tcsetwinsize(slave, (24, 80))
        assert width_of(stream) == 80
        termios.tcsetwinsize(slave, (50, 132))
        assert width_of(stream) == 132
        # A serial line, say: nobody has told it.
        termios.tcsetwinsize(slave, (0, 0))
        assert width_of(stream) is None


def test_pipes_and_files_have_no_width(tmp_path: Path) -> None:
    assert width_of(None) is None
    assert width_of(io.StringIO()) is None
    with (tmp_path / "file").open("w") as stream:
        assert width_of(stream) is None
    assert width_of(stream) is None  # closed


def test_line_is_broken_between_words() -> None:
    assert fold(LINE, 40, 9).splitlines() == [
        "viotest: --endpoint nvme@hotplug: only a",
        "         dma-engine can be unplugged",
    ]


def test_line_that_fits_is_left_alone() -> None:
    assert fold(LINE, len(LINE), 9) == LINE
    assert fold(LINE, None, 9) == LINE


def test_words_stay_whole() -> None:
    path = "/a/path/" + "x" * 90
    assert fold(f"results  {path} is full", 80, 2).splitlines() == [
        "results",
        f"  {path}",
        "  is full",
    ]


def test_narrow_terminal_still_gets_words() -> None:
    lines = fold(LINE, 10, 30).splitlines()
    assert max(map(len, lines)) <= 50
    assert " ".join(" ".join(lines).split()) == LINE


def test_cell_is_broken_to_lines_of_one_length() -> None:
    assert fold_cell("unmap while in use  ", 0) == ["unmap while in use  "]
    cell = "domains and mappings are gone with the device    "
    assert fold_cell(cell, 19) == [
        "domains and mappings are gone ",
        "with the device               ",
    ]
