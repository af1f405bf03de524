# SPDX-License-Identifier: GPL-2.0-or-later
"""The core's benchmarks: found, run, parsed and drawn; no figure is asserted."""

from __future__ import annotations

import itertools
import json
import re
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import pytest

from viotest.bench.core import (
    core_sections,
    find_source,
    growth_plot,
    parse_figures,
    run_programs,
)
from viotest.bench.plot import growth_svg
from viotest.cli.main import main
from viotest.errors import UntestableError

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

_SVG = "{http://www.w3.org/2000/svg}"


def good() -> list[dict[str, Any]]:
    figures: list[dict[str, Any]] = [
        {
            "bench": "requests",
            "request": request,
            "mappings": size,
            "ns_per_request": 200 + size / 500,
            "requests_per_second": 1e9 / (200 + size / 500),
        }
        for request in ("map", "unmap", "attach")
        for size in (1, 1000, 1000000)
    ]
    figures += [
        {
            "bench": "dma",
            "mapping_bytes": size,
            "gib_per_second": 8.0,
            "memcpy_gib_per_second": 10.0,
        }
        for size in (4096, 65536, 2 << 20)
    ]
    unmap = {"bench": "unmap-during-dma", "unmaps": 9}
    unmap |= {"p50_ns": 200, "p99_ns": 900, "max_ns": 2000000}
    return [*figures, {"bench": "memory", "bytes_per_mapping": 48.0}, unmap]


def lines(figures: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(figure) + "\n" for figure in figures)


def source_tree(root: Path, recipe: str) -> Path:
    """A source tree whose `make bench` is the shell command ``recipe``."""
    core = root / "device" / "core"
    (core / "bench").mkdir(parents=True)
    (core / "Makefile").write_text(f".PHONY: bench\nbench:\n\t@{recipe}\n")
    return core


def test_figures_become_rows() -> None:
    requests, dma, unmap = core_sections(good())
    assert [section.key for section in (requests, dma, unmap)] == ["b", "c", "d"]
    assert len(requests.rows) == 9
    # 5 M/s at 200 ns, and less with a million mappings.
    assert [row.met for row in requests.rows[:3]] == [False, False, False]
    assert [row.met for row in dma.rows] == [None, None, True]
    assert [row.met for row in unmap.rows] == [True, True, False]
    growth = requests.rows[2].ratio
    assert growth is not None
    assert growth.median == pytest.approx(200.002 / 2200)


@pytest.mark.parametrize("left_out", range(14))
def test_missing_figure_is_no_result(left_out: int) -> None:
    figures = good()
    del figures[left_out]
    with pytest.raises(UntestableError, match="no benchmark of the core printed"):
        core_sections(figures)


@pytest.mark.parametrize("value", [0, -1, None, "fast", True])
def test_figure_that_is_none_is_no_result(value: object) -> None:
    figures = good()
    figures[0]["requests_per_second"] = value
    with pytest.raises(UntestableError, match="requests_per_second is"):
        core_sections(figures)


@pytest.mark.parametrize("line", ["Segmentation fault", "[1]", "{}", '{"bench": 1}'])
def test_line_that_is_no_figure_is_refused(line: str) -> None:
    with pytest.raises(UntestableError, match="a benchmark of the core printed"):
        parse_figures(f'{{"bench": "dma"}}\n{line}\n')


def test_programs_are_made_and_run(tmp_path: Path) -> None:
    core = source_tree(tmp_path, "cat figures")
    (core / "figures").write_text(lines(good()))
    assert run_programs(find_source(tmp_path)) == good()


def test_program_that_fails_is_no_result(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source_tree(tmp_path, "echo no such queue >&2; exit 3")
    assert main(["bench", "core", "--source", str(tmp_path)]) == 125
    out, err = capsys.readouterr()
    assert out == ""
    assert re.search(r"make -s -C \S+ bench ended with 2", err)


def test_wheel_has_no_benchmarks_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", "core", "--source", str(tmp_path)]) == 125
    assert "run `make bench` in a checkout" in capsys.readouterr().err


def test_core_command_writes_table_json_and_plot(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    core = source_tree(tmp_path, "cat figures")
    (core / "figures").write_text(lines(good()))
    plot, document = tmp_path / "p.svg", tmp_path / "b.json"
    argv = ["bench", "core", "--source", str(tmp_path)]
    assert main([*argv, "--plot", str(plot), "--json", str(document)]) == 0
    assert "MAP, 1 M mappings" in capsys.readouterr().out
    assert len(json.loads(document.read_text())["sections"]) == 3
    assert ET.parse(plot).getroot().tag == f"{_SVG}svg"


def test_plot_has_a_line_for_each_request_and_a_point_for_each_size() -> None:
    root = ET.fromstring(growth_plot(good()))
    curves = root.findall(f"{_SVG}polyline")
    assert len(curves) == 3
    assert len(root.findall(f"{_SVG}circle")) == 9
    labels = {text.text for text in root.findall(f"{_SVG}text")}
    assert {"MAP", "UNMAP", "ATTACH", "1 M", "mappings in the domain"} <= labels


def test_plot_is_to_scale() -> None:
    points = [(100.0, 10.0), (1.0, 1.0), (10.0, 10.0**0.5)]
    root = ET.fromstring(growth_svg("<t>", "x", "y", {"a & b": points}))
    curve = root.find(f"{_SVG}polyline")
    assert curve is not None
    places = [pair.split(",") for pair in curve.attrib["points"].split()]
    (x0, y0), (x1, y1), (x2, y2) = [(float(x), float(y)) for x, y in places]
    # In the order of x, a decade as wide as the other, and larger is higher up.
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.2)
    assert y0 - y1 == pytest.approx(y1 - y2, abs=0.2)
    assert y0 > y2
    assert x0 < x2


def test_labels_of_lines_that_end_together_do_not_overlap() -> None:
    same = [(1.0, 1.0), (10.0, 5.0)]
    root = ET.fromstring(growth_svg("t", "x", "y", {"a": same, "b": same, "c": same}))
    wanted = [t for t in root.findall(f"{_SVG}text") if t.text in ("a", "b", "c")]
    places = sorted(float(text.attrib["y"]) for text in wanted)
    assert all(b - a >= 15 for a, b in itertools.pairwise(places))
