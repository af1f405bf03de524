# SPDX-License-Identifier: GPL-2.0-or-later
"""Every check by name: what it asks, and whether a verdict needs its answer."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Check:
    """One question to the kernel under test."""

    #: What ``--check`` matches; the test is ``test_`` + name with underscores.
    name: str
    #: What a pass means, one line.
    title: str
    #: A skip of a required check makes the run ``UNTESTED``.
    required: bool = False
    #: Left out of the shortest run: one endpoint, and no ``--check`` that names it.
    slow: bool = False


CHECKS: tuple[Check, ...] = (
    Check("group", "IOMMU groups are what the topology says, alone or merged"),
    Check("bind", "vfio-pci accepts the endpoint", required=True),
    Check("coherency", "VFIO asks for cache coherency and virtio-iommu answers yes"),
    Check("open", "the group opens and the container attaches", required=True),
    Check("bar", "BARs and configuration space can be read and written"),
    Check("no-snoop-enforcement", "VFIO_DMA_CC_IOMMU is 0: snooping is not enforced"),
    Check("dma-read", "the endpoint reads memory, byte for byte", required=True),
    Check("dma-write", "the endpoint writes memory, byte for byte", required=True),
    Check("dma-copy", "the endpoint copies memory, byte for byte", required=True),
    Check("dma-in-flight", "64 transactions at once all arrive"),
    Check("fault-unmapped", "an access outside every mapping faults", required=True),
    Check("fault-permission", "an access against its permission faults", required=True),
    Check("fault-event", "our device put the fault on its event queue, and logged it"),
    Check("unmap", "nothing gets through after an unmap", required=True),
    Check("interrupt", "every MSI-X vector arrives at its eventfd", required=True),
    Check("flr", "a function level reset stops and clears the endpoint", required=True),
    Check("isolation", "two endpoints in two domains reach their own mappings only"),
    Check("shared-domain", "two endpoints in one domain reach the same mappings"),
    Check("merged-group", "endpoints of one group share its mappings, and its owner"),
    Check("two-iommus", "endpoints of two virtio-iommus: apart, or one address space"),
    Check("rebind", "unbound and bound again, all of it works again"),
    Check("rebind-often", "a hundred times bound and unbound, it works", slow=True),
    Check("kill-in-flight", "the DMA of a user that is killed ends with it", slow=True),
    Check("hot-plug", "unplugged and plugged in again, an endpoint works again"),
    Check("unplug-in-use", "an unplug waits for the user, whose DMA goes on"),
    Check("reboot", "after a reboot of the guest everything works again", slow=True),
)

BY_NAME = {check.name: check for check in CHECKS}
NAMES = tuple(BY_NAME)
