# SPDX-License-Identifier: GPL-2.0-or-later
"""Gives the endpoint to vfio-pci, once per guest, and keeps what was seen."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import TYPE_CHECKING

from viotest.guest.probe import Probe, ProbeError
from viotest.scenario.model import CDEV_MODES
from viotest.suite.judgement import CheckFailed, refused
from viotest.suite.observe import Questions, watch_questions

if TYPE_CHECKING:
    from viotest.scenario.model import EndpointFunction, Mode

VFIO_DRIVER = "vfio-pci"


@dataclass(frozen=True)
class Binding:
    """What came of the attempt to bind; a refusal is a finding, not an error."""

    #: The kernel's refusal; None if it agreed.
    error: ProbeError | None
    #: The endpoint's driver afterwards; None if it has none.
    driver: str | None
    #: The endpoint's IOMMU group; None if it is in none.
    group: str | None
    #: The name of its file in /dev/vfio/devices; None if it has none.
    device: str | None
    #: What virtio-iommu was asked during the bind.
    questions: Questions

    def node(self, mode: Mode) -> str:
        """Return the file by which ``mode`` enters VFIO."""
        if mode in CDEV_MODES:
            return f"/dev/vfio/devices/{self.device}"
        return f"/dev/vfio/{self.group}"


def bind(probe: Probe, endpoint: EndpointFunction, *, traced: bool = True) -> Binding:
    """Bind an endpoint to vfio-pci with the eyes open.

    :param probe: The guest's probe.
    :param endpoint: The endpoint.
    :param traced: Watch viommu_capable() meanwhile; that takes the guest a while.
    :return: What was seen; refusals of the bind included.
    """
    questions = Questions(no_kprobes="not traced")
    error = None
    try:
        with watch_questions(probe, wanted=traced) as questions:
            probe.call("bind", bdf=endpoint.bdf, driver=VFIO_DRIVER)
    except ProbeError as refusal:
        if refusal.command != "bind":
            raise
        error = refusal
    device = f"/sys/bus/pci/devices/{endpoint.bdf}"
    return Binding(
        error=error,
        driver=_link(probe, f"{device}/driver"),
        group=find_group(probe, endpoint.bdf),
        device=_device_file(probe, device),
        questions=questions,
    )


def ensure_bound(probe: Probe, endpoint: EndpointFunction) -> None:
    """Give an endpoint to vfio-pci, if that does not have it already.

    :raise CheckFailed: When the kernel refuses.
    """
    try:
        probe.call("bind", bdf=endpoint.bdf, driver=VFIO_DRIVER)
    except ProbeError as error:
        group = find_group(probe, endpoint.bdf)
        raise bind_refused(error, group, f"bind of {endpoint.bdf}") from error


def bind_refused(error: ProbeError, group: str | None, what: str) -> CheckFailed:
    """Turn the kernel's refusal to bind an endpoint to vfio-pci into a failed check.

    EINVAL is said to an endpoint without an IOMMU group as well as to one whose
    IOMMU does not advertise cache coherency.

    :param error: The refusal.
    :param group: The endpoint's IOMMU group after it; None if it is in none.
    :param what: What the check was about, e.g. ``second bind``.
    """
    if group is not None or (error.op, error.errno) != ("bind", errno.EINVAL):
        return refused(error, what)
    return CheckFailed(
        f"{what} to vfio-pci failed with {error.error}: no IOMMU group",
        expected="the endpoint is behind the virtio-iommu",
        seen="it is in no IOMMU group, and vfio-pci takes no such device",
        step="the check group, and the guest's dmesg in timeline.jsonl",
    )


def find_group(probe: Probe, bdf: str) -> str | None:
    """Return the IOMMU group of a PCI function; None if it is in none."""
    return _link(probe, f"/sys/bus/pci/devices/{bdf}/iommu_group")


def ensure_group(probe: Probe, endpoint: EndpointFunction) -> None:
    """Let the guest's kernel look for the IOMMU of an endpoint, if it has not.

    Until Linux 6.15 a function joins its group when a driver is bound to it first.
    The endpoint is left without a driver then; a refusal to bind changes nothing.
    """
    if find_group(probe, endpoint.bdf) is None:
        bound = bind(probe, endpoint, traced=False)
        if bound.driver is not None:
            probe.call("unbind", bdf=endpoint.bdf)


def _device_file(probe: Probe, device: str) -> str | None:
    try:
        names = probe.call("list", path=f"{device}/vfio-dev")["names"]
    except ProbeError:
        # No such folder: no driver of VFIO holds it, or the kernel is before 6.1.
        return None
    assert isinstance(names, list)
    return str(names[0]) if names else None


def _link(probe: Probe, path: str) -> str | None:
    try:
        return str(probe.call("readlink", path=path)["target"]).rsplit("/", 1)[-1]
    except ProbeError:
        # No such link: the device has no driver, or is in no group.
        return None
