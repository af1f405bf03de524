# SPDX-License-Identifier: GPL-2.0-or-later
"""Archives: the same bytes every time, and several behind each other."""

from __future__ import annotations

import base64
import io
import stat
import struct
from typing import TYPE_CHECKING, NamedTuple

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from viotest.errors import UsageError
from viotest.provision.cpio import (
    BLOCK,
    CpioWriter,
    concat_initramfs,
    overlay_cpio,
)
from viotest.provision.overlay import run_overlay

if TYPE_CHECKING:
    from pathlib import Path


class Item(NamedTuple):
    mode: int
    data: bytes
    fields: tuple[int, ...]


def read_archives(data: bytes) -> dict[str, Item]:
    """Unpack archives in a row as the kernel does: zeros between them are skipped."""
    items = {}
    offset = 0
    while data[offset:].strip(b"\0"):
        while data[offset] == 0:
            offset += 1
        assert offset % 4 == 0
        assert data[offset : offset + 6] == b"070701"
        head = data[offset + 6 : offset + 110]
        fields = tuple(int(head[at : at + 8], 16) for at in range(0, 104, 8))
        begin = -(-(offset + 110 + fields[11]) // 4) * 4
        name = data[offset + 110 : offset + 109 + fields[11]].decode()
        items[name] = Item(fields[1], data[begin : begin + fields[6]], fields)
        offset = -(-(begin + fields[6]) // 4) * 4
    return items


def make_base() -> bytes:
    buffer = io.BytesIO()
    writer = CpioWriter(buffer)
    writer.folder("root", 0o700)
    writer.character_device("dev/console", 0o600, 5, 1)
    writer.file("bin/busybox", b"program", 0o755)
    writer.link("init", "bin/busybox")
    writer.close()
    return buffer.getvalue()


def test_archive_holds_what_was_written() -> None:
    items = read_archives(make_base())
    order = ["root", "dev", "dev/console", "bin", "bin/busybox", "init", "TRAILER!!!"]
    assert list(items) == order
    assert items["bin/busybox"][:2] == (stat.S_IFREG | 0o755, b"program")
    assert items["init"][:2] == (stat.S_IFLNK | 0o777, b"bin/busybox")
    assert items["root"].mode == stat.S_IFDIR | 0o700
    assert items["dev/console"].fields[9:11] == (5, 1)


def test_archive_has_no_date_owner_or_host() -> None:
    assert make_base() == make_base()
    for item in read_archives(make_base()).values():
        assert item.fields[2:4] == (0, 0)
        assert item.fields[5] == 0


def test_overlay_goes_behind_a_base(tmp_path: Path) -> None:
    base = tmp_path / "base"
    base.write_bytes(make_base())
    assert len(make_base()) % BLOCK == 0
    overlay = overlay_cpio({"root/.ssh/authorized_keys": (0o600, b"key\n")})
    concat_initramfs(base, overlay, tmp_path / "out")
    whole = (tmp_path / "out").read_bytes()
    assert whole == make_base() + overlay
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o600
    items = read_archives(whole)
    assert items["bin/busybox"].data == b"program"
    assert items["root/.ssh/authorized_keys"][:2] == (stat.S_IFREG | 0o600, b"key\n")
    assert items["root/.ssh"].mode == stat.S_IFDIR | 0o700


def test_path_that_leaves_the_root_is_a_bug() -> None:
    for name in ("/etc/passwd", "../x", "a/../../x"):
        with pytest.raises(AssertionError):
            overlay_cpio({name: (0o600, b"")})


def test_run_overlay_has_keys_and_parameters() -> None:
    host_key = Ed25519PrivateKey.generate()
    files = run_overlay(host_key, "ssh-ed25519 AAAA me ", ["vfio_iommu_type1 a=1"])
    assert files["root/.ssh/authorized_keys"] == (0o600, b"ssh-ed25519 AAAA me\n")
    assert files["viotest/module-params"] == (0o600, b"vfio_iommu_type1 a=1\n")
    mode, key = files["viotest/dropbear_host_key"]
    assert mode == 0o600
    (size,) = struct.unpack(">I", key[:4])
    assert key[4 : 4 + size] == b"ssh-ed25519"
    assert key[4 + size : 8 + size] == struct.pack(">I", 64)
    # The public half is what an OpenSSH line of the same key ends with.
    line = host_key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    assert base64.b64decode(line.split()[1])[-32:] == key[-32:]
    assert len(key) == 8 + size + 64


@pytest.mark.parametrize(
    "line", ["", "module", "module name", "m a=1\nn b=2", "m a=1 b"]
)
def test_malformed_parameter_is_refused(line: str) -> None:
    with pytest.raises(UsageError, match="is not 'module name=value'"):
        run_overlay(Ed25519PrivateKey.generate(), "key", [line])
