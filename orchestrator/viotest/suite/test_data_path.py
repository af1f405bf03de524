# SPDX-License-Identifier: GPL-2.0-or-later
"""The endpoint in userspace's hands: access, DMA, faults, interrupts, reset."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from viotest.guest.probe import ProbeError
from viotest.suite import flood, steps
from viotest.suite.judgement import expect, refused
from viotest.suite.observe import watch_questions

if TYPE_CHECKING:
    from viotest.guest.probe import Probe
    from viotest.report.device_log import DeviceLog
    from viotest.scenario.model import Mode
    from viotest.suite.binding import Binding
    from viotest.suite.conftest import Opener
    from viotest.suite.passthrough import Passthrough
    from viotest.suite.steps import FaultReasons

sizes = pytest.mark.parametrize("size", list(steps.SIZES))


def test_iommufd_coherency(
    opener: Opener, probe: Probe, bound: Binding, offered: Mode
) -> None:
    if bound.questions.no_kprobes:
        pytest.skip(bound.questions.no_kprobes)
    opener.close()
    try:
        with watch_questions(probe) as questions:
            opener.open(offered)
    except ProbeError as error:
        raise refused(error, "open") from error
    questions.expect_coherency(
        "iommufd",
        cause="this kernel's iommufd lacks the requirement (iommufd/device.c), or the"
        " endpoint is behind another IOMMU",
    )


def test_open(vfio: Passthrough, bound: Binding) -> None:
    expect(vfio.node, bound.node(vfio.mode), "file that was opened")


def test_iova_ranges(
    vfio: Passthrough, bound: Binding, msi_window: tuple[int, int] | None
) -> None:
    assert bound.group is not None
    steps.iova_ranges(vfio, bound.group, msi_window)


def test_bar(vfio: Passthrough) -> None:
    steps.bars(vfio)
    steps.bus_master(vfio)


def test_no_snoop_enforcement(vfio: Passthrough) -> None:
    seen = vfio.probe.call("extension", id="VFIO_DMA_CC_IOMMU")["value"]
    expect(
        seen,
        0,
        "VFIO_DMA_CC_IOMMU",
        cause="virtio-iommu has no enforce_cache_coherency; something else answers",
    )


@sizes
def test_dma_read(vfio: Passthrough, size: str) -> None:
    for length, offset in steps.SIZES[size]:
        steps.dma_read(vfio, length, offset)


@sizes
def test_dma_write(vfio: Passthrough, size: str) -> None:
    for length, offset in steps.SIZES[size]:
        steps.dma_write(vfio, length, offset)


@sizes
def test_dma_copy(vfio: Passthrough, size: str) -> None:
    for length, offset in steps.SIZES[size]:
        steps.dma_copy(vfio, length, offset)


def test_dma_in_flight(vfio: Passthrough) -> None:
    steps.dma_in_flight(vfio)


def test_fault_unmapped(vfio: Passthrough, fault_reasons: FaultReasons) -> None:
    steps.fault_unmapped(vfio, fault_reasons)


def test_fault_permission(vfio: Passthrough, fault_reasons: FaultReasons) -> None:
    steps.fault_permission(vfio, fault_reasons)


def test_fault_event(vfio: Passthrough, iommu_log: DeviceLog | None) -> None:
    if iommu_log is None:
        pytest.skip("the guest's IOMMU is QEMU's: it keeps no log for us to read")
    steps.fault_event(vfio, iommu_log)


def test_fault_flood(
    vfio: Passthrough, fault_reasons: FaultReasons, iommu_log: DeviceLog | None
) -> None:
    flood.fault_flood(vfio, fault_reasons, iommu_log)


def test_unmap(vfio: Passthrough, fault_reasons: FaultReasons) -> None:
    steps.unmap(vfio, fault_reasons)


def test_unmap_time(vfio: Passthrough, iommu_log: DeviceLog | None) -> None:
    if iommu_log is None:
        pytest.skip("the guest's IOMMU is QEMU's: it keeps no log for us to read")
    flood.unmap_time(vfio, iommu_log)


def test_reattach(vfio: Passthrough, fault_reasons: FaultReasons) -> None:
    steps.reattach(vfio, fault_reasons)


def test_replace(vfio: Passthrough, fault_reasons: FaultReasons) -> None:
    steps.replace(vfio, fault_reasons)


def test_hw_info(vfio: Passthrough) -> None:
    steps.hw_info(vfio)


def test_interrupt(vfio: Passthrough) -> None:
    if not vfio.nr_vectors():
        pytest.skip("the first dma engine has no MSI-X: it is there to be unplugged")
    steps.interrupts(vfio)


def test_flr(vfio: Passthrough) -> None:
    steps.flr(vfio)
