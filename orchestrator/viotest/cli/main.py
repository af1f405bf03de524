# SPDX-License-Identifier: GPL-2.0-or-later
"""The command ``viotest``."""

from __future__ import annotations

import difflib
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from viotest import __version__
from viotest.__main__ import EXIT_INTERRUPTED
from viotest.cli.bench import add_bench_parser
from viotest.cli.cache import add_cache_parser
from viotest.cli.conformance import add_conformance_parser
from viotest.cli.kernel import add_kernel_parser
from viotest.cli.mutants import add_mutants_parser
from viotest.cli.parser import Parser
from viotest.cli.run import add_run_parser
from viotest.cli.trace import add_trace_parser
from viotest.errors import UsageError, ViotestError
from viotest.folding import fold, width_of
from viotest.interrupts import INTERRUPTS
from viotest.scenario.options import unknown_variables

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

EXIT_USAGE = 2
EXIT_UNTESTABLE = 125


def _parser() -> Parser:
    parser = Parser(
        prog="viotest",
        description="Does VFIO passthrough behind a virtio-iommu work, or why not?",
        allow_abbrev=False,
    )
    parser.set_defaults(options=())
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    run_parser = add_run_parser(commands)
    add_kernel_parser(commands)
    add_bench_parser(commands)
    add_conformance_parser(commands)
    add_mutants_parser(commands)
    add_trace_parser(commands, run_parser)
    add_cache_parser(commands)
    return parser


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    arguments, unknown = _parser().parse_known_args(argv)
    if unknown:
        close = difflib.get_close_matches(unknown[0], arguments.options, n=1)
        hint = f"did you mean {close[0]}?" if close else "see viotest --help"
        raise UsageError(f"unknown argument {unknown[0]}", hint=hint)
    return arguments


def _say(error: object) -> None:
    line = f"viotest: {error}"
    print(fold(line, width_of(sys.stderr), 9), file=sys.stderr)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    :param argv: The arguments; None: the process's own.
    :return: 0 passed, 1 a check failed, 2 bad usage, 125 could not be tested, 130
        interrupted.
    """
    INTERRUPTS.install()
    said: list[str] = []
    try:
        status = _guarded(argv)
    except KeyboardInterrupt as interrupt:
        INTERRUPTS.seen = True
        # Where something was recorded it says where.
        said = [str(word) for word in interrupt.args]
    finally:
        INTERRUPTS.end()
    if INTERRUPTS.seen:
        _say("; ".join(["interrupted", "nothing was left running", *said]))
        return EXIT_INTERRUPTED
    return status


def _check_surroundings() -> None:
    for warning in unknown_variables(os.environ):
        _say(f"warning: {warning}")
    try:
        Path.cwd()
    except FileNotFoundError as error:
        raise UsageError(
            "the working directory has been deleted", hint="cd to one that is there"
        ) from error


def _guarded(argv: Sequence[str] | None) -> int:
    debug = bool(os.environ.get("VIOTEST_DEBUG"))
    if debug:
        logging.basicConfig(level=logging.DEBUG)
    try:
        arguments = _parse(argv)
        _check_surroundings()
        return int(arguments.call(arguments))
    except UsageError as error:
        _say(error)
        return EXIT_USAGE
    except ViotestError as error:
        _say(error)
        return EXIT_UNTESTABLE
    except Exception as error:
        # 1 would tell git bisect that the kernel is bad.
        if debug:
            raise
        # An interrupt may surface as anything, deep in somebody's start-up code.
        if not INTERRUPTS.seen:
            _say(f"{type(error).__name__}: {error} (VIOTEST_DEBUG=1 shows where)")
        return EXIT_UNTESTABLE
