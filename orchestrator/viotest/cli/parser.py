# SPDX-License-Identifier: GPL-2.0-or-later
"""The argument parser of every command: :class:`Parser`."""

from __future__ import annotations

import argparse
from typing import NoReturn

from viotest.errors import UsageError


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, as for every other wrong input."""

    def error(self, message: str) -> NoReturn:
        """Refuse the command line.

        :raise UsageError: Always.
        """
        raise UsageError(message, hint=f"see {self.prog} --help")
