# SPDX-License-Identifier: GPL-2.0-or-later
"""Which accelerator a run uses, and why.

``/dev/kvm`` may be there, open, create a machine, and still not run a stock kernel:
only a guest that reaches its beacon proves it. The answer is remembered per host.
"""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from viotest.provision import cache
from viotest.scenario.model import Accel

if TYPE_CHECKING:
    from collections.abc import Callable

_KVM = Path("/dev/kvm")
_MEMO = "kvm"


@dataclass(frozen=True)
class AccelChoice:
    """The accelerator of a run; ``reason`` is shown in its first line."""

    chosen: Accel
    reason: str


def choose_accel(
    asked: Accel, prove: Callable[[], str] | None, qemu: str
) -> AccelChoice:
    """Choose the accelerator.

    :param asked: What the user asked for; anything but ``auto`` is taken as it is.
    :param prove: Boots a guest under KVM; returns why it did not come up, or "".
        None: nothing may be started.
    :param qemu: QEMU's version: another QEMU is another proof.
    :return: The choice, with its reason.
    """
    if asked is not Accel.AUTO:
        return AccelChoice(asked, "asked for")
    if not _KVM.exists():
        return AccelChoice(Accel.TCG, "no /dev/kvm")
    if not os.access(_KVM, os.R_OK | os.W_OK):
        return AccelChoice(Accel.TCG, "/dev/kvm may not be opened by this user")
    key = cache.digest_of(*_host(), qemu)
    failure, how = _remembered(key), "earlier"
    if failure is None:
        if prove is None:
            return AccelChoice(Accel.TCG, "KVM was not proven on this host yet")
        failure, how = prove(), "now"
        cache.write_memo(_MEMO, key, {"failure": failure})
    if failure:
        return AccelChoice(Accel.TCG, f"KVM did not boot, {how}: {failure}")
    return AccelChoice(Accel.KVM, f"KVM booted a guest {how}")


def _remembered(key: str) -> str | None:
    match cache.read_memo(_MEMO, key):
        case {"failure": str(failure)}:
            return failure
    return None


def _host() -> tuple[str, str, str, str]:
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        "",
    )
    machine_id = Path("/etc/machine-id")
    identity = machine_id.read_text().strip() if machine_id.exists() else ""
    return identity, platform.node(), platform.release(), model
