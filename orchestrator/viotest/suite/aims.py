# SPDX-License-Identifier: GPL-2.0-or-later
"""Which checks are aimed at which defect of the device: :data:`DEVICE_AIMS`.

The defects and their names are the device's (``viotest-device mutants``); a test
compares. A kernel mutant says the same in the header of its patch.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Aim:
    """What is to notice a defect, and how."""

    #: Checks of the catalog that look for just this; shell patterns.
    checks: tuple[str, ...] = ()
    #: What the run's cause has to say instead, where no check can fail: the guest's
    #: world ends, and that must not be taken for the guest's fault.
    cause: str = ""
    #: Without checks: what would have to be looked at.
    wanted: str = ""
    #: Why no guest can see it; empty if one can.
    unobservable: str = ""


_DMA = ("dma-read", "dma-write", "dma-copy")
_NATIVE = ("nvme-image", "nvme-passthrough", "ioat-dmatest", "ioat-passthrough")

DEVICE_AIMS: dict[str, Aim] = {
    "ignore-unmap": Aim(("unmap", "unmap-race", "race-long", "nested")),
    "ignore-permissions": Aim(("fault-permission",)),
    "translate-off-by-page": Aim((*_DMA, *_NATIVE, "nested")),
    "lose-fault-event": Aim(("fault-unmapped", "fault-permission", "fault-event")),
    "drop-interrupt": Aim(
        ("interrupt", "intx", "msi", "msi-by-dma", "irq-storm", "nested")
    ),
    # Later than all that the shorter checks of interrupts ask for together.
    "lose-rare-interrupt": Aim(("irq-storm-long",)),
    "ignore-reset": Aim(("flr", "reboot")),
    "accept-map-ignore": Aim((*_DMA, *_NATIVE, "nested")),
    "ignore-detach": Aim(("removal",)),
    "ignore-attach": Aim(_DMA),
    "empty-probe": Aim(("iova-ranges",)),
    # Linux copies no answer of another length than it expects: PROBE's are lost.
    "short-used-len": Aim(("iova-ranges",)),
    # The guest's virtqueue is broken after it, and its next request never ends.
    "answer-twice": Aim((*_DMA, "unmap")),
    "fail-map": Aim(_DMA),
    "fail-rare-map": Aim(("map-64k",)),
    "slow-unmap": Aim(("unmap-time",)),
    "drop-request": Aim(_DMA),
    "leak-between-domains": Aim(("isolation",)),
    "stall-queue": Aim(_DMA),
    "die": Aim(cause="viotest-device"),
}
