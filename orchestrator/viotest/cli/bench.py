# SPDX-License-Identifier: GPL-2.0-or-later
"""``viotest bench``: where the time of a run goes, over several runs."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from viotest.errors import UntestableError, UsageError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping, Sequence
    from typing import Any

#: What a row means, for a person. Phases are seconds from the start of the process.
_ROWS = {
    "launched": "QEMU and the device answer",
    "kernel": "the guest's kernel is entered",
    "beacon": "the guest says that it is ready",
    "ssh": "first command answered over SSH",
    "first-check": "first check begins",
    "verdict": "last check has ended",
    "end": "every process has ended",
    "total": "whole run",
    "cpu orchestrator": "CPU seconds of viotest itself",
    "cpu device": "CPU seconds of viotest-device",
    "cpu qemu": "CPU seconds of QEMU",
}


def add_bench_parser(commands: Any) -> None:
    """Add ``bench`` to the subcommands of ``viotest``."""
    parser = commands.add_parser(
        "bench",
        help="phase times over several runs",
        description="Run `viotest run` several times and show where the time goes."
        " Arguments after -- go to `viotest run`.",
    )
    parser.add_argument("--runs", type=int, default=5, metavar="N", help="default: 5")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("arguments", nargs="*", metavar="ARG", help="for viotest run")
    parser.set_defaults(call=bench_command)


def bench_command(arguments: argparse.Namespace) -> int:
    """Carry out ``viotest bench``; 0 if every run passed.

    :raise UsageError: When the number of runs is not positive.
    :raise UntestableError: When a run does not pass: its times mean nothing.
    """
    if arguments.runs < 1:
        raise UsageError(f"--runs {arguments.runs}: at least 1")
    samples: list[Mapping[str, float]] = []
    # One run that does not count: it may fetch, build, or prove KVM.
    for i in range(arguments.runs + 1):
        sample = _sample(arguments.arguments)
        print(f"run {i}/{arguments.runs}: {sample['total']:.2f} s", file=sys.stderr)
        if i:
            samples.append(sample)
    table = summarise(samples)
    if arguments.json:
        print(json.dumps(table, indent=2))
    else:
        _show(table)
    return 0


def summarise(samples: Sequence[Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """Return minimum, median and maximum of every row that all samples have."""
    names = [name for name in _ROWS if all(name in sample for sample in samples)]
    return {
        name: {
            "min": min(sample[name] for sample in samples),
            "median": statistics.median(sample[name] for sample in samples),
            "max": max(sample[name] for sample in samples),
        }
        for name in names
    }


def _sample(arguments: Sequence[str]) -> Mapping[str, float]:
    with tempfile.TemporaryDirectory(prefix="viotest-bench-") as folder:
        out = Path(folder) / "run"
        command = [sys.executable, "-m", "viotest.cli.main", "run", *arguments]
        command += ["--out", str(out)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise UntestableError(
                f"a run ended with {done.returncode}: its times mean nothing",
                hint=(done.stdout + done.stderr).strip().splitlines()[-1],
            )
        results = json.loads((out / "results.json").read_text())
    cpu = {f"cpu {name}": seconds for name, seconds in results["cpu"].items()}
    return {**results["phases"], "total": results["seconds"], **cpu}


def _show(table: Mapping[str, Mapping[str, float]]) -> None:
    print(f"{'':18} {'min':>7} {'median':>7} {'max':>7}")
    for name, row in table.items():
        values = " ".join(f"{row[key]:7.2f}" for key in ("min", "median", "max"))
        print(f"{name:18} {values}  {_ROWS[name]}")
