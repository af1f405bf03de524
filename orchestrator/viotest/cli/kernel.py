# SPDX-License-Identifier: GPL-2.0-or-later
"""``viotest kernel``: kernels and modules to put on trial."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from viotest.folding import fold, width_of

if TYPE_CHECKING:
    import argparse
    from typing import Any


def add_kernel_parser(commands: Any) -> None:
    """Add ``kernel`` to the subcommands of ``viotest``."""
    parser = commands.add_parser("kernel", help="build kernels and modules to test")
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    _add_build(actions)
    _add_module(actions)
    listing = actions.add_parser("list", help="the kernels that have names, and state")
    listing.set_defaults(call=list_command)


def _add_build(actions: Any) -> None:
    build = actions.add_parser(
        "build",
        help="build a minimal guest kernel from source, in minutes",
        description="Build a minimal guest kernel from source, and print its name for"
        " viotest run --kernel. A kernel of the same source, patches, configuration"
        " and compiler is taken from the cache.",
    )
    build.add_argument(
        "source",
        metavar="SOURCE",
        help="linux-7.3, linux-6.12, debian:linux-source-VERSION, a tarball, or the top"
        " of a kernel tree",
    )
    build.add_argument(
        "--patch",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="apply with patch -p1; may be repeated",
    )
    build.add_argument(
        "--fragment",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="options on top of guest-images/kernel; may be repeated",
    )
    build.add_argument(
        "--name",
        metavar="NAME",
        help="for --kernel build:NAME; default: the source's, and those of its changes",
    )
    build.set_defaults(call=build_command)


def _add_module(actions: Any) -> None:
    module = actions.add_parser(
        "module",
        help="rebuild the modules that a patch touches, in seconds",
        description="Rebuild the modules that a patch touches, in seconds, and print"
        " their paths, one a line, for viotest run --replace-module. Of a kernel of"
        " Debian that is virtio_iommu; of one that viotest built, any module.",
    )
    module.add_argument(
        "--kernel",
        default="debian:bookworm-backports",
        metavar="KERNEL",
        help="build:NAME, or one of Debian's; default: debian:bookworm-backports, which"
        " Debian 12's compiler fits",
    )
    module.add_argument("--patch", type=Path, required=True, metavar="FILE")
    module.set_defaults(call=module_command)


def build_command(arguments: argparse.Namespace) -> int:
    """Carry out ``viotest kernel build``; prints what ``--kernel`` takes.

    :raise ViotestError: As :func:`viotest.provision.kbuild.names.build_named`.
    """
    from viotest.provision.kbuild.build import Recipe
    from viotest.provision.kbuild.names import build_named
    from viotest.provision.kernel import BUILD
    from viotest.provision.progress import TerminalProgress

    recipe = Recipe(arguments.source, tuple(arguments.patch), tuple(arguments.fragment))
    print(BUILD + build_named(recipe, arguments.name, TerminalProgress()))
    return 0


def module_command(arguments: argparse.Namespace) -> int:
    """Carry out ``viotest kernel module``; prints paths.

    :raise ViotestError: As :func:`viotest.provision.module.build_modules`.
    """
    from viotest.provision.module import build_modules
    from viotest.provision.progress import TerminalProgress

    paths = build_modules(arguments.kernel, arguments.patch, TerminalProgress())
    print(*paths, sep="\n")
    return 0


def list_command(arguments: argparse.Namespace) -> int:
    """Carry out ``viotest kernel list``."""
    from viotest.provision.kbuild.names import list_named
    from viotest.provision.kernel import BUILD, DEBIAN_KERNELS, find_debian_kernel

    absent = "not there yet"
    rows = [
        (BUILD + row.name, row.release or absent, row.source) for row in list_named()
    ]
    for spec in DEBIAN_KERNELS:
        entry = find_debian_kernel(spec)
        rows.append((spec, entry.facts["release"] if entry else absent, "packages"))
    widths = [max(len(row[i]) for row in rows) for i in range(2)]
    for name, release, source in rows:
        line = f"{name:{widths[0]}}  {release:{widths[1]}}  {source}"
        print(fold(line, width_of(sys.stdout), widths[0] + 2))
    return 0
