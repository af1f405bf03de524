# SPDX-License-Identifier: GPL-2.0-or-later
"""The device's core alone: builds and runs ``device/core/bench`` of a source tree.

Errors: :class:`~viotest.errors.UntestableError` when there is no source tree, it does
not build, or what it prints is not what is expected.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import viotest
from viotest.bench.image import write_image
from viotest.bench.plot import growth_svg
from viotest.bench.table import Aim, Bound, Row, Section, Spread
from viotest.errors import UntestableError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from viotest.trace.form import TraceFile

REQUESTS = ("map", "unmap", "attach")
_ALL_REQUESTS = "all"
#: The numbers of mappings that get a row; the curve has more.
_SIZES = {1: "1", 1000: "1 k", 1_000_000: "1 M"}
#: Sizes of mappings that DMA goes through, in bytes.
_DMA_SIZES = {4 << 10: "4 KiB", 64 << 10: "64 KiB", 2 << 20: "2 MiB"}
_UNMAP_LIMIT_NS = 1e6
_MAP_RATE = 5e6
_DMA_RATIO = 0.8

COMMAND = "viotest bench core"
_WHY_SOURCE = "the benchmarks of the core are C programs of the source tree"

Figures = list[dict[str, "Any"]]


def find_source(named: Path | None) -> Path:
    """Return the ``device/core`` folder to build.

    :param named: A source tree; None: the one that viotest itself runs from.
    :raise UntestableError: When there is none, as with an installed wheel.
    """
    root = named or Path(viotest.__file__).resolve().parents[2]
    core = root / "device" / "core"
    if not (core / "bench").is_dir():
        raise UntestableError(
            f"{core}: no benchmarks there; {_WHY_SOURCE}",
            hint="run `make bench` in a checkout, or name one with --source DIR",
        )
    return core


def run_programs(core: Path, trace: TraceFile | None = None) -> Figures:
    """Build and run every benchmark of the core.

    :param core: The folder, as from :func:`find_source`.
    :param trace: Is replayed, too.
    :return: The objects that they printed.
    :raise UntestableError: When one fails, or answers the trace differently.
    """
    with tempfile.TemporaryDirectory(prefix="viotest-bench.") as folder:
        command = ["make", "-s", "-C", str(core), "bench"]
        if trace:
            image = Path(folder) / "requests.ring"
            write_image(trace, image)
            command.append(f"IMAGE={image}")
        return _run(command)


def _run(command: list[str]) -> Figures:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise UntestableError(f"make: {error.strerror}") from error
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()
        # The last word is make's own, and only tells which program it was.
        last = [line for line in said if not line.startswith("make")][-1:] or said[-1:]
        raise UntestableError(
            f"{' '.join(command)} ended with {done.returncode}",
            hint="".join(last) or "it said nothing",
        )
    return parse_figures(done.stdout)


def parse_figures(output: str) -> Figures:
    """Parse what the programs print: a JSON object a line.

    :raise UntestableError: When a line is something else.
    """
    figures: Figures = []
    for line in output.splitlines():
        try:
            value = json.loads(line)
        except ValueError:
            value = None
        if not isinstance(value, dict) or not isinstance(value.get("bench"), str):
            raise UntestableError(f"a benchmark of the core printed {line[:100]!r}")
        figures.append(value)
    return figures


def core_sections(figures: Sequence[Mapping[str, Any]]) -> list[Section]:
    """Return the sections b, c and d; with a trace also e.

    :raise UntestableError: When a figure is missing, or is none.
    """
    sections = [_requests(figures), _dma(figures), _unmap(figures)]
    if any(figure["bench"] == "replay" for figure in figures):
        sections.append(_replay(figures))
    return sections


def growth_plot(figures: Sequence[Mapping[str, Any]]) -> str:
    """Return the growth curve of the requests as SVG."""
    series: dict[str, list[tuple[float, float]]] = {
        name.upper(): [] for name in REQUESTS
    }
    for figure in figures:
        if figure["bench"] == "requests":
            point = (_value(figure, "mappings"), _value(figure, "ns_per_request"))
            series[str(figure["request"]).upper()].append(point)
    return growth_svg(
        "Cost of a request by the size of its domain",
        "mappings in the domain",
        "ns per request",
        series,
    )


def _find(figures: Sequence[Mapping[str, Any]], **wanted: object) -> Mapping[str, Any]:
    for figure in figures:
        if wanted.items() <= figure.items():
            return figure
    raise UntestableError(f"no benchmark of the core printed {wanted}")


# Positive, because it is divided by.
def _value(figure: Mapping[str, Any], key: str) -> float:
    value = figure.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
        raise UntestableError(f"benchmark {figure['bench']}: {key} is {value!r}")
    return float(value)


def _requests(figures: Sequence[Mapping[str, Any]]) -> Section:
    rows = []
    for request in REQUESTS:
        rates = [
            _value(
                _find(figures, bench="requests", request=request, mappings=size),
                "requests_per_second",
            )
            for size in _SIZES
        ]
        for name, rate in zip(_SIZES.values(), rates, strict=True):
            what = f"{request.upper()}, {name} mappings"
            rows.append(_rate_row(what, request, rate, rates[0]))
    memory = _value(_find(figures, bench="memory"), "bytes_per_mapping")
    return Section(
        key="b",
        title="requests of the core alone, from a full ring to its used ring",
        unit="requests/s",
        theirs="1 mapping",
        command=COMMAND,
        rows=tuple(rows),
        notes=(f"{memory:.0f} bytes of memory for each mapping",),
    )


# A rate beside another one; that of MAP has an aim wherever it is shown.
def _rate_row(what: str, request: str, rate: float, other: float) -> Row:
    aim = Aim(Bound.AT_LEAST, _MAP_RATE, absolute=True) if request == "map" else None
    return Row(what, rate, other, _point(rate / other), aim)


def _dma(figures: Sequence[Mapping[str, Any]]) -> Section:
    rows = []
    for size, name in _DMA_SIZES.items():
        figure = _find(figures, bench="dma", mapping_bytes=size)
        ours = _value(figure, "gib_per_second")
        theirs = _value(figure, "memcpy_gib_per_second")
        aim = Aim(Bound.AT_LEAST, _DMA_RATIO) if name == "2 MiB" else None
        rows.append(
            Row(f"mappings of {name}", ours, theirs, _point(ours / theirs), aim)
        )
    return Section(
        key="c",
        title="DMA of 2 MiB at a time, by one thread, in turns with memcpy",
        unit="GiB/s",
        theirs="memcpy",
        command=COMMAND,
        rows=tuple(rows),
    )


def _unmap(figures: Sequence[Mapping[str, Any]]) -> Section:
    figure = _find(figures, bench="unmap-during-dma")
    aim = Aim(Bound.AT_MOST, _UNMAP_LIMIT_NS, absolute=True)
    rows = [
        Row(what, _value(figure, key), aim=aim)
        for what, key in (
            ("median", "p50_ns"),
            ("99 of 100 below", "p99_ns"),
            ("longest", "max_ns"),
        )
    ]
    return Section(
        key="d",
        title="UNMAP while 1 GiB of DMA is in flight, from ring to ring",
        unit="ns",
        theirs="",
        command=COMMAND,
        rows=tuple(rows),
        notes=(f"{_value(figure, 'unmaps'):.0f} of them",),
    )


def _replay(figures: Sequence[Mapping[str, Any]]) -> Section:
    seen = [figure for figure in figures if figure["bench"] == "replay"]
    total = _value(
        _find(seen, bench="replay", request=_ALL_REQUESTS), "requests_per_second"
    )
    rows, counts = [], []
    for figure in seen:
        name = str(figure.get("request"))
        what = "all" if name == _ALL_REQUESTS else name.upper()
        rate = _value(figure, "requests_per_second")
        rows.append(_rate_row(what, name, rate, total))
        counts.append(f"{what} {_value(figure, 'count'):.0f}")
    return Section(
        key="e",
        title="requests that a guest sent, replayed by the core alone in full rings",
        unit="requests/s",
        theirs="all of them",
        command=f"{COMMAND} --trace FILE",
        rows=tuple(rows),
        notes=("answered as recorded: " + ", ".join(counts),),
    )


def _point(value: float) -> Spread:
    return Spread(value, value, value)
