# SPDX-License-Identifier: GPL-2.0-or-later
"""The errors of this package.

Tree::

    ViotestError
     ├── UntestableError
     │    └── TargetLostError      the target died, or no longer answers
     └── VerdictError
          ├── MismatchError        the device does not do what the row wants
          └── NotApplicableError   the row does not ask anything of this device
"""

from __future__ import annotations

from viotest.errors import UntestableError, ViotestError


class TargetLostError(UntestableError):
    """QEMU or the device is gone, or its hardware does not answer."""


class VerdictError(ViotestError):
    """A row's verdict other than pass, on its way to the score."""


class MismatchError(VerdictError):
    """The device does not do what the row wants.

    :param expected: What the specification asks for here.
    :param seen: What the device did.
    """

    def __init__(self, expected: str, seen: str) -> None:
        super().__init__(f"expected {expected}; seen {seen}")
        #: What the specification asks for here.
        self.expected = expected
        #: What the device did.
        self.seen = seen


class NotApplicableError(VerdictError):
    """The row does not ask anything of this device; the text says why."""
