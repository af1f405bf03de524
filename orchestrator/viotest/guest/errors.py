# SPDX-License-Identifier: GPL-2.0-or-later
"""The errors of this package.

Tree::

    ViotestError
     ├── GuestError               the guest answers wrongly, or not at all
     │    └── GuestTimeoutError   no answer in time, from a guest that seems to live
     └── GuestLostError           of viotest.machine.watch: the guest is gone
"""

from __future__ import annotations

from viotest.errors import ViotestError
from viotest.machine.watch import GuestLostError

__all__ = ["GuestError", "GuestLostError", "GuestTimeoutError"]


class GuestError(ViotestError):
    """The guest answers wrongly, or not at all."""


class GuestTimeoutError(GuestError):
    """The guest does not answer in time, though everything around it lives.

    :param what: What was asked of it.
    :param timeout: How long it had, in seconds.
    """

    def __init__(self, what: str, timeout: float) -> None:
        super().__init__(f"{what}: no answer from the guest within {timeout:.3g} s")
        #: How long it had, in seconds.
        self.timeout = timeout
