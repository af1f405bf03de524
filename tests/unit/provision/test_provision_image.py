# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernel images and ELF files, whole and hostile."""

from __future__ import annotations

import bz2
import gzip
import lzma
import random
from typing import TYPE_CHECKING

import pytest

from viotest.provision.elf import Elf, ElfError
from viotest.provision.image import (
    ImageError,
    embedded_config,
    parse_config,
    parse_image,
)

from .conftest import (
    RELEASE,
    gzipped_kernel,
    make_bzimage,
    make_elf,
    make_module,
    make_vmlinux,
)

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.mark.parametrize("pack", [gzip.compress, lzma.compress, bz2.compress])
def test_bzimage_gives_its_vmlinux(pack: Callable[[bytes], bytes]) -> None:
    vmlinux = make_vmlinux()
    # Kbuild appends the size, except for gzip, whose format ends with it.
    image = parse_image(make_bzimage(pack(vmlinux) + b"\x10\x20\x30\x40"))
    assert image.vmlinux == vmlinux
    assert image.release == RELEASE
    assert image.pvh


def test_vmlinux_without_note_is_not_pvh() -> None:
    assert not parse_image(make_vmlinux(pvh=False)).pvh


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "neither a bzImage nor an ELF"),
        (b"#!/bin/sh\n" * 200, "neither a bzImage nor an ELF"),
        (make_elf(b"no banner"), "no 'Linux version'"),
        (make_elf(b"Linux version 6.1 x", machine=183), "not a kernel for x86_64"),
        (b"\x7fELF", "not a kernel"),
        (make_bzimage(b"what is this")[:-1], "cut short"),
        (make_bzimage(b"what is this"), "unknown way: 77686174"),
        (make_bzimage(b"\x1f\x8bbroken"), "cannot be unpacked"),
        (make_bzimage(b"\xfd7zXZ\x00broken"), "cannot be unpacked"),
    ],
)
def test_no_kernel_says_why(data: bytes, reason: str) -> None:
    with pytest.raises(ImageError, match=reason):
        parse_image(data)


def test_damaged_images_never_crash() -> None:
    whole = gzipped_kernel()
    randomness = random.Random(1)
    for _ in range(300):
        data = bytearray(whole)
        for _ in range(randomness.randint(1, 8)):
            data[randomness.randrange(len(data))] = randomness.randrange(256)
        try:
            parse_image(bytes(data[: randomness.randint(0, len(data))]))
        except ImageError:
            continue


def test_damaged_elf_files_never_crash() -> None:
    randomness = random.Random(2)
    for _ in range(300):
        data = bytearray(make_module("a,b"))
        for _ in range(randomness.randint(1, 8)):
            data[randomness.randrange(len(data))] = randomness.randrange(256)
        try:
            elf = Elf(bytes(data))
            elf.section(".modinfo")
            elf.needed()
            elf.interpreter()
            elf.has_note(b"Xen", 18)
        except ElfError:
            continue


def test_config_values() -> None:
    text = (
        'CONFIG_A=y\n# CONFIG_B is not set\nCONFIG_C="text"\n# a comment\nCONFIG_D=m\n'
    )
    expected = {"CONFIG_A": "y", "CONFIG_B": "n", "CONFIG_C": "text", "CONFIG_D": "m"}
    assert parse_config(text) == expected


def test_embedded_config_is_found() -> None:
    packed = gzip.compress(b"CONFIG_IKCONFIG=y\n", mtime=0)
    assert embedded_config(b"x" * 9 + b"IKCFG_ST" + packed + b"IKCFG_ED") == {
        "CONFIG_IKCONFIG": "y"
    }
    assert embedded_config(b"IKCFG_ST\x1f\x8bbrokenIKCFG_ED") == {}
    assert embedded_config(b"nothing") == {}
