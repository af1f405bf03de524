# SPDX-License-Identifier: GPL-2.0-or-later
"""Unpack chosen files of Debian packages, without maintainer scripts or root."""

from __future__ import annotations

import shutil
import subprocess
import tarfile
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING

from viotest.errors import UntestableError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


class UnpackError(UntestableError):
    """A package could not be unpacked."""


def unpack(
    packages: Iterable[Path], folder: Path, wanted: Callable[[str], bool]
) -> None:
    """Unpack files and symbolic links; top-level folders are merged into ``usr``.

    :param packages: The ``.deb`` files.
    :param folder: Where to.
    :param wanted: Told each path (``usr/bin/dropbear``), says whether to keep it.
    :raise UnpackError: When a package is damaged.
    """
    for package in packages:
        command = ["dpkg-deb", "--fsys-tarfile", str(package)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            try:
                _unpack_tar(process.stdout, folder, wanted)
            except tarfile.TarError as error:
                process.kill()
                raise UnpackError(f"damaged package {package.name}: {error}") from error
            except BaseException:
                process.kill()
                raise
        if process.returncode != 0:
            what = f"dpkg-deb cannot unpack {package.name}"
            raise UnpackError(f"{what}: exit {process.returncode}")


def merged(name: str) -> str:
    """Return a package's path on a system whose ``/lib`` is ``/usr/lib``.

    :param name: A path as packages spell it: ``./lib/modules/...``.
    :raise UnpackError: When the path leaves the package.
    """
    parts = PurePosixPath(name.lstrip("/")).parts
    if ".." in parts:
        raise UnpackError(f"a package holds the path {name!r}")
    if parts[:1] in (("bin",), ("sbin",), ("lib",), ("lib64",)):
        parts = ("usr", *parts)
    return "/".join(parts)


def _unpack_tar(stream: IO[bytes], folder: Path, wanted: Callable[[str], bool]) -> None:
    with tarfile.open(fileobj=stream, mode="r|") as archive:
        for member in archive:
            name = merged(member.name)
            if not wanted(name):
                continue
            path = folder / name
            if member.issym() or member.islnk():
                path.parent.mkdir(parents=True, exist_ok=True)
                path.unlink(missing_ok=True)
                path.symlink_to(_link_target(member, name))
            elif member.isfile():
                path.parent.mkdir(parents=True, exist_ok=True)
                source = archive.extractfile(member)
                assert source is not None
                with source, path.open("wb") as target:
                    shutil.copyfileobj(source, target, 1 << 20)
                path.chmod(0o755 if member.mode & 0o100 else 0o644)
    # tarfile stops at the end marker; dpkg-deb must be able to write its padding.
    while stream.read(1 << 16):
        pass


def _link_target(member: tarfile.TarInfo, name: str) -> str:
    depth = name.count("/")
    if member.islnk() or member.linkname.startswith("/"):
        # Absolute targets would point at the host: make them relative to the tree.
        return "../" * depth + merged(member.linkname)
    return member.linkname
