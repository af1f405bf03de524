# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernel headers that the probe is built with, newer than the host's may be.

Debian 12's ``linux-libc-dev`` has no ``linux/iommufd.h``, and its ``linux/vfio.h``
knows no device files. The main function is :func:`provide_uapi`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from viotest.errors import UntestableError
from viotest.provision import cache

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from viotest.provision.progress import Progress

SUITE = "trixie"
PACKAGE = "linux-libc-dev"
#: All that these include, every host that compiles has in its own headers.
HEADERS = ("linux/iommufd.h", "linux/vfio.h")
#: Names what an entry holds; part of the probe's key too.
KEY = f"debian-{SUITE}-{cache.digest_of(1, PACKAGE, HEADERS)}"

_FOLDER = "usr/include"


def provide_uapi(progress: Progress) -> Path:
    """Return a folder for ``-isystem`` with :data:`HEADERS`.

    :param progress: Where the download is shown.
    :raise UntestableError: When it cannot be fetched.
    """

    def build(folder: Path) -> Mapping[str, Any]:
        return _build(folder, progress)

    entry = cache.provide("uapi", KEY, build, progress, what="kernel headers")
    return entry.path / _FOLDER


def _build(folder: Path, progress: Progress) -> Mapping[str, Any]:
    # Imported late: a warm cache needs none of it.
    from viotest.provision.apt import Apt
    from viotest.provision.debs import unpack

    wanted = {f"{_FOLDER}/{name}" for name in HEADERS}
    with cache.scratch() as tmp:
        with Apt(progress).session() as apt:
            debs = apt.candidates([PACKAGE], SUITE)
            packages = apt.fetch(debs, tmp, "kernel headers")
        unpack(packages, folder, wanted.__contains__)
    for name in sorted(wanted):
        if not (folder / name).is_file():
            raise UntestableError(f"{PACKAGE} of {SUITE} has no {name}")
    return {deb.name: deb.version for deb in debs}
