# SPDX-License-Identifier: GPL-2.0-or-later
"""The base of every error that viotest raises on purpose.

Tree (leaves live beside the code that raises them)::

    ViotestError
     ├── UsageError            the user's input is wrong: exit 2, nothing started
     └── UntestableError       the host, QEMU, the device or an asset failed: exit 125
"""

from __future__ import annotations


class ViotestError(Exception):
    """Something went wrong that a person can act on.

    :param what: One line: what is wrong and where.
    :param hint: The likely cause or the next step, one line; may be empty.
    """

    def __init__(self, what: str, *, hint: str = "") -> None:
        super().__init__(what)
        #: What is wrong, one line.
        self.what = what
        #: What to do about it, one line; may be empty.
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.what} ({self.hint})" if self.hint else self.what


class UsageError(ViotestError):
    """An option, a file named by one, or a configuration is wrong."""


class UntestableError(ViotestError):
    """The question could not be put: nothing is known about the kernel."""
