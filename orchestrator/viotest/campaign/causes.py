# SPDX-License-Identifier: GPL-2.0-or-later
"""What a broken run is to be blamed on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from viotest.guest.errors import GuestTimeoutError
from viotest.machine.errors import LaunchError
from viotest.machine.watch import GuestLostError, LossKind
from viotest.report.results import Category, Cause

if TYPE_CHECKING:
    from collections.abc import Sequence

    from viotest.errors import ViotestError

# Losses that are the guest's own doing: after the beacon they are a failure of the
# check that was running. Everything else says nothing about the kernel.
_GUESTS_OWN = frozenset(
    {
        LossKind.GUEST_PANIC,
        LossKind.GUEST_POWEROFF,
        LossKind.GUEST_INIT_FAILED,
        LossKind.DEADLINE,
    }
)
_CONSOLE_LINES = 12


def blames_guest(error: ViotestError) -> bool:
    """Return whether the guest itself panicked, hung or went away."""
    if isinstance(error, GuestTimeoutError):
        return True  # it is silent while everything around it lives
    return isinstance(error, GuestLostError) and error.loss.kind in _GUESTS_OWN


def cause_of(
    error: ViotestError, *, booted: bool, console: Sequence[str] = ()
) -> Cause:
    """Name the cause of a run that could not go on.

    :param error: What ended it.
    :param booted: The guest had sent its readiness beacon.
    :param console: The console's last lines, for errors that do not bring them.
    :return: The cause, with the console's last lines if there was a guest.
    """
    if isinstance(error, GuestLostError):
        return Cause(
            _category(error.loss.kind, booted=booted),
            error.loss.detail,
            error.console_tail[-_CONSOLE_LINES:],
        )
    tail = tuple(console[-_CONSOLE_LINES:])
    if isinstance(error, GuestTimeoutError):
        return Cause(Category.TIMEOUT, str(error), tail)
    if isinstance(error, LaunchError):
        output = tuple(error.output.splitlines()[-_CONSOLE_LINES:])
        return Cause(Category.INFRA, error.what, output)
    return Cause(Category.INFRA, str(error), tail)


def _category(kind: LossKind, *, booted: bool) -> Category:
    if kind is LossKind.DEADLINE:
        return Category.TIMEOUT if booted else Category.BOOT_FAIL
    if kind in _GUESTS_OWN:
        return Category.FAIL if booted else Category.BOOT_FAIL
    return Category.INFRA
