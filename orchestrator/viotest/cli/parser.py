# SPDX-License-Identifier: GPL-2.0-or-later
"""The argument parser of every command: :class:`Parser`."""

from __future__ import annotations

import argparse
import re
import sys
from typing import NoReturn

from viotest.errors import UsageError
from viotest.folding import fold, width_of

# The first column of a list, and what parts it from the second.
_HEAD = re.compile(r" +\S+ {2,}")


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, as for every other wrong input.

    Its help fits a terminal, the texts too that argparse is told to leave as they are.
    """

    def format_help(self) -> str:
        """Return the help."""
        lines = super().format_help().split("\n")
        return "\n".join(_folded(line) for line in lines)

    def error(self, message: str) -> NoReturn:
        """Refuse the command line.

        :raise UsageError: Always.
        """
        raise UsageError(message, hint=f"see {self.prog} --help")


def _folded(line: str) -> str:
    head = _HEAD.match(line)
    return fold(line, width_of(sys.stdout), head.end() if head else 0)
