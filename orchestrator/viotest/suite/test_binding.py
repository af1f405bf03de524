# SPDX-License-Identifier: GPL-2.0-or-later
"""The endpoint goes to vfio-pci: its group, the binding, and what VFIO asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from viotest.suite.judgement import CheckFailed, expect, refused

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
    if binding.questions.no_kprobes:
        pytest.skip(binding.questions.no_kprobes)
    binding.questions.expect_coherency(
        "VFIO",
        cause="this kernel's VFIO lacks the requirement (before e8ae0e140c05),"
        " or the endpoint is behind another IOMMU",
    )


def _last(target: object) -> str:
    return str(target).rsplit("/", 1)[-1]
