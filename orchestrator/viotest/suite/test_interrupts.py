# SPDX-License-Identifier: GPL-2.0-or-later
"""Interrupts beyond one MSI-X vector after the other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from viotest.suite import interrupts
from viotest.suite.observe import DeviceWatch

if TYPE_CHECKING:
    from viotest.report.device_log import DeviceLog
    from viotest.suite.passthrough import Passthrough


def test_intx(vfio: Passthrough) -> None:
    interrupts.intx(vfio)


def test_msi(vfio: Passthrough) -> None:
    interrupts.msi(vfio)


def test_msi_by_dma(
    vfio: Passthrough, iommu_log: DeviceLog | None, msi_window: tuple[int, int] | None
) -> None:
    if iommu_log is None:
        pytest.skip("behind QEMU's IOMMU a write to the window is QEMU's business")
    if msi_window is None:
        pytest.skip("this machine has no fixed window of interrupts")
    interrupts.msi_by_dma(vfio, DeviceWatch(iommu_log), msi_window)


def test_irq_storm(vfio: Passthrough) -> None:
    interrupts.storm(vfio, 1000)


def test_irq_storm_long(vfio: Passthrough) -> None:
    interrupts.storm(vfio, 20_000)
