# SPDX-License-Identifier: GPL-2.0-or-later
"""What ended a run, and whom that blames."""

from __future__ import annotations

import pytest

from viotest.campaign.causes import blames_guest, cause_of
from viotest.errors import UntestableError
from viotest.guest.errors import GuestError, GuestTimeoutError
from viotest.machine.errors import LaunchError, MonitorError
from viotest.machine.watch import GuestLostError, Loss, LossKind
from viotest.report.results import Category

CONSOLE = tuple(f"line {number}" for number in range(30))


def lost(kind: LossKind) -> GuestLostError:
    return GuestLostError(Loss(kind, f"it was {kind}", 1), CONSOLE)


@pytest.mark.parametrize(
    ("kind", "booted", "before", "guilty"),
    [
        (LossKind.QEMU_EXITED, Category.INFRA, Category.INFRA, False),
        (LossKind.QEMU_STALLED, Category.INFRA, Category.INFRA, False),
        (LossKind.GUEST_PANIC, Category.FAIL, Category.BOOT_FAIL, True),
        (LossKind.GUEST_POWEROFF, Category.FAIL, Category.BOOT_FAIL, True),
        (LossKind.GUEST_INIT_FAILED, Category.FAIL, Category.BOOT_FAIL, True),
        (LossKind.DEVICE_EXITED, Category.INFRA, Category.INFRA, False),
        (LossKind.DEVICE_STALLED, Category.INFRA, Category.INFRA, False),
        (LossKind.DEADLINE, Category.TIMEOUT, Category.BOOT_FAIL, True),
        (LossKind.WATCH_FAILED, Category.INFRA, Category.INFRA, False),
    ],
)
def test_loss_has_a_category(
    kind: LossKind, booted: Category, before: Category, guilty: bool
) -> None:
    error = lost(kind)
    assert cause_of(error, booted=True).category is booted
    assert cause_of(error, booted=False).category is before
    assert blames_guest(error) is guilty
    assert cause_of(error, booted=True).text == f"it was {kind}"


def test_every_loss_is_in_the_table() -> None:
    [mark] = test_loss_has_a_category.pytestmark  # type: ignore[attr-defined]
    assert {row[0] for row in mark.args[1]} == set(LossKind)


def test_console_is_cut_to_its_end() -> None:
    cause = cause_of(lost(LossKind.GUEST_PANIC), booted=True)
    assert cause.console == CONSOLE[-12:]


def test_silent_guest_is_to_blame() -> None:
    error = GuestTimeoutError("vfio-probe: map", 30.0)
    cause = cause_of(error, booted=True, console=CONSOLE)
    assert blames_guest(error)
    assert cause.category is Category.TIMEOUT
    assert cause.text == "vfio-probe: map: no answer from the guest within 30 s"
    assert cause.console == CONSOLE[-12:]


def test_process_that_did_not_start_shows_what_it_said() -> None:
    error = LaunchError(
        "QEMU exited with status 1", argv=("qemu",), status="", output="one\ntwo\n"
    )
    cause = cause_of(error, booted=False)
    assert cause.category is Category.INFRA
    assert cause.text == "QEMU exited with status 1: two"
    assert cause.console == ("one", "two")


@pytest.mark.parametrize(
    "error",
    [UntestableError("no disk"), MonitorError("QEMU refused"), GuestError("ssh: no")],
)
def test_anything_else_says_nothing_about_the_kernel(
    error: UntestableError | GuestError,
) -> None:
    cause = cause_of(error, booted=True, console=CONSOLE)
    assert not blames_guest(error)
    assert cause.category is Category.INFRA
    assert cause.text == str(error)
