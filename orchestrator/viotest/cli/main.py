# SPDX-License-Identifier: GPL-2.0-or-later
"""The command ``viotest``."""

from __future__ import annotations

import difflib
import logging
import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from viotest import __version__
from viotest.__main__ import EXIT_INTERRUPTED
from viotest.cli.bench import add_bench_parser
from viotest.cli.conformance import add_conformance_parser
from viotest.cli.kernel import add_kernel_parser
from viotest.cli.mutants import add_mutants_parser
from viotest.cli.parser import Parser
from viotest.cli.run import add_run_parser
from viotest.cli.trace import add_trace_parser
from viotest.errors import UsageError, ViotestError
from viotest.folding import fold, width_of
from viotest.scenario.options import unknown_variables

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence
    from types import FrameType

EXIT_USAGE = 2
EXIT_UNTESTABLE = 125

_POLITE = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


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
    return parser


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    arguments, unknown = _parser().parse_known_args(argv)
    if unknown:
        close = difflib.get_close_matches(unknown[0], arguments.options, n=1)
        hint = f"did you mean {close[0]}?" if close else "see viotest --help"
        raise UsageError(f"unknown argument {unknown[0]}", hint=hint)
    return arguments


class _Interrupts:
    """Turns polite signals into KeyboardInterrupt, once per wish.

    An impatient second Ctrl-C must not tear the clean-up of the first apart. And
    Python may swallow an exception that is raised in a destructor: the wish is
    remembered, so that the exit code tells of it.
    """

    #: Seconds in which a repeated signal is the same wish.
    _SAME_WISH = 2.0

    def __init__(self) -> None:
        self.seen = False
        self._last = float("-inf")

    def install(self) -> None:
        """Listen, but not to what our parent told us to ignore (nohup, ``&``)."""
        for number in _POLITE:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._take)

    def end(self) -> None:
        """Listen no more: all that is left is to exit."""
        for number in _POLITE:
            signal.signal(number, signal.SIG_IGN)

    def _take(self, number: int, frame: FrameType | None) -> None:
        self.seen = True
        now = time.monotonic()
        if now - self._last > self._SAME_WISH:
            self._last = now
            raise KeyboardInterrupt


def _say(error: object) -> None:
    line = f"viotest: {error}"
    print(fold(line, width_of(sys.stderr), 9), file=sys.stderr)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    :param argv: The arguments; None: the process's own.
    :return: 0 passed, 1 a check failed, 2 bad usage, 125 could not be tested, 130
        interrupted.
    """
    interrupts = _Interrupts()
    interrupts.install()
    said: list[str] = []
    try:
        status = _guarded(argv, interrupts)
    except KeyboardInterrupt as interrupt:
        interrupts.seen = True
        # Where something was recorded it says where.
        said = [str(word) for word in interrupt.args]
    finally:
        interrupts.end()
    if interrupts.seen:
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


def _guarded(argv: Sequence[str] | None, interrupts: _Interrupts) -> int:
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
        if not interrupts.seen:
            _say(f"{type(error).__name__}: {error} (VIOTEST_DEBUG=1 shows where)")
        return EXIT_UNTESTABLE
