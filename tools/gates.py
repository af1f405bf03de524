# SPDX-License-Identifier: GPL-2.0-or-later
"""Run the gates of the house: `make check`, or `make check-NAME` for one.

Every gate is one command with an exit code of its own. A gate whose tool is
missing is SKIPPED, and fails when VIOTEST_CI is set. The exit code of this
program is that of the gate if one was named, else 1 if any failed.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

ROOT = Path(__file__).resolve().parents[1]

#: What a gate exits with when its tool is missing, as in automake's tests.
SKIPPED = 77

PYTHON_TREES = (
    "orchestrator/viotest",
    "device/viotest_device",
    "tests",
    "tools",
    "setup.py",
)


def source_files(*suffixes: str) -> list[str]:
    """Tell which files belong to the project, tracked or about to be.

    :param suffixes: only names that end so; none means every file.
    :return: paths relative to the root, sorted; links and removed files left out.
    """
    # The checkout may be another user's, as it is in a container.
    argv = ["git", "-c", "safe.directory=*", "ls-files", "-coz", "--exclude-standard"]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=True)
    return sorted(
        name
        for name in set(done.stdout.split("\0"))
        if name.endswith(suffixes or "")
        and (ROOT / name).is_file()
        and not (ROOT / name).is_symlink()
    )


@dataclass(frozen=True)
class Gate:
    """One thing that must hold, and the command that tells."""

    name: str
    purpose: str
    #: The program, beside this Python or on PATH.
    tool: str
    #: Made late: some commands name every file of a kind.
    arguments: Callable[[], Sequence[str]]

    def find_tool(self) -> str | None:
        """Find the gate's program; None if it is not installed."""
        beside = Path(sys.executable).parent / self.tool
        return os.fspath(beside) if beside.exists() else shutil.which(self.tool)

    def argv(self) -> list[str] | None:
        """Make the gate's command; None if its program is not installed."""
        tool = self.find_tool()
        return None if tool is None else [tool, *self.arguments()]


def _c_files() -> list[str]:
    return ["--dry-run", "-Werror", *source_files(".c", ".h")]


def _core_tests() -> list[str]:
    return ["-s", "-C", "device/core", "check-sanitize", f"BUILD={ROOT}/build/core"]


GATES = (
    Gate("ruff", "Python lint", "ruff", lambda: ["check", "--quiet", "."]),
    Gate("format", "Python layout", "ruff", lambda: ["format", "--check", "."]),
    Gate("mypy", "types, strict", "mypy", lambda: PYTHON_TREES),
    Gate("imports", "imports go down only", "lint-imports", lambda: ["--no-cache"]),
    Gate("clang-format", "C layout", "clang-format", _c_files),
    Gate("codespell", "spelling", "codespell", source_files),
    Gate("rules", "lengths, licences, names", "python", lambda: ["-m", "tools.rules"]),
    Gate("core", "C tests under ASAN and UBSAN", "make", _core_tests),
)


def run_gate(gate: Gate) -> int:
    """Run one gate, show its output if it fails, and tell its exit code."""
    start = time.monotonic()
    argv = gate.argv()
    if argv is None:
        _report(gate, f"SKIPPED ({gate.tool} is not installed)")
        return SKIPPED
    done = subprocess.run(
        argv,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    seconds = time.monotonic() - start
    if done.returncode:
        sys.stdout.write(done.stdout)
        _report(gate, f"FAIL (exit {done.returncode})  {seconds:.1f} s")
    else:
        _report(gate, f"ok  {seconds:.1f} s")
    # A signal's negative number is no exit code that a shell could see.
    return done.returncode if done.returncode >= 0 else 128 - done.returncode


def _report(gate: Gate, outcome: str) -> None:
    print(f"{gate.name:14}{gate.purpose:32}{outcome}", flush=True)


def _parse(argv: Sequence[str] | None) -> list[Gate]:
    known = {gate.name: gate for gate in GATES}
    parser = argparse.ArgumentParser(description="Run the gates of the house.")
    parser.add_argument("gate", nargs="*", help=f"one of {', '.join(known)}")
    names = parser.parse_args(argv).gate
    for name in names:
        if name not in known:
            parser.error(f"no gate {name!r}; there are {', '.join(known)}")
    return [known[name] for name in names] or list(GATES)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the named gates, or all; see the module for the exit code."""
    gates = _parse(argv)
    codes = [run_gate(gate) for gate in gates]
    tolerated = () if os.environ.get("VIOTEST_CI") else (SKIPPED,)
    failed = [code for code in codes if code and code not in tolerated]
    if len(gates) == 1:
        return codes[0]
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
