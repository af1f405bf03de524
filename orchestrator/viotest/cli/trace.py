# SPDX-License-Identifier: GPL-2.0-or-later
"""``viotest trace``: record what a guest asked of its IOMMU, show it, ask it again."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from viotest.cli.common import STDOUT, check_mutants, check_writable
from viotest.errors import UntestableError, UsageError
from viotest.scenario.options import check_choice

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from viotest.provision.progress import Progress, Step
    from viotest.trace.form import TraceFile
    from viotest.trace.model import Item
    from viotest.trace.output import Report

_TARGETS = ("viotest", "qemu", "both")
_DEFAULT_OUT = "trace.jsonl"

#: More than this takes seconds.
_MANY_RECORDS = 1 << 17
_LARGE_FILE = 1 << 24
_SHOW_EVERY = 4096

_RECORD_EPILOG = """\
examples:
  viotest trace record RUN                  what a run left in its folder
  viotest trace record -- --accel tcg       make a run, and record it

A trace must begin where the state of the device is known. If the device's log
has lost its first records, the trace begins at the next reset of the system;
without one it is refused. `viotest run --log-records N` keeps more.

exit status: 0 recorded, or what the run ended with; 2 wrong usage; 125 could
not be recorded.
"""

_REPLAY_EPILOG = """\
A difference: `-` is what was recorded, `+` what the target did now.

exit status: 0 no difference; 1 differences; 2 wrong usage, or no trace; 125
could not be tested.
"""


def add_trace_parser(commands: Any, run_parser: argparse.ArgumentParser) -> None:
    """Add ``trace`` to the subcommands of ``viotest``.

    :param run_parser: The parser of ``viotest run``.
    """
    parser = commands.add_parser(
        "trace",
        help="record a guest's requests, and replay them on any virtio-iommu",
        description="Record every request that a guest sent to our virtio-iommu, show"
        " them, and replay them on ours or QEMU's, without a guest.",
        allow_abbrev=False,
    )
    verbs = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_record(verbs, run_parser)
    _add_replay(verbs)
    _add_show(verbs)


def _add_record(verbs: Any, run_parser: argparse.ArgumentParser) -> None:
    parser = verbs.add_parser(
        "record",
        help="make a trace of a run",
        description="Make a trace of a run: of its folder, or of a run made for it.",
        epilog=_RECORD_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--out", default=_DEFAULT_OUT, metavar="FILE", help=f"default: {_DEFAULT_OUT}")
    add(
        "--iommu", type=int, default=0, metavar="N", help="which of several; default: 0"
    )
    add("arguments", nargs="*", metavar="RUN", help="a run folder, or -- arguments")
    options = ["--out", "--iommu"]
    parser.set_defaults(call=record_command, options=options, run_parser=run_parser)


def _add_replay(verbs: Any) -> None:
    parser = verbs.add_parser(
        "replay",
        help="ask a virtio-iommu what a trace's guest asked",
        description="Ask a virtio-iommu, without a guest, what a trace's guest asked,"
        " and show what it answers otherwise.",
        epilog=_REPLAY_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("file", metavar="FILE", help="the trace")
    metavar = "|".join(_TARGETS)
    add("--target", default="both", metavar=metavar, help="default: both")
    add("--qemu", default="auto", metavar="PATH", help="default: auto, as viotest run")
    add(
        "--device-mutant",
        action="append",
        default=[],
        metavar="NAME",
        help="give our device a deliberate defect, to see whether the trace finds it",
    )
    add(
        "--no-wait",
        action="store_true",
        help="do not wait where the guest did: as many requests at once as fit",
    )
    add("--json", metavar="FILE", help="write JSON; - for standard output alone")
    options = ["--target", "--qemu", "--device-mutant", "--no-wait", "--json"]
    parser.set_defaults(call=replay_command, options=options)


def _add_show(verbs: Any) -> None:
    parser = verbs.add_parser(
        "show",
        help="print a trace",
        description="Print a trace: time, number, request, what became of it. A + says"
        " that the request was on the ring when the one before it was taken.",
        allow_abbrev=False,
    )
    parser.add_argument("file", metavar="FILE", help="the trace")
    parser.set_defaults(call=show_command, options=[])


def record_command(arguments: argparse.Namespace) -> int:
    """Carry out ``viotest trace record``.

    :raise UsageError: When an argument is wrong; nothing was started then.
    :raise UntestableError: When there is nothing to record, or not enough of it.
    """
    check_writable(arguments.out)
    given: list[str] = arguments.arguments
    if not given:
        raise UsageError(
            "trace record: of which run?",
            hint="name its folder, or give the arguments of a new one after --",
        )
    if given[0].startswith("-"):
        return _record_new(arguments, given)
    if len(given) > 1 or not Path(given[0]).is_dir():
        raise UsageError(f"{given[-1]}: is no run folder")
    _record(Path(given[0]), arguments)
    return 0


def _record_new(arguments: argparse.Namespace, given: list[str]) -> int:
    options, unknown = arguments.run_parser.parse_known_args(given)
    if unknown:
        raise UsageError(
            f"unknown argument {unknown[0]}", hint="see viotest run --help"
        )
    if options.__dict__["dry-run"]:
        raise UsageError("--dry-run: leaves nothing to record")
    with contextlib.ExitStack() as stack:
        if not options.out:
            options.out = [stack.enter_context(_temporary_run())]
        status = int(options.call(options))
        # A run that failed, or in which the guest died, is worth a trace most.
        _record(Path(options.out[-1]), arguments)
    return status


@contextlib.contextmanager
def _temporary_run() -> Iterator[str]:
    try:
        with tempfile.TemporaryDirectory(prefix="viotest-trace-") as parent:
            yield os.path.join(parent, "run")  # noqa: PTH118 - a string
    except KeyboardInterrupt as interrupt:
        # Without its text, which names the folder that is gone.
        raise KeyboardInterrupt from interrupt


def _record(folder: Path, arguments: argparse.Namespace) -> None:
    from viotest.trace.form import trace_lines, write_trace
    from viotest.trace.output import counted
    from viotest.trace.record import Recording

    recording = Recording(folder, arguments.iommu)
    long = recording.nr_records > _MANY_RECORDS
    with _progress(long).step(f"recording {folder}") as step:
        seen = _Counted(recording.items(), step, recording.nr_records)
        if arguments.out == STDOUT:
            sys.stdout.writelines(trace_lines(recording.header, seen))
        else:
            try:
                write_trace(Path(arguments.out), recording.header, seen)
            except OSError as error:
                raise UntestableError(f"{arguments.out}: {error.strerror}") from error
    lost = recording.header.lost
    what = counted(seen.nr, "request")
    if lost:
        what += f"; {counted(lost, 'record')} of the log lost before it"
    # Not among the lines of a trace, or of a run's JSON.
    print(f"trace  {arguments.out}: {what}", file=sys.stderr)


# What takes a moment is not worth a line.
def _progress(long: bool) -> Progress:
    from viotest.provision.progress import SilentProgress, TerminalProgress

    return TerminalProgress() if long else SilentProgress()


class _Counted:
    """Counts the requests that pass, and shows how far this is."""

    def __init__(self, items: Iterator[Item], step: Step, total: int) -> None:
        self._items = items
        self._step = step
        self._total = total
        self.nr = 0

    def __iter__(self) -> Iterator[Item]:
        from viotest.trace.model import Request

        for item in self._items:
            self.nr += isinstance(item, Request)
            if self.nr % _SHOW_EVERY == 0:
                self._step.update(self.nr, self._total)
            yield item


def _open(name: str) -> TraceFile:
    from viotest.trace.form import TraceFile

    path = Path(name)
    long = path.is_file() and path.stat().st_size > _LARGE_FILE
    with _progress(long).step(f"reading {name}") as step:
        return TraceFile(path, step.update)


def replay_command(arguments: argparse.Namespace) -> int:
    """Carry out ``viotest trace replay``; 0 if there is no difference.

    :raise UsageError: When an option or the trace is wrong; nothing was started then.
    :raise UntestableError: When QEMU or the device cannot be had or started.
    """
    check_choice("--target", arguments.target, _TARGETS)
    check_writable(arguments.json)
    trace = _open(arguments.file)
    report = _replay(arguments, trace)
    from viotest.trace import output

    if arguments.json == STDOUT:
        sys.stdout.write(output.as_json(report))
    else:
        sys.stdout.write(output.text(report))
        if arguments.json is not None:
            try:
                Path(arguments.json).write_text(output.as_json(report))
            except OSError as error:
                raise UntestableError(f"{arguments.json}: {error.strerror}") from error
    return 1 if report.differs else 0


def _replay(arguments: argparse.Namespace, trace: TraceFile) -> Report:
    from viotest.campaign.plan import device_command
    from viotest.conformance.target import Programs, Target
    from viotest.provision.progress import TerminalProgress
    from viotest.provision.qemu import provide_qemu
    from viotest.trace.session import replay_on

    elsewhere = "--target qemu" if arguments.target == Target.QEMU else None
    check_mutants(arguments.device_mutant, elsewhere=elsewhere)
    progress = TerminalProgress()
    qemu = provide_qemu(arguments.qemu, progress)
    named = arguments.target
    targets = list(Target) if named == "both" else [Target(named)]
    device = tuple(device_command())
    programs = Programs(qemu.argv, device, tuple(arguments.device_mutant))
    wait = not arguments.no_wait
    return replay_on(targets, trace, programs, qemu.version, progress, wait=wait)


def show_command(arguments: argparse.Namespace) -> int:
    """Carry out ``viotest trace show``.

    :raise UsageError: When the file is no trace.
    """
    from viotest.trace.output import show_trace

    trace = _open(arguments.file)
    try:
        for line in show_trace(trace.header, trace.items()):
            print(line)
        sys.stdout.flush()
    except BrokenPipeError:
        # Who reads has seen enough; what is left must not fail at our exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0
