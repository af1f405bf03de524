# SPDX-License-Identifier: GPL-2.0-or-later
"""Look into kernel images: the ELF inside a bzImage, its release, its configuration.

Errors: :class:`ImageError`, when a file is no x86 kernel.
"""

from __future__ import annotations

import bz2
import lzma
import re
import struct
import subprocess
import zlib
from typing import TYPE_CHECKING, NamedTuple

from viotest.errors import UntestableError, UsageError
from viotest.provision.elf import EM_X86_64, XEN_ELFNOTE_PHYS32_ENTRY, Elf, ElfError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

#: No kernel is larger than this unpacked; a bomb is.
MAX_SIZE = 1 << 30
_BANNER = re.compile(rb"Linux version (\S{1,128}) ")
_IKCONFIG = re.compile(rb"IKCFG_ST(\x1f\x8b.*?)IKCFG_ED", re.DOTALL)
_OPTION = re.compile(r"^(?:(CONFIG_\w+)=(.*)|# (CONFIG_\w+) is not set)$", re.MULTILINE)


class ImageError(UsageError):
    """A file is not a kernel that can be booted here."""


class Image(NamedTuple):
    """What an image says about itself."""

    release: str
    #: The kernel proper, an ELF file.
    vmlinux: bytes
    #: It can be entered by PVH, so QEMU can start the ELF file directly.
    pvh: bool


def parse_image(data: bytes) -> Image:
    """Look into a bzImage or a vmlinux.

    :param data: The file.
    :raise ImageError: When it is neither.
    """
    vmlinux = data if data[:4] == b"\x7fELF" else bzimage_payload(data)
    try:
        elf = Elf(vmlinux)
        pvh = elf.has_note(b"Xen", XEN_ELFNOTE_PHYS32_ENTRY)
    except ElfError as error:
        raise ImageError(f"not a kernel: {error}") from error
    if elf.machine != EM_X86_64:
        raise ImageError("not a kernel for x86_64")
    banner = _BANNER.search(vmlinux)
    if banner is None:
        raise ImageError("not a kernel: no 'Linux version' in it")
    return Image(banner[1].decode("ascii", "replace"), vmlinux, pvh)


def bzimage_payload(data: bytes) -> bytes:
    """Return the ELF file that a bzImage unpacks at boot.

    :param data: The bzImage, as Documentation/arch/x86/boot.rst describes it.
    :raise ImageError: When it is not one, or is compressed in an unknown way.
    """
    if len(data) < 0x264 or data[0x202:0x206] != b"HdrS":
        raise ImageError("not a kernel: neither a bzImage nor an ELF file")
    (protocol,) = struct.unpack_from("<H", data, 0x206)
    offset, size = struct.unpack_from("<II", data, 0x248)
    if protocol < 0x208:
        raise ImageError("the kernel is too old: its boot protocol is before 2.08")
    start = ((data[0x1F1] or 4) + 1) * 512 + offset
    payload = data[start : start + size]
    if len(payload) != size:
        raise ImageError("the bzImage is cut short")
    for magic, unpack in _UNPACKERS.items():
        if payload.startswith(magic):
            return _checked(unpack, payload)
    raise ImageError(
        f"the bzImage is compressed in an unknown way: {payload[:4].hex()}"
    )


def write_image(image: Image, data: bytes, folder: Path) -> bool:
    """Write a kernel's ELF file where QEMU can start that instead of a bzImage.

    :param image: What the image says about itself.
    :param data: The image as it was.
    :param folder: Where to write ``vmlinux``.
    :return: Whether it was written.
    :raise ImageError: When the image is an ELF file that cannot be started.
    """
    if data[:4] == b"\x7fELF":
        if not image.pvh:
            hint = "rebuild with CONFIG_PVH=y, or give its bzImage"
            raise ImageError("a vmlinux without a PVH note", hint=hint)
        return False
    if image.pvh:
        (folder / "vmlinux").write_bytes(image.vmlinux)
    return image.pvh


def embedded_config(vmlinux: bytes) -> dict[str, str]:
    """Return the configuration that CONFIG_IKCONFIG keeps in a kernel, or nothing.

    :param vmlinux: The kernel proper.
    """
    match = _IKCONFIG.search(vmlinux)
    if match is None:
        return {}
    try:
        text = zlib.decompressobj(31).decompress(match[1], 16 << 20)
    except zlib.error:
        return {}
    return parse_config(text.decode("utf-8", "replace"))


def parse_config(text: str) -> dict[str, str]:
    """Return the options of a ``.config`` file; those not set have the value ``n``.

    :param text: The file.
    """
    return {
        on or off: value.strip('"') if on else "n"
        for on, value, off in _OPTION.findall(text)
    }


def _checked(unpack: Callable[[bytes], bytes], payload: bytes) -> bytes:
    try:
        return unpack(payload)
    except (zlib.error, lzma.LZMAError, OSError, ValueError) as error:
        raise ImageError(f"the bzImage cannot be unpacked: {error}") from error


def _gunzip(payload: bytes) -> bytes:
    return zlib.decompressobj(31).decompress(payload, MAX_SIZE)


def _unxz(payload: bytes) -> bytes:
    return lzma.LZMADecompressor(memlimit=1 << 28).decompress(payload, MAX_SIZE)


def _bunzip2(payload: bytes) -> bytes:
    return bz2.BZ2Decompressor().decompress(payload, MAX_SIZE)


def _by_tool(tool: str) -> Callable[[bytes], bytes]:
    def unpack(payload: bytes) -> bytes:
        # Kbuild appends the unpacked size, which the tool would take for a frame.
        command = [tool, "-dc"]
        try:
            result = subprocess.run(
                command, input=payload[:-4], capture_output=True, check=False
            )
        except FileNotFoundError as error:
            what = f"{tool} is needed to unpack this kernel"
            raise UntestableError(what, hint=f"install the package {tool}") from error
        if result.returncode != 0:
            raise ValueError(result.stderr.decode("utf-8", "replace").strip())
        return result.stdout

    return unpack


_UNPACKERS: dict[bytes, Callable[[bytes], bytes]] = {
    b"\x1f\x8b": _gunzip,
    b"\xfd7zXZ\x00": _unxz,
    b"\x5d\x00\x00": _unxz,
    b"BZh": _bunzip2,
    b"\x28\xb5\x2f\xfd": _by_tool("zstd"),
    b"\x02\x21\x4c\x18": _by_tool("lz4"),
}
