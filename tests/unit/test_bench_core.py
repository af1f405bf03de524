# SPDX-License-Identifier: GPL-2.0-or-later
"""The core's benchmarks: found, run, parsed and drawn; no figure is asserted."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
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
from viotest.bench.image import write_image
from viotest.bench.plot import growth_svg
from viotest.cli.main import main
from viotest.conformance.lab import Region
from viotest.conformance.wire import RESV_MEM_MSI, Status, Type
from viotest.errors import UntestableError, UsageError
from viotest.trace.form import TraceFile, write_trace
from viotest.trace.model import (
    Endpoint,
    Fields,
    Header,
    Negotiation,
    Outcome,
    Request,
    Reset,
    Restart,
)

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

    from viotest.trace.model import Item

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


REPLAYED = [
    {
        "bench": "replay",
        "request": request,
        "count": count,
        "ns_per_request": 200.0,
        "requests_per_second": 5e6,
    }
    for request, count in (("all", 12), ("attach", 2), ("map", 10))
]


def test_replayed_ring_has_a_row_for_each_type() -> None:
    section = core_sections([*good(), *REPLAYED])[-1]
    assert section.key == "e"
    assert [row.what for row in section.rows] == ["all", "ATTACH", "MAP"]
    assert [row.met for row in section.rows] == [None, None, True]
    assert section.notes == ("answered as recorded: all 12, ATTACH 2, MAP 10",)


def test_replayed_ring_without_its_sum_is_no_result() -> None:
    with pytest.raises(UntestableError, match="no benchmark of the core printed"):
        core_sections([*good(), *REPLAYED[1:]])


def write_sample(path: Path, *, second_map: Status) -> Path:
    """A trace with every type, a reset, and requests that are refused or none."""
    regions = (Region(RESV_MEM_MSI, 0xFEE00000, 0xFEEFFFFF),)
    page = {"domain": 1, "start": 0x1000, "end": 0x1FFF}
    requests = [
        (Fields(Type.ATTACH, domain=1, endpoint=8), 4, Status.OK),
        (Fields(Type.PROBE, endpoint=8), 516, Status.OK),
        (Fields(Type.MAP, phys=0x1000, flags=3, **page), 4, Status.OK),
        (Fields(Type.MAP, phys=0x1000, flags=3, **page), 4, second_map),
        (Fields(Type.UNMAP, **page), 4, Status.OK),
    ]
    after = [(Fields(Type.DETACH, domain=1, endpoint=8), 4, Status.INVAL)]
    items: list[Item] = [Negotiation(0x1_0000_0077)]
    items += [request(*one) for one in requests]
    items.append(Request(b"\xff\0\0\0", 4, 4, Outcome(None, 0)))
    items += [Restart(Reset.DRIVER), Negotiation(0x1_0000_0077)]
    items += [request(*one) for one in after]
    write_trace(path, Header(endpoints=(Endpoint(8, regions),)), items)
    return path


def request(fields: Fields, writable: int, status: Status) -> Request:
    data = fields.encode()
    return Request(data, len(data), writable, Outcome(status, writable))


@pytest.fixture(scope="module")
def replay(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program that replays, built of this source tree."""
    build = tmp_path_factory.mktemp("core")
    program = build / "bench" / "replay"
    command = ["make", "-s", "-j2", "-C", str(find_source(None)), f"BUILD={build}"]
    subprocess.run([*command, str(program)], check=True)
    return program


def replay_sample(program: Path, folder: Path, second_map: Status) -> tuple[int, str]:
    trace = write_sample(folder / "trace.jsonl", second_map=second_map)
    write_image(TraceFile(trace), folder / "image")
    command = [str(program), str(folder / "image")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def test_recorded_ring_is_replayed(replay: Path, tmp_path: Path) -> None:
    code, output = replay_sample(replay, tmp_path, Status.INVAL)
    assert code == 0, output
    counts = {one["request"]: one["count"] for one in parse_figures(output)}
    types = {"attach": 1, "detach": 1, "map": 2, "unmap": 1, "probe": 1}
    # All: also the one whose type nobody knows.
    assert counts == {"all": 7, **types}


def test_answer_that_was_not_recorded_ends_the_replay(
    replay: Path, tmp_path: Path
) -> None:
    code, output = replay_sample(replay, tmp_path, Status.OK)
    assert code == 1
    assert output == "request 4: recorded status 0, now 4 (255: none)\n"


@pytest.mark.parametrize("size", [0, 7, 95, 111, 119, 200, -1])
def test_image_that_was_cut_is_refused(replay: Path, tmp_path: Path, size: int) -> None:
    write_image(
        TraceFile(write_sample(tmp_path / "t", second_map=Status.OK)), tmp_path / "i"
    )
    (tmp_path / "cut").write_bytes((tmp_path / "i").read_bytes()[:size])
    done = subprocess.run(
        [str(replay), str(tmp_path / "cut")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "bench/image.c" in done.stdout + done.stderr


def test_trace_goes_to_the_programs_as_an_image(tmp_path: Path) -> None:
    core = source_tree(tmp_path, "head -c 8 $(IMAGE) >&2; exit 1")
    trace = TraceFile(write_sample(tmp_path / "t", second_map=Status.OK))
    with pytest.raises(UntestableError) as caught:
        run_programs(core, trace)
    assert "viotring" in str(caught.value)


def test_trace_without_requests_is_refused(tmp_path: Path) -> None:
    write_trace(tmp_path / "t", Header(), [Negotiation(0x1_0000_0077)])
    with pytest.raises(UsageError, match="no request that could be replayed"):
        write_image(TraceFile(tmp_path / "t"), tmp_path / "i")


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
