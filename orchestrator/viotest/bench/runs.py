# SPDX-License-Identifier: GPL-2.0-or-later
"""Where the time of a run goes, over several runs."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from viotest.errors import UntestableError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# What a row means, for a person. Phases are seconds from the start of the process.
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


def run_once(arguments: Sequence[str]) -> Mapping[str, float]:
    """Carry out one ``viotest run`` and return its times by row.

    :param arguments: For ``viotest run``.
    :raise UntestableError: When it does not pass: its times mean nothing.
    """
    with tempfile.TemporaryDirectory(prefix="viotest-bench-") as folder:
        out = Path(folder) / "run"
        command = [sys.executable, "-m", "viotest", "run", *arguments]
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


def text(table: Mapping[str, Mapping[str, float]]) -> str:
    """Return the summary as a table for a terminal."""
    lines = [f"{'':18} {'min':>7} {'median':>7} {'max':>7}"]
    for name, row in table.items():
        values = " ".join(f"{row[key]:7.2f}" for key in ("min", "median", "max"))
        lines.append(f"{name:18} {values}  {_ROWS[name]}")
    return "\n".join(lines) + "\n"
