# SPDX-License-Identifier: GPL-2.0-or-later
"""``viotest mutants``: does the suite notice what it is there to notice?"""

from __future__ import annotations

import argparse
import fnmatch
import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from viotest.errors import UntestableError, UsageError
from viotest.folding import fold, width_of
from viotest.scenario.model import Accel, Mode, Scenario
from viotest.scenario.options import ALL_MODES, check_choice, nearest

if TYPE_CHECKING:
    from typing import Any

    from viotest.campaign.mutants import Mutant, Trial
    from viotest.campaign.mutation import Clean, Trials
    from viotest.report.mutation import Row, Table

DEFAULT_KERNEL = "debian:bookworm-backports"

_EPILOG = """\
A mutant is killed only by a check that is aimed at it: kernel mutants name
theirs in the header of their patch (guest-images/mutants), those of the
device are in suite/aims.py. What is left below --out: a run folder for each
mutant, mutants.json and mutants.html.

exit status: 0 all were killed or are explained, and nothing failed without a
mutant; 1 one survived, or the clean kernel failed; 2 wrong usage; 125 could
not be tested.
"""


def add_mutants_parser(commands: Any) -> None:
    """Add ``mutants`` to the subcommands of ``viotest``."""
    parser = commands.add_parser(
        "mutants",
        help="put deliberate bugs into kernel and device, and see which checks notice",
        description="Run the suite against deliberate bugs in the kernel's drivers and"
        " in our device, and tell which check noticed each.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--kernel", default=DEFAULT_KERNEL, help=f"default: {DEFAULT_KERNEL}")
    add(
        "--only", action="append", default=[], metavar="GLOB", help="only these mutants"
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--device", action="store_true", help="the device's only")
    which.add_argument(
        "--kernel-mutants", action="store_true", help="the kernel's only"
    )
    add(
        "--quick",
        action="store_true",
        help="put only the checks that are aimed at each",
    )
    add("--list", action="store_true", help="list mutants and aims, run nothing")
    add(
        "-n",
        "--jobs",
        metavar="N",
        default="",
        help="runs at once (default: a CPU each)",
    )
    add("--mode", action="append", default=[], help="as viotest run")
    add("--endpoint", action="append", default=[], help="as viotest run")
    add("--accel", default="auto", help="as viotest run")
    add(
        "--json",
        metavar="FILE",
        help="write JSON here, too; - for standard output alone",
    )
    add("--out", metavar="DIR", help="folder to make (default: viotest-mutants/TIME)")
    options = [
        "--kernel",
        "--only",
        "--device",
        "--kernel-mutants",
        "--quick",
        "--list",
    ]
    options += ["--jobs", "--mode", "--endpoint", "--accel", "--json", "--out"]
    parser.set_defaults(call=mutants_command, options=options)


def mutants_command(arguments: argparse.Namespace) -> int:
    """Carry out ``viotest mutants``.

    :return: The exit code.
    :raise UsageError: When an option is wrong; nothing was started then.
    :raise UntestableError: When the runs cannot be made.
    """
    jobs = _jobs(arguments.jobs)
    check_choice("--accel", arguments.accel, list(Accel))
    for mode in arguments.mode:
        check_choice("--mode", mode, [*Mode, ALL_MODES])
    from viotest.provision.progress import TerminalProgress

    progress = TerminalProgress()
    release = _release(arguments.kernel, progress)
    mutants = _chosen(arguments, release)
    if arguments.list:
        _list(mutants)
        return 0
    from viotest.campaign.folder import check_out, kept_if_interrupted, make_folder

    out = Path(arguments.out).absolute() if arguments.out else None
    default = Path.cwd() / "viotest-mutants"
    check_out(out or default / time.strftime("%Y%m%d-%H%M%S"))
    folder = make_folder(out, parent=default)
    trials = _trials(arguments, folder, jobs)
    with kept_if_interrupted(folder):
        return _try(trials, mutants, release, arguments.json)


def _jobs(text: str) -> int:
    if not text:
        return len(os.sched_getaffinity(0))
    if not text.isdigit() or not 1 <= int(text) <= 64:
        raise UsageError(f"--jobs {text}: not a whole number from 1 to 64")
    return int(text)


def _release(kernel: str, progress: Any) -> str:
    from viotest.provision.kernel import provide_kernel

    return provide_kernel(kernel, None, progress).release


def _chosen(arguments: argparse.Namespace, release: str) -> list[Mutant]:
    from viotest.campaign.mutants import device_mutants, kernel_mutants, parse_version
    from viotest.campaign.plan import device_command

    found: list[Mutant] = []
    if not arguments.device:
        found += kernel_mutants(parse_version(release))
    if not arguments.kernel_mutants:
        found += device_mutants(device_command())
    names = [mutant.name for mutant in found]
    for pattern in arguments.only:
        if not fnmatch.filter(names, pattern):
            hint = nearest(pattern, names)
            raise UsageError(f"--only {pattern}: matches no mutant", hint=hint)
    only = arguments.only or ["*"]
    return [m for m in found if any(fnmatch.fnmatchcase(m.name, p) for p in only)]


def _list(mutants: list[Mutant]) -> None:
    for mutant in mutants:
        aims = ", ".join(mutant.checks) or mutant.aim.cause
        reason = mutant.aim.unobservable or mutant.aim.wanted
        line = f"{mutant.kind:6} {mutant.name:26} {aims or reason}"
        print(fold(line, width_of(sys.stdout), 34))


def _trials(arguments: argparse.Namespace, folder: Path, jobs: int) -> Trials:
    from viotest.campaign.mutation import Trials

    more = [f"--endpoint={endpoint}" for endpoint in arguments.endpoint]
    return Trials(
        kernel=arguments.kernel,
        out=folder,
        jobs=jobs,
        quick=arguments.quick,
        modes=tuple(arguments.mode or map(str, Scenario.modes)),
        arguments=("--accel", arguments.accel, *more),
    )


def _try(
    trials: Trials, mutants: list[Mutant], release: str, json_name: str | None
) -> int:
    from viotest.campaign.mutation import Campaign, exit_code
    from viotest.report.mutation import html, write_table
    from viotest.suite.catalog import NAMES

    started = time.monotonic()
    say = _Teller(len(mutants), sys.stderr if json_name == "-" else sys.stdout)
    campaign = Campaign(trials)
    clean = campaign.run_clean(mutants)
    say.clean(clean)
    tried = campaign.try_all(mutants, say.trial)
    table = _table(trials, release, clean, tried, time.monotonic() - started)
    text = json.dumps(table.to_json(), indent=2) + "\n"
    (trials.out / "mutants.json").write_text(text)
    (trials.out / "mutants.html").write_text(html(table, NAMES), encoding="utf-8")
    if json_name == "-":
        sys.stdout.write(text)
    else:
        print()
        write_table(table, sys.stdout)
        print(f"results  {trials.out}")
        _write(json_name, text)
    return exit_code(clean, tried)


def _write(name: str | None, text: str) -> None:
    if name is None:
        return
    try:
        Path(name).write_text(text)
    except OSError as error:
        raise UntestableError(f"--json {name}: {error.strerror}") from error


class _Teller:
    """Says what has ended, one line each, and how long the rest may take."""

    def __init__(self, total: int, out: Any) -> None:
        self._total = total
        self._out = out

    def clean(self, clean: Clean) -> None:
        cause = clean.decisive["cause"]
        text = f"  {cause['text']}" if cause else ""
        self._say(f"  no mutant: {clean.verdict} in {clean.seconds:.1f} s{text}")

    def trial(self, trial: Trial, done: int, left: float) -> None:
        name = f"{trial.mutant.kind} {trial.mutant.name}"
        what = ", ".join(trial.caught) or trial.text
        rest = (
            f"  [{left / 60:.0f} min left]" if left >= 60 else f"  [{left:.0f} s left]"
        )
        count = f"{done:>{len(str(self._total))}}/{self._total}"
        self._say(
            f"  {count} {trial.fate:9} {name:34} {trial.seconds:5.1f} s  {what}{rest}"
        )

    def _say(self, line: str) -> None:
        # Below the names of the mutants.
        hang = 2 * len(str(self._total)) + 14
        print(fold(line, width_of(self._out), hang), file=self._out, flush=True)


def _table(
    trials: Trials, release: str, clean: Clean, tried: list[Trial], seconds: float
) -> Table:
    from viotest.report.mutation import Table

    return Table(
        kernel=trials.kernel,
        release=release,
        modes=trials.modes,
        clean=clean.verdict,
        clean_outcomes=clean.outcomes,
        rows=[_row(trial) for trial in tried],
        seconds=seconds,
    )


def _row(trial: Trial) -> Row:
    from viotest.report.mutation import Row

    mutant = trial.mutant
    return Row(
        kind=str(mutant.kind),
        name=mutant.name,
        title=mutant.title,
        fate=str(trial.fate),
        fixed_by=mutant.fixed_by,
        aimed=mutant.checks,
        caught=trial.caught,
        others=trial.others,
        outcomes=trial.outcomes or {},
        text=trial.text,
        seconds=trial.seconds,
        folder=trial.folder,
    )
