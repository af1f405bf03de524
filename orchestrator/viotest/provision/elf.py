# SPDX-License-Identifier: GPL-2.0-or-later
"""Read what we need of little-endian 64-bit ELF files: notes, sections, libraries.

The main class is :class:`Elf`. The file's content is not trusted: every read is
checked, and anything odd raises :class:`ElfError`.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

from viotest.errors import UntestableError

if TYPE_CHECKING:
    from collections.abc import Iterator

PT_LOAD, PT_DYNAMIC, PT_INTERP, PT_NOTE = 1, 2, 3, 4
DT_NULL, DT_NEEDED, DT_STRTAB = 0, 1, 5
EM_X86_64 = 62
#: The note that tells where to enter a kernel by PVH (Xen's ``PHYS32_ENTRY``).
XEN_ELFNOTE_PHYS32_ENTRY = 18


class ElfError(UntestableError):
    """A file is not the ELF file that it should be."""


class Segment(NamedTuple):
    """A program header."""

    type: int
    offset: int
    vaddr: int
    filesz: int


class Section(NamedTuple):
    """A section header."""

    name: str
    offset: int
    size: int


class Elf:
    """An ELF file in memory.

    :param data: The whole file.
    :raise ElfError: When it is not 64-bit little-endian ELF.
    """

    def __init__(self, data: bytes | memoryview) -> None:
        self._data = memoryview(data)
        if self._bytes(0, 6) != b"\x7fELF\x02\x01":
            raise ElfError("not a 64-bit little-endian ELF file")
        self.machine: int = self._unpack("<H", 18)[0]
        self._phoff, self._shoff = self._unpack("<QQ", 32)
        self._phnum: int = self._unpack("<H", 56)[0]
        self._shnum, self._shstrndx = self._unpack("<HH", 60)

    def segments(self) -> Iterator[Segment]:
        """Yield the program headers."""
        for index in range(self._phnum):
            kind, _, offset, vaddr, _, filesz = self._unpack(
                "<IIQQQQ", self._phoff + 56 * index
            )
            yield Segment(kind, offset, vaddr, filesz)

    def sections(self) -> Iterator[Section]:
        """Yield the section headers."""
        names = self._section_header(self._shstrndx) if self._shnum else (0, 0, 0)
        for index in range(self._shnum):
            name, offset, size = self._section_header(index)
            yield Section(self._string(names[1] + name), offset, size)

    def section(self, name: str) -> bytes | None:
        """Return a section's bytes, or None when there is no such section."""
        for section in self.sections():
            if section.name == name:
                return self._bytes(section.offset, section.size)
        return None

    def has_note(self, owner: bytes, kind: int) -> bool:
        """Tell whether a note of an owner and a type is there.

        :param owner: The note's name without the final zero.
        :param kind: The note's type.
        """
        for segment in self.segments():
            if segment.type != PT_NOTE:
                continue
            end = segment.offset + segment.filesz
            offset = segment.offset
            while offset + 12 <= end:
                namesz, descsz, found = self._unpack("<III", offset)
                name = self._bytes(offset + 12, min(namesz, 64)).rstrip(b"\0")
                if (name, found) == (owner, kind):
                    return True
                offset += 12 + (namesz + 3 & ~3) + (descsz + 3 & ~3)
        return False

    def interpreter(self) -> str | None:
        """Return the path of the dynamic loader, or None for a static file."""
        for segment in self.segments():
            if segment.type == PT_INTERP:
                return self._string(segment.offset)
        return None

    def needed(self) -> list[str]:
        """Return the names of the shared libraries that are loaded with the file."""
        table: list[tuple[int, int]] = []
        for segment in self.segments():
            if segment.type != PT_DYNAMIC:
                continue
            for offset in range(segment.offset, segment.offset + segment.filesz, 16):
                tag, value = self._unpack("<QQ", offset)
                if tag == DT_NULL:
                    break
                table.append((tag, value))
        strings = dict(table).get(DT_STRTAB)
        if strings is None:
            return []
        base = self._file_offset(strings)
        return [self._string(base + value) for tag, value in table if tag == DT_NEEDED]

    def _file_offset(self, vaddr: int) -> int:
        for segment in self.segments():
            inside = segment.vaddr <= vaddr < segment.vaddr + segment.filesz
            if segment.type == PT_LOAD and inside:
                return vaddr - segment.vaddr + segment.offset
        raise ElfError("an address is in no segment")

    def _section_header(self, index: int) -> tuple[int, int, int]:
        name, _, _, _, offset, size = self._unpack("<IIQQQQ", self._shoff + 64 * index)
        return name, offset, size

    def _unpack(self, layout: str, offset: int) -> tuple[int, ...]:
        raw = self._bytes(offset, struct.calcsize(layout))
        return struct.unpack(layout, raw)

    def _bytes(self, offset: int, size: int) -> bytes:
        data = bytes(self._data[offset : offset + size])
        if len(data) != size:
            raise ElfError("an ELF header leaves the file")
        return data

    def _string(self, offset: int) -> str:
        raw = bytes(self._data[offset : offset + 4096])
        return raw.split(b"\0", 1)[0].decode("utf-8", "replace")
