# SPDX-License-Identifier: GPL-2.0-or-later
"""The command ``viotest``."""

from __future__ import annotations

import argparse
import difflib
import logging
import os
import signal
import sys
from typing import TYPE_CHECKING, NoReturn

from viotest import __version__
from viotest.cli.bench import add_bench_parser
from viotest.cli.conformance import add_conformance_parser
from viotest.cli.kernel import add_kernel_parser
from viotest.cli.run import add_run_parser
from viotest.errors import UsageError, ViotestError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType

EXIT_USAGE = 2
EXIT_UNTESTABLE = 125
#: As a shell reports a program that died of SIGINT; stops ``git bisect run``.
EXIT_INTERRUPTED = 130


class _Parser(argparse.ArgumentParser):
    # What is wrong is said in one line, as every other wrong input.
    def error(self, message: str) -> NoReturn:
        raise UsageError(message, hint=f"see {self.prog} --help")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="viotest",
        description="Does VFIO passthrough behind a virtio-iommu work, or why not?",
        allow_abbrev=False,
    )
    parser.set_defaults(options=())
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    add_run_parser(commands)
    add_kernel_parser(commands)
    add_bench_parser(commands)
    add_conformance_parser(commands)
    return parser


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    arguments, unknown = _parser().parse_known_args(argv)
    if unknown:
        close = difflib.get_close_matches(unknown[0], arguments.options, n=1)
        hint = f"did you mean {close[0]}?" if close else "see viotest --help"
        raise UsageError(f"unknown argument {unknown[0]}", hint=hint)
    return arguments


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _say(error: ViotestError) -> None:
    print(f"viotest: {error}", file=sys.stderr)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    :param argv: The arguments; None: the process's own.
    :return: 0 passed, 1 a check failed, 2 bad usage, 125 could not be tested, 130
        interrupted.
    """
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    if os.environ.get("VIOTEST_DEBUG"):
        logging.basicConfig(level=logging.DEBUG)
    try:
        arguments = _parse(argv)
        return int(arguments.call(arguments))
    except UsageError as error:
        _say(error)
        return EXIT_USAGE
    except ViotestError as error:
        _say(error)
        return EXIT_UNTESTABLE
    except KeyboardInterrupt:
        print("viotest: interrupted; nothing was left running", file=sys.stderr)
        return EXIT_INTERRUPTED


if __name__ == "__main__":
    raise SystemExit(main())
