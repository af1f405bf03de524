# SPDX-License-Identifier: GPL-2.0-or-later
"""Write initramfs archives: the same content gives the same bytes on every host.

:class:`CpioWriter` makes a "newc" archive as Linux' early-userspace documentation
describes it. The kernel unpacks several archives in a row, so a run appends its own.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from typing import BinaryIO

#: Archives are padded to this; the kernel needs a multiple of 4.
BLOCK = 512
_TRAILER = "TRAILER!!!"


class CpioWriter:
    """Writes an archive in which everything belongs to root and has no date.

    :param file: Where to write.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._size = 0
        self._inode = 0
        self._folders: set[str] = set()

    def file(self, name: str, data: bytes, mode: int = 0o644) -> None:
        """Add a regular file and the folders above it.

        :param name: Its path without a leading slash.
        :param data: Its content.
        :param mode: Its permissions.
        """
        self._parents(name)
        self._entry(name, stat.S_IFREG | mode, data)

    def folder(self, name: str, mode: int = 0o755) -> None:
        """Add a folder and those above it, unless it is there already."""
        if name not in self._folders:
            self._parents(name)
            self._folders.add(name)
            self._entry(name, stat.S_IFDIR | mode)

    def link(self, name: str, target: str) -> None:
        """Add a symbolic link."""
        self._parents(name)
        self._entry(name, stat.S_IFLNK | 0o777, target.encode())

    def character_device(self, name: str, mode: int, major: int, minor: int) -> None:
        """Add a character device."""
        self._parents(name)
        self._entry(name, stat.S_IFCHR | mode, device=(major, minor))

    def close(self) -> None:
        """End the archive; the file stays open."""
        self._entry(_TRAILER, 0)
        self._write(b"\0" * (-self._size % BLOCK))

    def _parents(self, name: str) -> None:
        assert name.strip("/") == name, name
        assert ".." not in name.split("/"), name
        parent = name.rpartition("/")[0]
        if parent:
            self.folder(parent)

    def _entry(
        self, name: str, mode: int, data: bytes = b"", device: tuple[int, int] = (0, 0)
    ) -> None:
        self._inode += 1
        nr_links = 2 if stat.S_ISDIR(mode) else 1
        raw = name.encode() + b"\0"
        owner = (0, 0)
        fields = (self._inode, mode, *owner, nr_links, 0, len(data))
        numbers = (*fields, 0, 0, *device, len(raw), 0)
        self._write(b"070701" + b"".join(b"%08X" % field for field in numbers))
        self._padded(raw)
        self._padded(data)

    def _padded(self, data: bytes) -> None:
        self._write(data)
        self._write(b"\0" * (-self._size % 4))

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self._size += len(data)


def overlay_cpio(files: Mapping[str, tuple[int, bytes]]) -> bytes:
    """Return an archive of a few files that goes behind a base archive.

    :param files: Permissions and content by path. Folders above them become private
        to root, the guest's only user.
    """
    import io

    buffer = io.BytesIO()
    writer = CpioWriter(buffer)
    for name in sorted(files):
        folders = name.split("/")[:-1]
        for depth in range(len(folders)):
            writer.folder("/".join(folders[: depth + 1]), 0o700)
        mode, data = files[name]
        writer.file(name, data, mode)
    writer.close()
    return buffer.getvalue()


def concat_initramfs(base: Path, overlay: bytes, out: Path) -> None:
    """Write a base archive and an overlay behind each other.

    :param base: An archive whose size is a multiple of :data:`BLOCK`.
    :param overlay: What :func:`overlay_cpio` returned.
    :param out: The file to write; private, because overlays hold keys.
    :raise OSError: When it cannot be written.
    """
    with base.open("rb") as source:
        descriptor = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb", buffering=0) as target:
            size = os.fstat(source.fileno()).st_size
            assert size % BLOCK == 0, size
            offset = 0
            while offset < size:
                # In the kernel: the base has megabytes, and every run copies it.
                sent = os.sendfile(
                    target.fileno(), source.fileno(), offset, size - offset
                )
                if sent == 0:
                    raise OSError(f"{base} became shorter while it was copied")
                offset += sent
            remaining = memoryview(overlay)
            while remaining:
                remaining = remaining[target.write(remaining) :]
