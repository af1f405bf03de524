# SPDX-License-Identifier: GPL-2.0-or-later
"""Small kernels and modules that are real files, and a cache of one's own."""

from __future__ import annotations

import gzip
import struct
from typing import TYPE_CHECKING

import pytest

from viotest.provision.progress import SilentProgress

if TYPE_CHECKING:
    from pathlib import Path

RELEASE = "6.12.1-test"
SECTION_NAMES = b"\0.modinfo\0.shstrtab\0"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of an empty cache."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("VIOTEST_CACHE", str(folder))
    return folder


@pytest.fixture
def progress() -> SilentProgress:
    """Return a progress that keeps what it is told."""
    return SilentProgress()


def make_elf(
    content: bytes = b"", *, note: tuple[bytes, int] | None = None, machine: int = 62
) -> bytes:
    """Return an ELF file with one note segment and a ``.modinfo`` section."""
    owner, kind = note or (b"GNU", 1)
    raw = struct.pack("<III", len(owner) + 1, 4, kind)
    raw += owner.ljust(-(-(len(owner) + 1) // 4) * 4, b"\0") + bytes(4)
    names = 64 + 56 + len(raw)
    data = names + len(SECTION_NAMES)
    sections = data + len(content)
    head = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    head += struct.pack("<HHIQQQ", 2, machine, 1, 0, 64, sections)
    head += struct.pack("<IHHHHHH", 0, 64, 56, 1, 64, 3, 2)
    segment = struct.pack("<IIQQQQQQ", 4, 4, 120, 0, 0, len(raw), len(raw), 4)
    table = bytes(64)
    table += _section(1, data, len(content))
    table += _section(10, names, len(SECTION_NAMES))
    return head + segment + raw + SECTION_NAMES + content + table


def _section(name: int, offset: int, size: int) -> bytes:
    return struct.pack("<IIQQQQIIQQ", name, 1, 0, 0, offset, size, 0, 0, 1, 0)


def make_vmlinux(*, pvh: bool = True, extra: bytes = b"") -> bytes:
    """Return a file that looks like a kernel's ELF image."""
    banner = b"Linux version " + RELEASE.encode() + b" (me@here) #1\n\0"
    note = (b"Xen", 18) if pvh else (b"Xen", 6)
    return make_elf(banner + extra, note=note)


def make_bzimage(payload: bytes) -> bytes:
    """Return a bzImage of boot protocol 2.15 with a compressed payload."""
    head = bytearray(1024)
    head[0x1F1] = 1
    head[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", head, 0x206, 0x20F)
    struct.pack_into("<II", head, 0x248, 0, len(payload))
    return bytes(head) + payload


def gzipped_kernel(*, pvh: bool = True) -> bytes:
    """Return a bzImage that holds :func:`make_vmlinux`."""
    return make_bzimage(gzip.compress(make_vmlinux(pvh=pvh), mtime=0))


def make_module(depends: str = "", release: str = RELEASE) -> bytes:
    """Return a kernel module that has a ``.modinfo`` and nothing else."""
    items = [f"depends={depends}", f"vermagic={release} SMP preempt mod_unload "]
    return make_elf("\0".join([*items, ""]).encode())


def write_modules(folder: Path, modules: dict[str, bytes], builtin: str = "") -> Path:
    """Write a ``lib/modules/RELEASE`` folder as packages have it."""
    (folder / "kernel").mkdir(parents=True)
    for name, data in modules.items():
        (folder / "kernel" / name).write_bytes(data)
    order = "".join(f"kernel/{name.split('.ko')[0]}.ko\n" for name in modules)
    (folder / "modules.order").write_text(order)
    (folder / "modules.builtin").write_text(builtin)
    return folder
