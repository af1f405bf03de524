# SPDX-License-Identifier: GPL-2.0-or-later
"""What of a QEMU goes into a guest, and how it is started there."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import pytest

from viotest.errors import UntestableError
from viotest.provision.elf import PT_DYNAMIC, PT_INTERP, PT_LOAD
from viotest.provision.libraries import find_libraries
from viotest.provision.nested import nested_files, nested_start

if TYPE_CHECKING:
    from pathlib import Path

LOADER = "ld-linux-x86-64.so.2"
_HEADERS = 64 + 3 * 56


def make_program(*needed: str, loader: str = "") -> bytes:
    """Return an ELF file that wants to be loaded with others."""
    strings = b"\0" + b"".join(name.encode() + b"\0" for name in needed)
    interpreter = f"/lib64/{loader}".encode() + b"\0"
    table, at = b"", 1
    for name in needed:
        table += struct.pack("<QQ", 1, at)
        at += len(name) + 1
    table += struct.pack("<QQQQ", 5, _HEADERS, 0, 0)
    at_table = _HEADERS + len(strings)
    at_interpreter = at_table + len(table)
    size = at_interpreter + len(interpreter)
    ident = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    header = struct.pack("<HHIQQQIHHHHHH", 3, 62, 1, 0, 64, 0, 0, 64, 56, 3, 64, 0, 0)
    segments = (
        (PT_LOAD, 0, size),
        (PT_DYNAMIC, at_table, len(table)),
        (PT_INTERP if loader else 0, at_interpreter, len(interpreter)),
    )
    rows = [
        struct.pack("<IIQQQQQQ", kind, 4, start, start, start, length, length, 8)
        for kind, start, length in segments
    ]
    return ident + header + b"".join(rows) + strings + table + interpreter


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A QEMU as Debian's packages unpack, with a library that nothing needs."""
    library = tmp_path / "usr/lib/x86_64-linux-gnu"
    files = {
        "usr/bin/qemu-system-x86_64": make_program("liba.so", loader=LOADER),
        "usr/bin/qemu-system-arm": make_program("liba.so", loader=LOADER),
        "usr/share/seabios/bios-256k.bin": b"bios",
        "usr/share/seabios/vgabios.bin": b"vga",
        "usr/share/qemu/kvmvapic.bin": b"vapic",
    }
    parts = {
        LOADER: make_program(),
        "liba.so": make_program("libb.so", LOADER),
        # In a circle, as the C library and its loader are.
        "libb.so": make_program("liba.so"),
        "libmodule.so": make_program("libb.so"),
        "libunused.so": make_program(),
        "qemu/accel-qtest.so": make_program("libmodule.so"),
        "qemu/audio-alsa.so": make_program("libunused.so"),
    }
    for path, data in files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(data)
    for name, data in parts.items():
        (library / name).parent.mkdir(parents=True, exist_ok=True)
        (library / name).write_bytes(data)
    return tmp_path


def test_libraries_of_libraries_are_found(tree: Path) -> None:
    folder = tree / "usr/lib/x86_64-linux-gnu"
    found = find_libraries(tree / "usr/bin/qemu-system-x86_64", folder)
    assert found == {name: folder / name for name in ("liba.so", "libb.so", LOADER)}


def test_missing_library_is_named(tree: Path) -> None:
    (tree / "usr/lib/x86_64-linux-gnu/libb.so").unlink()
    with pytest.raises(UntestableError, match=r"needs libb\.so"):
        nested_files(tree)


def test_guest_gets_what_its_qemu_needs_and_no_more(tree: Path) -> None:
    files = nested_files(tree)
    assert sorted(files) == [
        f"nested/lib/{LOADER}",
        "nested/lib/liba.so",
        "nested/lib/libb.so",
        "nested/lib/libmodule.so",
        "nested/lib/qemu/accel-qtest.so",
        "nested/qemu-system-x86_64",
        "nested/share/bios-256k.bin",
        "nested/share/kvmvapic.bin",
    ]
    mode, data = files["nested/qemu-system-x86_64"]
    assert mode & 0o111
    assert data == (tree / "usr/bin/qemu-system-x86_64").read_bytes()


def test_start_names_only_what_the_guest_has(tree: Path) -> None:
    there = {f"/{name}" for name in nested_files(tree)}
    there |= {path.rpartition("/")[0] for path in there}
    paths = [word.rpartition("=")[2] for word in nested_start() if "/" in word]
    assert len(paths) == 5
    assert set(paths) <= there
