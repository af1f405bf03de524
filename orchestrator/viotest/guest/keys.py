# SPDX-License-Identifier: GPL-2.0-or-later
"""The SSH keys of one run: made for it, gone with it."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)


@dataclass(frozen=True)
class GuestKeys:
    """The guest's host key and the key that may log in; never written to a bundle."""

    host: Ed25519PrivateKey
    client: Ed25519PrivateKey

    @classmethod
    def generate(cls) -> Self:
        """Return new keys."""
        return cls(Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate())

    @property
    def authorized_key(self) -> str:
        """The line for the guest's ``authorized_keys``."""
        return f"{_public_line(self.client)} viotest"

    @property
    def host_public(self) -> bytes:
        """The host's public key, as SSH sends it."""
        return base64.b64decode(_public_line(self.host).split()[1])

    @property
    def client_private(self) -> str:
        """The client's private key, in OpenSSH's text form."""
        return self.client.private_bytes(
            Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()
        ).decode()


def _public_line(key: Ed25519PrivateKey) -> str:
    public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    return public.decode()
