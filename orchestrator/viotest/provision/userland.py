# SPDX-License-Identifier: GPL-2.0-or-later
"""The guest's programs: busybox and dropbear from Debian, the probe from our source.

Each is an entry of the cache; :mod:`viotest.provision.initramfs` packs them.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

from viotest.errors import UntestableError
from viotest.provision import assets, cache, uapi

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from viotest.provision.progress import Progress

SUITE = "trixie"
#: Packages whose dependencies are of use here, and programs taken from them.
PROGRAMS = {
    "busybox-static": "usr/bin/busybox",
    "dropbear-bin": "usr/sbin/dropbear",
}
#: Part of the entry's key; goes up when what it holds changes.
RECIPE = 1
_LIBRARY_FOLDER = "usr/lib/x86_64-linux-gnu"


def provide_userland(progress: Progress) -> Path:
    """Return a folder with busybox, dropbear and the libraries that they load.

    :param progress: Where downloads are shown.
    :return: ``bin/PROGRAM`` and ``lib/LIBRARY``; the loader is among the libraries.
    :raise UntestableError: When they cannot be fetched.
    """

    def build(folder: Path) -> Mapping[str, Any]:
        return _build_userland(folder, progress)

    key = f"debian-{SUITE}-{RECIPE}"
    entry = cache.provide("userland", key, build, progress, what="guest programs")
    return entry.path


def provide_probe(progress: Progress) -> Path:
    """Return ``vfio-probe``, built from its source when that has changed.

    :param progress: Where the build is shown.
    :raise UntestableError: When it cannot be built.
    """
    sources = assets.guest_images() / "probe"
    headers = assets.device_headers()

    def build(folder: Path) -> Mapping[str, Any]:
        include = uapi.provide_uapi(progress)
        with progress.step("building vfio-probe"), cache.scratch() as tmp:
            _make(sources, headers, include, tmp)
            shutil.copy(tmp / "vfio-probe", folder / "vfio-probe")
        return {}

    key = probe_key()
    return (
        cache.provide("probe", key, build, progress, what="vfio-probe").path
        / "vfio-probe"
    )


def probe_key() -> str:
    """Return the key of the probe that the sources make."""
    sources = assets.guest_images() / "probe"
    headers = assets.device_headers() / "dma_engine.h"
    paths = [sources / "Makefile", *sorted((sources / "src").iterdir()), headers]
    files = [path for path in paths if path.is_file()]
    contents = ((path.name, path.read_bytes()) for path in files)
    return cache.digest_of(RECIPE, uapi.KEY, *contents)


def _make(sources: Path, headers: Path, include: Path, build: Path) -> None:
    command = ["make", "-s", "-C", os.fspath(sources), f"BUILD={build}"]
    command += [f"UAPI_INCLUDE={include}", f"CFLAGS=-Os -I{headers}"]
    environment = {
        name: os.environ[name] for name in ("PATH", "CC") if name in os.environ
    }
    try:
        result = subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
    except FileNotFoundError as error:
        hint = "install the packages make and gcc"
        raise UntestableError(
            "make is needed to build vfio-probe", hint=hint
        ) from error
    if result.returncode != 0:
        said = result.stderr.strip().splitlines() or ["no output"]
        raise UntestableError(f"vfio-probe does not build: {said[0]}")


def _build_userland(folder: Path, progress: Progress) -> Mapping[str, Any]:
    # Imported late: a warm cache needs none of it.
    from viotest.provision.apt import Apt
    from viotest.provision.debs import unpack

    with cache.scratch() as tmp:
        tree = tmp / "tree"
        with Apt(progress).session() as apt:
            debs = apt.closure(list(PROGRAMS), SUITE)
            packages = apt.fetch(debs, tmp, "the guest's programs")
        unpack(packages, tree, lambda name: name.startswith("usr/"))
        for program in PROGRAMS.values():
            _copy_program(tree, program, folder)
    return {deb.name: deb.version for deb in debs}


def _copy_program(tree: Path, program: str, folder: Path) -> None:
    from viotest.provision.libraries import find_libraries

    (folder / "bin").mkdir(exist_ok=True)
    (folder / "lib").mkdir(exist_ok=True)
    shutil.copy(tree / program, folder / "bin")
    libraries = find_libraries(tree / program, tree / _LIBRARY_FOLDER)
    for name, path in libraries.items():
        shutil.copy(path, folder / "lib" / name)
