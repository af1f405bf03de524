# SPDX-License-Identifier: GPL-2.0-or-later
"""What one run adds to the guest's image: its keys and module parameters."""

from __future__ import annotations

import re
import struct
from typing import TYPE_CHECKING

from viotest.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

_PARAMETER = re.compile(r"\w+ \w+=[^\s]+")


def run_overlay(
    host_key: Ed25519PrivateKey, authorized_key: str, module_params: Iterable[str] = ()
) -> Mapping[str, tuple[int, bytes]]:
    """Return the files of a run, for :func:`~viotest.provision.cpio.overlay_cpio`.

    :param host_key: The guest's SSH host key.
    :param authorized_key: The public key that may log in, one OpenSSH line.
    :param module_params: Lines ``module name=value``.
    :raise UsageError: When a parameter is not of that form.
    """
    lines = list(module_params)
    for line in lines:
        if not _PARAMETER.fullmatch(line):
            raise UsageError(f"module parameter {line!r} is not 'module name=value'")
    text = "".join(f"{line}\n" for line in lines)
    return {
        "root/.ssh/authorized_keys": (0o600, f"{authorized_key.strip()}\n".encode()),
        "viotest/dropbear_host_key": (0o600, dropbear_key(host_key)),
        "viotest/module-params": (0o600, text.encode()),
    }


def dropbear_key(key: Ed25519PrivateKey) -> bytes:
    """Return a private key in the format that dropbear keeps on disk.

    :param key: The key.
    :return: The SSH strings "ssh-ed25519" and private key followed by public key.
    """
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
        PublicFormat,
    )

    raw = (Encoding.Raw, PrivateFormat.Raw, NoEncryption())
    pair = key.private_bytes(*raw)
    pair += key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    return _ssh_string(b"ssh-ed25519") + _ssh_string(pair)


def _ssh_string(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data
