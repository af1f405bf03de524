# SPDX-License-Identifier: GPL-2.0-or-later
"""Fetch QEMU and every library that it needs from Debian, as one folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

from viotest.provision import cache
from viotest.provision.apt import Apt
from viotest.provision.debs import unpack

if TYPE_CHECKING:
    from pathlib import Path

    from viotest.provision.progress import Progress

#: The parts of the packages that a running QEMU reads.
_KEPT = (
    "usr/bin/qemu-system-",
    "usr/lib64/",
    "usr/lib/x86_64-linux-gnu/",
    "usr/lib/ipxe/",
    "usr/share/qemu/",
    "usr/share/seabios/",
)
#: Large or many, and not for a headless x86 machine.
_LEFT_OUT = (
    "usr/lib/x86_64-linux-gnu/gconv/",
    "usr/lib/x86_64-linux-gnu/perl",
    "usr/lib/x86_64-linux-gnu/security/",
    "usr/share/qemu/keymaps/",
)


def unpack_debian_qemu(
    package: str, suite: str, folder: Path, progress: Progress
) -> None:
    """Fill a cache entry with QEMU as a suite has it now.

    :param package: QEMU's package.
    :param suite: The suite; dependencies come from it where it has them.
    :param folder: Where to unpack.
    :param progress: Where downloads are shown.
    """
    with cache.scratch() as tmp:
        with Apt(progress).session() as apt:
            packages = apt.fetch(apt.closure([package], suite), tmp, "QEMU")
        with progress.step("unpacking QEMU"):
            unpack(packages, folder, is_wanted)


def is_wanted(name: str) -> bool:
    """Tell whether a file of the packages is kept.

    :param name: Its path, without a leading slash.
    """
    return name.startswith(_KEPT) and not name.startswith(_LEFT_OUT)
