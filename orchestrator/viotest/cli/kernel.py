# SPDX-License-Identifier: GPL-2.0-or-later
"""``viotest kernel``: kernels and modules to put on trial."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse
    from typing import Any


def add_kernel_parser(commands: Any) -> None:
    """Add ``kernel`` to the subcommands of ``viotest``."""
    parser = commands.add_parser("kernel", help="build modules to put on trial")
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    module = actions.add_parser(
        "module",
        help="rebuild a Debian kernel's virtio_iommu with a patch, in seconds",
        description="Rebuild a Debian kernel's virtio_iommu with a patch, in seconds,"
        " and print the path of the module, for viotest run --replace-module.",
    )
    module.add_argument(
        "--kernel",
        default="debian:bookworm-backports",
        metavar="KERNEL",
        help="default: debian:bookworm-backports, which Debian 12's compiler fits",
    )
    module.add_argument("--patch", type=Path, required=True, metavar="FILE")
    module.set_defaults(call=module_command)


def module_command(arguments: argparse.Namespace) -> int:
    """Carry out ``viotest kernel module``; prints one path.

    :raise ViotestError: As :func:`viotest.provision.module.build_module`.
    """
    from viotest.provision.module import build_module
    from viotest.provision.progress import TerminalProgress

    print(build_module(arguments.kernel, arguments.patch, TerminalProgress()))
    return 0
