# SPDX-License-Identifier: GPL-2.0-or-later
"""The command ``viotest-device``."""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
from pathlib import Path

from viotest_device import core
from viotest_device.config import ConfigError, read_config
from viotest_device.core import CoreError
from viotest_device.server import serve


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="viotest-device",
        description="Serve a virtio-iommu and endpoints behind it over vfio-user.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    serve_parser = commands.add_parser("serve", help="serve until SIGTERM or quit")
    serve_parser.add_argument("config", type=Path, metavar="CONFIG.toml")
    serve_parser.add_argument(
        "--parent-pid",
        type=int,
        metavar="PID",
        help="die together with the process PID, which must be the parent",
    )
    serve_parser.set_defaults(run=_serve)
    mutants = commands.add_parser("mutants", help="list the deliberate defects")
    mutants.add_argument(
        "--of-endpoints",
        action="store_true",
        help="only those that change something where no virtio-iommu is ours",
    )
    mutants.set_defaults(run=_mutants)
    return parser


def _serve(arguments: argparse.Namespace) -> None:
    if arguments.parent_pid is not None:
        core.exit_with_parent(arguments.parent_pid)
    asyncio.run(serve(read_config(arguments.config), sys.stdout))


def _mutants(arguments: argparse.Namespace) -> None:
    table = core.mutants(of_endpoints=arguments.of_endpoints)
    for name, notice in table.items():
        print(f"{name:24} {notice}")


def main() -> int:
    """Run the command; 0 on success, 2 for a bad configuration, 1 otherwise."""
    arguments = _parser().parse_args()
    logging.basicConfig(format="viotest-device: %(levelname)s: %(message)s")
    try:
        arguments.run(arguments)
    except ConfigError as error:
        print(f"viotest-device: {error}", file=sys.stderr)
        return 2
    except (CoreError, OSError) as error:
        print(f"viotest-device: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
