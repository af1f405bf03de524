# SPDX-License-Identifier: GPL-2.0-or-later
"""The endpoint goes to vfio-pci: its group, the binding, and what VFIO asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from viotest.scenario.topology import expected_groups
from viotest.suite.binding import bind_refused, ensure_group, find_group
from viotest.suite.judgement import CheckFailed, expect

if TYPE_CHECKING:
    from viotest.guest.probe import Probe
    from viotest.scenario.model import Topology
    from viotest.suite.binding import Binding


def test_group(probe: Probe, binding: Binding, topology: Topology) -> None:
    _expect_iommus(probe, topology)
    for endpoint in topology.endpoints:
        ensure_group(probe, endpoint)
    for members in expected_groups(topology):
        _expect_group(probe, members, qemus=topology.qemu_iommu_bdf is not None)


def _expect_iommus(probe: Probe, topology: Topology) -> None:
    bdfs = [iommu.bdf for iommu in topology.iommus]
    if topology.qemu_iommu_bdf is not None:
        bdfs.append(topology.qemu_iommu_bdf)
    for bdf in bdfs:
        driver = probe.call("readlink", path=f"/sys/bus/pci/devices/{bdf}/driver")
        expect(_last(driver["target"]), "virtio-pci", f"driver of {bdf}")
    names = probe.call("list", path="/sys/bus/virtio/drivers/virtio_iommu")["names"]
    assert isinstance(names, list)
    bound = [name for name in names if name.startswith("virtio")]
    if len(bound) != len(bdfs):
        raise CheckFailed(
            f"the virtio_iommu driver is bound to {len(bound)} of {len(bdfs)} devices",
            cause="its probe failed; the guest's dmesg is in timeline.jsonl",
        )


_QEMU_ALIAS = (
    "QEMU's virtio-iommu knows what is behind a PCIe-to-PCI bridge only by the"
    " bridge's alias; Linux asks by the function's own id, and is told NOENT"
)


def _expect_group(probe: Probe, members: frozenset[str], *, qemus: bool) -> None:
    known = _QEMU_ALIAS if qemus and len(members) > 1 else ""
    for bdf in sorted(members):
        group = find_group(probe, bdf)
        if group is None:
            raise CheckFailed(
                f"{bdf} is in no IOMMU group",
                cause=known or "the firmware table does not name it, or ATTACH failed",
            )
        path = f"/sys/kernel/iommu_groups/{group}/devices"
        seen = probe.call("list", path=path)["names"]
        assert isinstance(seen, list)
        expect(
            ", ".join(sorted(map(str, seen))),
            ", ".join(sorted(members)),
            f"IOMMU group {group} of {bdf}",
            cause=known
            or "the kernel merges or isolates other functions than the buses do",
        )


def test_bind(binding: Binding) -> None:
    if binding.error is not None:
        raise bind_refused(binding.error, binding.group, "bind")
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
