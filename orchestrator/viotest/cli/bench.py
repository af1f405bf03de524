# SPDX-License-Identifier: GPL-2.0-or-later
"""``viotest bench``: how fast it is, and where the time goes."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from viotest.cli.common import STDOUT, check_writable
from viotest.cli.run import scenario_from
from viotest.errors import UntestableError, UsageError
from viotest.folding import width_of

if TYPE_CHECKING:
    from typing import Any

    from viotest.bench.core import Figures
    from viotest.bench.table import Section
    from viotest.trace.form import TraceFile

#: What ``bench all`` writes into its folder.
JSON_FILE = "bench.json"
PLOT_FILE = "requests.svg"
TRACE_FILE = "trace.jsonl"

_AFTER = " Arguments after -- are options of `viotest run`."
_EPILOG = """\
A figure that misses its aim is no error: the exit status is 0 if everything
could be measured, 2 after wrong usage, and 125 if something could not be
measured or did not do what it was measured for.
"""


def add_bench_parser(commands: Any) -> None:
    """Add ``bench`` to the subcommands of ``viotest``."""
    parser = commands.add_parser(
        "bench",
        help="how fast it is, compared with QEMU and memcpy, and where the time goes",
        description="How fast it is, and where the time goes.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    kinds = parser.add_subparsers(required=True, metavar="KIND")
    _add_run(_kind(kinds, "run", "phase times of several runs", after=True))
    _add_guest(_kind(kinds, "guest", "VFIO maps, ours against QEMU's", after=True))
    _add_core(_kind(kinds, "core", "requests, DMA and UNMAP of the core alone"))
    _add_all(_kind(kinds, "all", "guest and core, into a folder", after=True))


def _kind(kinds: Any, name: str, words: str, *, after: bool = False) -> Any:
    parser = kinds.add_parser(
        name,
        help=words,
        description=f"{words[0].upper()}{words[1:]}.{_AFTER if after else ''}",
        allow_abbrev=False,
    )
    if after:
        parser.add_argument("arguments", nargs="*", metavar="ARG", help="after --")
    return parser


def _add_run(parser: Any) -> None:
    parser.add_argument("--runs", type=int, default=5, metavar="N", help="default: 5")
    _add_json(parser)
    parser.set_defaults(call=run_command, options=["--runs", "--json"])


def _add_guest(parser: Any) -> None:
    names = _add_guest_options(parser)
    _add_json(parser)
    parser.set_defaults(call=guest_command, options=[*names, "--json"])


def _add_core(parser: Any) -> None:
    names = _add_core_options(parser)
    parser.add_argument("--plot", metavar="FILE", help="write the growth curve, SVG")
    _add_json(parser)
    parser.set_defaults(call=core_command, options=[*names, "--plot", "--json"])


def _add_all(parser: Any) -> None:
    names = [*_add_guest_options(parser), *_add_core_options(parser)]
    parser.add_argument(
        "--out",
        metavar="DIR",
        default="viotest-bench",
        help="folder for JSON, plot and trace (default: viotest-bench)",
    )
    parser.set_defaults(call=all_command, options=[*names, "--out"])


def _add_json(parser: Any) -> None:
    parser.add_argument(
        "--json", metavar="FILE", help="write JSON; - for standard output alone"
    )


def _add_guest_options(parser: Any) -> list[str]:
    for name, default, words in (
        ("--rounds", 10, "turns of each guest"),
        ("--count", 2000, "maps and unmaps in a turn"),
        ("--also-poll", 0, "measure ours with this polling window, too, in us"),
    ):
        parser.add_argument(
            name, type=int, default=default, metavar="N", help=f"{words} ({default})"
        )
    return ["--rounds", "--count", "--also-poll"]


def _add_core_options(parser: Any) -> list[str]:
    parser.add_argument(
        "--source",
        metavar="DIR",
        help="the source tree to build them from (default: the one we run from)",
    )
    parser.add_argument(
        "--trace",
        metavar="FILE",
        help="replay this trace, too (`all` without it: one it records)",
    )
    return ["--source", "--trace"]


def run_command(arguments: argparse.Namespace) -> int:
    """Carry out ``viotest bench run``; 0 if every run passed.

    :raise UsageError: When the number of runs is not positive.
    :raise UntestableError: When a run does not pass: its times mean nothing.
    """
    from viotest.bench import runs

    _check_range("--runs", arguments.runs, 1, 1000)
    check_writable(arguments.json)
    samples = []
    # One run that does not count: it may fetch, build, or prove KVM.
    for i in range(arguments.runs + 1):
        sample = runs.run_once(arguments.arguments)
        print(f"run {i}/{arguments.runs}: {sample['total']:.2f} s", file=sys.stderr)
        if i:
            samples.append(sample)
    table = runs.summarise(samples)
    _put(arguments.json, json.dumps(table, indent=2) + "\n", runs.text(table))
    return 0


def guest_command(arguments: argparse.Namespace) -> int:
    """Carry out ``viotest bench guest``; 0 if all was measured.

    :raise ViotestError: As :func:`viotest.bench.guest.measure`.
    """
    check_writable(arguments.json)
    _put_sections(arguments.json, [_guest(arguments)])
    return 0


def core_command(arguments: argparse.Namespace) -> int:
    """Carry out ``viotest bench core``; 0 if all was measured.

    :raise ViotestError: When the programs cannot be built, or one fails.
    """
    for name in (arguments.json, arguments.plot):
        check_writable(name)
    from viotest.bench.core import core_sections, growth_plot

    figures = _core(arguments, _trace(arguments.trace))
    _put_sections(arguments.json, core_sections(figures))
    if arguments.plot:
        _write(arguments.plot, growth_plot(figures))
    return 0


def all_command(arguments: argparse.Namespace) -> int:
    """Carry out ``viotest bench all``; 0 if all was measured.

    :raise ViotestError: As the two it consists of.
    """
    from viotest.bench.core import core_sections, find_source, growth_plot

    out = Path(arguments.out)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--out {out}: {error.strerror}") from error
    # Before the guests, which take minutes.
    find_source(Path(arguments.source) if arguments.source else None)
    trace = _trace(arguments.trace)
    if trace is None:
        section = _guest(arguments, out / TRACE_FILE)
        trace = _trace(str(out / TRACE_FILE))
    else:
        section = _guest(arguments)
    figures = _core(arguments, trace)
    sections = [section, *core_sections(figures)]
    _write(str(out / PLOT_FILE), growth_plot(figures))
    _put_sections(str(out / JSON_FILE), sections)
    print(f"written: {out / JSON_FILE}, {out / PLOT_FILE}")
    return 0


def _trace(name: str | None) -> TraceFile | None:
    from viotest.trace.form import TraceFile

    return None if name is None else TraceFile(Path(name))


def _guest(arguments: argparse.Namespace, trace: Path | None = None) -> Section:
    _check_range("--rounds", arguments.rounds, 1, 10_000)
    _check_range("--count", arguments.count, 1, 1_000_000)
    _check_range("--also-poll", arguments.also_poll, 0, 100)
    scenario = scenario_from(arguments.arguments)
    from viotest.bench.guest import Options, measure
    from viotest.provision.progress import TerminalProgress

    options = Options(scenario, arguments.rounds, arguments.count, arguments.also_poll)
    return measure(options, TerminalProgress(), trace)


def _core(arguments: argparse.Namespace, trace: TraceFile | None) -> Figures:
    from viotest.bench.core import find_source, run_programs
    from viotest.provision.progress import TerminalProgress

    core = find_source(Path(arguments.source) if arguments.source else None)
    with TerminalProgress().step("building and running the core's benchmarks"):
        return run_programs(core, trace)


def _host() -> dict[str, object]:
    return {
        "machine": platform.machine(),
        "processors": len(os.sched_getaffinity(0)),
        # Others at work make every figure worse, and not evenly.
        "load": os.getloadavg()[0],
    }


def _put_sections(json_name: str | None, sections: list[Section]) -> None:
    from viotest.bench.table import as_json, text

    width = width_of(sys.stdout)
    tables = "\n".join(text(section, width) for section in sections)
    _put(json_name, as_json(sections, _host()), tables)


def _put(json_name: str | None, document: str, table: str) -> None:
    sys.stdout.write(document if json_name == STDOUT else table)
    if json_name not in (None, STDOUT):
        _write(str(json_name), document)


def _check_range(option: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise UsageError(f"{option} {value}: out of range", hint=f"{low} to {high}")


def _write(name: str, content: str) -> None:
    try:
        Path(name).write_text(content, encoding="utf-8")
    except OSError as error:
        raise UntestableError(f"{name}: {error.strerror}") from error
