# SPDX-License-Identifier: GPL-2.0-or-later
"""``viotest conformance``: score a virtio-iommu against the specification."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from viotest.cli.common import STDOUT, check_mutants, check_writable
from viotest.errors import UntestableError
from viotest.folding import width_of
from viotest.scenario.options import check_choice

if TYPE_CHECKING:
    from typing import Any

    from viotest.conformance.session import Report

_TARGETS = ("viotest", "qemu", "both")

_EPILOG = """\
A row that fails is in capitals if the specification has MUST or SHOULD there.
With both targets ours is the one that is judged, and QEMU's is there to
compare.

exit status: 0 no MUST and no SHOULD failed for the judged target; 1 one
failed; 2 wrong usage; 125 could not be tested.
"""


def add_conformance_parser(commands: Any) -> None:
    """Add ``conformance`` to the subcommands of ``viotest``."""
    parser = commands.add_parser(
        "conformance",
        help="score a virtio-iommu against the specification, without a guest",
        description="Drive a virtio-iommu by raw virtqueues, without a guest, and score"
        " it against the specification, row by row.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add(
        "--target",
        default="both",
        metavar="viotest|qemu|both",
        help="viotest, qemu, both (default)",
    )
    add("--qemu", default="auto", metavar="PATH", help="default: auto, as viotest run")
    add("--row", action="append", default=[], metavar="GLOB", help="only these rows")
    add(
        "--device-mutant",
        action="append",
        default=[],
        metavar="NAME",
        help="give our device a deliberate defect, to see which rows find it",
    )
    add("--json", metavar="FILE", help="write JSON; - for standard output alone")
    add("--tap", metavar="FILE", help="write TAP 13")
    add("--junit", metavar="FILE", help="write JUnit XML")
    options = ["--target", "--qemu", "--row", "--device-mutant"]
    options += ["--json", "--tap", "--junit"]
    parser.set_defaults(call=conformance_command, options=options)


def conformance_command(arguments: argparse.Namespace) -> int:
    """Carry out ``viotest conformance``; 0 if the judged target conforms.

    :raise UsageError: When an option is wrong; nothing was started then.
    :raise UntestableError: When QEMU or the device cannot be had or started.
    """
    check_choice("--target", arguments.target, _TARGETS)
    for path in (arguments.json, arguments.tap, arguments.junit):
        check_writable(path)
    from viotest.conformance.session import select_rows

    rows = select_rows(arguments.row)
    report = _run(arguments, rows)
    _write(report, arguments)
    return 0 if report.conforms else 1


def _run(arguments: argparse.Namespace, rows: Any) -> Report:
    from viotest.campaign.plan import device_command
    from viotest.conformance.session import run
    from viotest.conformance.target import Programs, Target
    from viotest.provision.progress import TerminalProgress
    from viotest.provision.qemu import provide_qemu

    elsewhere = "--target qemu" if arguments.target == Target.QEMU else None
    check_mutants(arguments.device_mutant, elsewhere=elsewhere)
    device = device_command()
    progress = TerminalProgress()
    qemu = provide_qemu(arguments.qemu, progress)
    named = arguments.target
    targets = list(Target) if named == "both" else [Target(named)]
    programs = Programs(qemu.argv, tuple(device), tuple(arguments.device_mutant))
    return run(targets, rows, programs, qemu.version, progress)


def _write(report: Report, arguments: argparse.Namespace) -> None:
    from viotest.conformance import output

    if arguments.json == STDOUT:
        sys.stdout.write(output.as_json(report))
    else:
        print(f"virtio-iommu, {output.SPECIFICATION}; QEMU {report.qemu}\n")
        sys.stdout.write(output.text(report, width_of(sys.stdout)))
    for name, form in (
        (arguments.json, output.as_json),
        (arguments.tap, output.as_tap),
        (arguments.junit, output.as_junit),
    ):
        if name is None or (name == STDOUT and form is output.as_json):
            continue
        try:
            Path(name).write_text(form(report), encoding="utf-8")
        except OSError as error:
            raise UntestableError(f"{name}: {error.strerror}") from error
