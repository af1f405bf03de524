# SPDX-License-Identifier: GPL-2.0-or-later
"""Gives the endpoint to vfio-pci, once per guest, and keeps what was seen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from viotest.guest.probe import Probe, ProbeError
from viotest.suite.observe import KPROBES

if TYPE_CHECKING:
    from viotest.scenario.model import EndpointFunction

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
    #: tracefs lines of the probes on viommu_capable() during the bind.
    trace: tuple[str, ...]
    #: Why there are no such lines; empty if there may be.
    no_kprobes: str


def bind(probe: Probe, endpoint: EndpointFunction, *, traced: bool = True) -> Binding:
    """Bind an endpoint to vfio-pci with the eyes open.

    :param probe: The guest's probe.
    :param endpoint: The endpoint.
    :param traced: Watch viommu_capable() meanwhile; that takes the guest a while.
    :return: What was seen; refusals of the bind included.
    """
    no_kprobes = _set_kprobes(probe) if traced else "not traced"
    error = None
    try:
        probe.call("bind", bdf=endpoint.bdf, driver=VFIO_DRIVER)
    except ProbeError as refusal:
        error = refusal
    trace: list[object] = []
    if not no_kprobes:
        lines = probe.call("trace-read")["lines"]
        assert isinstance(lines, list)
        trace = lines
        probe.call("kprobe-clear")
    device = f"/sys/bus/pci/devices/{endpoint.bdf}"
    return Binding(
        error=error,
        driver=_link(probe, f"{device}/driver"),
        group=find_group(probe, endpoint.bdf),
        trace=tuple(str(line) for line in trace),
        no_kprobes=no_kprobes,
    )


def ensure_bound(probe: Probe, endpoint: EndpointFunction) -> None:
    """Give an endpoint to vfio-pci, if that does not have it already.

    :raise ProbeError: When the kernel refuses.
    """
    probe.call("bind", bdf=endpoint.bdf, driver=VFIO_DRIVER)


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


def _set_kprobes(probe: Probe) -> str:
    try:
        for spec in KPROBES:
            probe.call("kprobe-set", spec=spec)
    except ProbeError as error:
        return f"no kprobe events in this kernel (CONFIG_KPROBE_EVENTS): {error.text}"
    return ""


def _link(probe: Probe, path: str) -> str | None:
    try:
        return str(probe.call("readlink", path=path)["target"]).rsplit("/", 1)[-1]
    except ProbeError:
        # No such link: the device has no driver, or is in no group.
        return None
