# SPDX-License-Identifier: GPL-2.0-or-later
"""``viotest cache``: what was fetched and built, and how to be rid of it."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from viotest.errors import UsageError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable
    from typing import Any

    from viotest.provision.prune import Holding

_MOST_DAYS = 36500


def add_cache_parser(commands: Any) -> None:
    """Add ``cache`` to the subcommands of ``viotest``."""
    parser = commands.add_parser("cache", help="list what was fetched and built")
    actions = parser.add_subparsers(metavar="ACTION")
    parser.set_defaults(call=list_command)
    prune = actions.add_parser(
        "prune",
        help="remove what has not been used for long",
        description="Remove entries of the cache that have not been used for long. They"
        " are fetched or built again when they are wanted.",
    )
    prune.add_argument(
        "--unused",
        default="30",
        metavar="DAYS",
        help="for so many days; a whole number from 1 (default: %(default)s)",
    )
    prune.set_defaults(call=prune_command, options=["--unused"])


def list_command(arguments: argparse.Namespace) -> int:
    """Carry out ``viotest cache``."""
    from viotest.provision.cache import cache_root
    from viotest.provision.prune import contents

    held = contents()
    for kind, group in itertools.groupby(held, lambda holding: holding.kind):
        some = list(group)
        newest, oldest = (round(some[at].idle) for at in (0, -1))
        days = f"{newest}" if newest == oldest else f"{newest} to {oldest}"
        what = f"{len(some):4}  {_mib(some):>10}"
        print(f"{kind:14} {what}  used {days} days ago")
    print(f"{'all':14} {len(held):4}  {_mib(held):>10}  {cache_root()}")
    return 0


def prune_command(arguments: argparse.Namespace) -> int:
    """Carry out ``viotest cache prune``.

    :raise UsageError: When ``--unused`` is wrong, or the cache is in use.
    :raise CacheError: When it cannot be written.
    """
    from viotest.provision.prune import prune

    days = arguments.unused
    if not (days.isascii() and days.isdigit() and 1 <= int(days) <= _MOST_DAYS):
        raise UsageError(f"--unused {days}: not a whole number from 1 to {_MOST_DAYS}")
    removed = prune(int(days))
    for holding in removed:
        idle = f"used {round(holding.idle)} days ago"
        print(f"{holding.kind}/{holding.path.name}  {_mib([holding])}  {idle}")
    print(f"{len(removed)} removed, {_mib(removed)}")
    return 0


def _mib(holdings: Iterable[Holding]) -> str:
    return f"{sum(holding.size for holding in holdings) / (1 << 20):.1f} MiB"
