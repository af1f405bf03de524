# SPDX-License-Identifier: GPL-2.0-or-later
"""The endpoint goes to vfio-pci: its group, the binding, and what VFIO asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from viotest.suite.judgement import CheckFailed, expect, refused
from viotest.suite.observe import IOMMU_CAP_CACHE_COHERENCY, parse_capable

if TYPE_CHECKING:
    from viotest.guest.probe import Probe
    from viotest.scenario.model import EndpointFunction, Topology
    from viotest.suite.binding import Binding


def test_group(
    probe: Probe, binding: Binding, topology: Topology, endpoint: EndpointFunction
) -> None:
    iommu_bdf = topology.iommus[0].bdf if topology.iommus else topology.qemu_iommu_bdf
    driver = probe.call("readlink", path=f"/sys/bus/pci/devices/{iommu_bdf}/driver")
    expect(_last(driver["target"]), "virtio-pci", f"driver of {iommu_bdf}")
    names = probe.call("list", path="/sys/bus/virtio/drivers/virtio_iommu")["names"]
    assert isinstance(names, list)
    if not any(name.startswith("virtio") for name in names):
        raise CheckFailed(
            "the virtio_iommu driver is bound to no device",
            cause="its probe failed; the guest's dmesg is in timeline.jsonl",
        )
    if binding.group is None:
        raise CheckFailed(
            f"{endpoint.bdf} is in no IOMMU group",
            cause="the firmware table does not name the endpoint, or ATTACH failed",
        )
    path = f"/sys/kernel/iommu_groups/{binding.group}/devices"
    members = probe.call("list", path=path)["names"]
    expect(members, [endpoint.bdf], f"members of IOMMU group {binding.group}")


def test_bind(binding: Binding) -> None:
    if binding.error is not None:
        raise refused(binding.error, "bind to vfio-pci")
    expect(binding.driver, "vfio-pci", "driver of the endpoint")


def test_coherency(binding: Binding) -> None:
    if binding.no_kprobes:
        pytest.skip(binding.no_kprobes)
    asked = parse_capable(binding.trace)
    answers = [a.answer for a in asked if a.capability == IOMMU_CAP_CACHE_COHERENCY]
    if not answers:
        raise CheckFailed(
            "VFIO did not ask for cache coherency",
            expected="viommu_capable(IOMMU_CAP_CACHE_COHERENCY) called by the bind",
            seen=f"{len(asked)} calls of viommu_capable()",
            cause="this kernel's VFIO lacks the requirement (before e8ae0e140c05),"
            " or the endpoint is behind another IOMMU",
        )
    if not all(answers):
        raise CheckFailed(
            "virtio-iommu does not advertise cache coherency",
            expected="viommu_capable(IOMMU_CAP_CACHE_COHERENCY) = 1",
            seen="0",
            cause="the kernel lacks commit 91c98fe7941 or reverts it",
        )


def _last(target: object) -> str:
    return str(target).rsplit("/", 1)[-1]
