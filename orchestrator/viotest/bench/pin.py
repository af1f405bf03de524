# SPDX-License-Identifier: GPL-2.0-or-later
"""Keeps a guest's CPUs and its device on different processors.

A device that looks at its ring while the guest's CPU waits for the same processor
measures the host's scheduler, and nothing else. What is compared with us may run where
it wants: QEMU's other threads, and the device behind QEMU's IOMMU.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from viotest.scenario.model import Iommu

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from viotest.campaign.session import Session


def share_out(
    vcpus: Sequence[int], device: Sequence[int], processors: Collection[int]
) -> dict[int, frozenset[int]]:
    """Return which thread may run where.

    :param vcpus: Threads that get a processor each.
    :param device: Threads that share what is left.
    :param processors: What there is.
    :return: Empty if nothing would be left.
    """
    order = sorted(processors)
    rest = frozenset(order[len(vcpus) :])
    if not rest:
        return {}
    places = {
        thread: frozenset({processor})
        for thread, processor in zip(vcpus, order, strict=False)
    }
    return places | dict.fromkeys(device, rest)


def pin(session: Session) -> bool:
    """Pin the threads of a guest's CPUs, and of its device if that is its IOMMU.

    :return: False if the processors are too few, and nothing was done.
    """
    ours = session.scenario.iommu is Iommu.VIOTEST
    device = session.device_threads() if ours else []
    places = share_out(session.vcpu_threads(), device, os.sched_getaffinity(0))
    for thread, where in places.items():
        os.sched_setaffinity(thread, where)
    return bool(places)
