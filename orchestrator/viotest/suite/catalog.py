# SPDX-License-Identifier: GPL-2.0-or-later
"""Every check by name: what it asks, and whether a verdict needs its answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from viotest.scenario.model import CDEV_MODES, IOMMUFD_MODES, TYPE1_MODES, Mode

if TYPE_CHECKING:
    from collections.abc import Sequence

#: The check for which the guest has the programs of the kernel's own tests.
SELFTESTS = "selftests"
#: The check for which the guest has a QEMU of its own.
NESTED = "nested"


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
    #: Takes half a minute and more: only with ``--thorough``, or by its name.
    thorough: bool = False
    #: Takes minutes, and more than every guest holds: put when ``--check`` names it.
    on_request: bool = False
    #: Modes in which there is something to ask; empty: it is not about the mode.
    modes: tuple[Mode, ...] = ()

    @property
    def patience(self) -> float:
        """How many times the usual deadline of a check it may take."""
        if self.on_request:
            return 10.0
        if self.thorough:
            return 8.0
        return 4.0 if self.slow else 1.0

    def modes_among(self, modes: Sequence[Mode]) -> tuple[Mode, ...]:
        """Return those of ``modes`` in which the check can be put."""
        return tuple(mode for mode in modes if not self.modes or mode in self.modes)


CHECKS: tuple[Check, ...] = (
    Check("group", "IOMMU groups are what the topology says, alone or merged"),
    Check("bind", "vfio-pci accepts the endpoint", required=True),
    Check("coherency", "VFIO asks for cache coherency and virtio-iommu answers yes"),
    Check(
        "iommufd-coherency",
        "iommufd asks for cache coherency too, and virtio-iommu answers yes",
        modes=IOMMUFD_MODES,
    ),
    Check("open", "the device opens, attached to an IOMMU domain", required=True),
    Check("iova-ranges", "what the IOMMU reserves is no address for DMA"),
    Check("bar", "BARs and configuration space can be read and written"),
    Check("no-snoop-enforcement", "VFIO_DMA_CC_IOMMU is 0: snooping is not enforced"),
    Check("dma-read", "the endpoint reads memory, byte for byte", required=True),
    Check("dma-write", "the endpoint writes memory, byte for byte", required=True),
    Check("dma-copy", "the endpoint copies memory, byte for byte", required=True),
    Check("dma-in-flight", "64 transactions at once all arrive"),
    Check("fault-unmapped", "an access outside every mapping faults", required=True),
    Check("fault-permission", "an access against its permission faults", required=True),
    Check("fault-event", "our device put the fault on its event queue, and logged it"),
    # It waits for the rate limit of the guest's kernel, 5 s in each mode.
    Check(
        "fault-flood",
        "more faults than the event queue holds do not silence it",
        slow=True,
    ),
    Check("unmap", "nothing gets through after an unmap", required=True),
    Check("unmap-time", "the device answers an UNMAP at once"),
    Check(
        "reattach",
        "detached, the endpoint reaches nothing; attached again, all that is mapped",
        modes=CDEV_MODES,
    ),
    Check(
        "replace",
        "moved to another address space and back, it sees that one's mappings only",
        modes=CDEV_MODES,
    ),
    Check(
        "hw-info",
        "iommufd promises no page table that virtio-iommu does not have",
        modes=CDEV_MODES,
    ),
    Check("aperture", "the first and the last page of the aperture can be mapped"),
    Check("unaligned", "what is no whole page is refused a mapping"),
    Check("map-requests", "MAP and UNMAP are about exactly the range that was meant"),
    Check("huge-page", "a page of 2 MiB is one request to the IOMMU"),
    Check("map-gigabyte", "1 GiB can be mapped at once"),
    Check("map-conflict", "a mapping over another one is refused, which stays"),
    Check("unmap-part", "a part of a mapping cannot be taken away"),
    Check("remap-under-load", "a page is remapped while DMA runs on both sides of it"),
    Check(
        "map-limit",
        "type1 refuses mappings at its dma_entry_limit, and no earlier",
        modes=TYPE1_MODES,
    ),
    Check("map-64k", "65535 mappings, or more, all translate", thorough=True),
    Check("unmap-race", "DMA in flight ends before an unmap returns"),
    Check(
        "detach-race",
        "DMA in flight ends before a detach returns",
        modes=CDEV_MODES,
    ),
    Check("close-race", "DMA in flight ends before a close returns"),
    Check("race-long", "the same for long, 128 transactions at once", thorough=True),
    Check("interrupt", "every MSI-X vector arrives at its eventfd", required=True),
    Check("intx", "INTx can be masked, and waits until it is unmasked"),
    Check("msi", "every MSI vector arrives at its eventfd"),
    Check("msi-by-dma", "a DMA write of an MSI is that interrupt, and no other"),
    Check("irq-storm", "of thousands of interrupts none is lost"),
    Check("irq-storm-long", "of a hundred thousand none is lost", thorough=True),
    Check("flr", "a function level reset stops and clears the endpoint", required=True),
    Check("nvme-image", "the kernel's nvme driver moves blocks, byte for byte"),
    Check("nvme-passthrough", "the NVMe endpoint works through VFIO as well"),
    Check("ioat-dmatest", "ioatdma copies memory for dmatest without a failure"),
    Check("ioat-passthrough", "the I/OAT endpoint works through VFIO as well"),
    Check("edu-passthrough", "QEMU's edu moves memory through VFIO, byte for byte"),
    Check("igb-passthrough", "QEMU's igb opens through VFIO, and its registers answer"),
    Check(
        "rebind-native",
        "a hundred times between its own driver and vfio-pci, it works",
        thorough=True,
    ),
    Check("isolation", "two endpoints in two domains reach their own mappings only"),
    Check("shared-domain", "two endpoints in one domain reach the same mappings"),
    Check("merged-group", "endpoints of one group share its mappings, and its owner"),
    Check("two-iommus", "endpoints of two virtio-iommus: apart, or one address space"),
    Check("rebind", "unbound and bound again, all of it works again"),
    Check("rebind-often", "a hundred times bound and unbound, it works", slow=True),
    Check(
        "removal", "removed from the guest, an endpoint is detached; found, it works"
    ),
    Check("kill-in-flight", "the DMA of a user that is killed ends with it", slow=True),
    Check("hot-plug", "unplugged and plugged in again, an endpoint works again"),
    Check("unplug-in-use", "an unplug waits for the user, whose DMA goes on"),
    Check(
        SELFTESTS,
        "the kernel's own VFIO selftests pass on the I/OAT endpoint",
        on_request=True,
    ),
    Check(
        NESTED,
        "a QEMU in the guest passes the endpoint on to a machine of its own",
        on_request=True,
        modes=(Mode.TYPE1V2, Mode.CDEV_IOAS),
    ),
    Check("reboot", "after a reboot of the guest everything works again", slow=True),
    Check(
        "kexec",
        "after a kexec everything works again, and no DMA went on",
        thorough=True,
    ),
)

BY_NAME = {check.name: check for check in CHECKS}
NAMES = tuple(BY_NAME)


def check_of_test(function: str) -> Check:
    """Return the check that a test function of the suite puts.

    :param function: The function's name.
    """
    return BY_NAME[function.removeprefix("test_").replace("_", "-")]
