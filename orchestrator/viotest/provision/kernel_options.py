# SPDX-License-Identifier: GPL-2.0-or-later
"""What a guest needs of its kernel; docs/kernel-options.md is the same for people.

The main function is :func:`missing_options`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class Option:
    """A kernel option and what it is needed for."""

    name: str
    reason: str
    #: Not needed (or not known) by kernels before this one.
    since: tuple[int, int] = (0, 0)


#: Without one of these, as ``y`` or ``m``, nothing can be tested.
REQUIRED_OPTIONS = (
    Option("CONFIG_VIRTIO_IOMMU", "the driver under test"),
    Option("CONFIG_ACPI_VIOT", "finds the virtio-iommu and its endpoints"),
    Option("CONFIG_VIRTIO_PCI", "the virtio-iommu is a PCI function"),
    Option("CONFIG_VIRTIO_NET", "the network card that carries SSH"),
    Option("CONFIG_VFIO", "passthrough itself"),
    Option("CONFIG_VFIO_PCI", "the driver that endpoints are bound to"),
    Option("CONFIG_PCI_MSI", "interrupts of the virtio-iommu and of endpoints"),
    Option("CONFIG_BLK_DEV_INITRD", "the guest is an initramfs"),
    Option("CONFIG_BINFMT_ELF", "runs the guest's programs"),
    Option("CONFIG_BINFMT_SCRIPT", "runs the guest's boot script"),
    Option("CONFIG_DEVTMPFS", "makes the device nodes"),
    Option("CONFIG_PROC_FS", "/proc"),
    Option("CONFIG_SYSFS", "/sys, where drivers are bound"),
    Option("CONFIG_UNIX98_PTYS", "terminals of SSH sessions"),
    Option("CONFIG_SERIAL_8250_CONSOLE", "the console, where readiness is told"),
    Option("CONFIG_INET", "IPv4, for SSH"),
    Option("CONFIG_EVENTFD", "interrupts of VFIO devices"),
)

#: Each brings a way into VFIO; without it the modes that need it are skipped.
MODE_OPTIONS = (
    Option("CONFIG_VFIO_CONTAINER", "/dev/vfio/vfio, for type1 and type1v2", (6, 2)),
    Option("CONFIG_VFIO_IOMMU_TYPE1", "the driver behind it"),
    Option(
        "CONFIG_IOMMUFD_VFIO_CONTAINER",
        "in place of both: /dev/vfio/vfio is iommufd's",
        (6, 2),
    ),
    Option(
        "CONFIG_VFIO_GROUP",
        "/dev/vfio/GROUP, for type1, type1v2, iommufd-compat and iommufd-group",
        (6, 6),
    ),
    Option(
        "CONFIG_IOMMUFD",
        "/dev/iommu, for iommufd-compat, iommufd-group, cdev-ioas and cdev-hwpt",
        (6, 2),
    ),
    Option(
        "CONFIG_VFIO_DEVICE_CDEV",
        "/dev/vfio/devices, for cdev-ioas and cdev-hwpt",
        (6, 6),
    ),
)

#: Without these a guest still works, with less to see or a slower boot.
USEFUL_OPTIONS = (
    Option("CONFIG_PVH", "lets QEMU start vmlinux directly: a faster boot"),
    Option("CONFIG_KPROBE_EVENTS", "shows VFIO asking for cache coherency"),
    Option("CONFIG_PVPANIC_PCI", "tells QEMU of a guest panic"),
    Option("CONFIG_IKCONFIG", "lets viotest check these options in a bare image"),
)

#: The modules that a guest needs, in the order to load them in: the IOMMU's driver
#: comes before any driver that could bind an endpoint (see docs/kernel-options.md).
GUEST_MODULES = (
    "virtio_iommu",
    "virtio_pci",
    "vfio_pci",
    "virtio_net",
)
#: Loaded when the kernel has them. VFIO itself depends on iommufd, if that is a module.
OPTIONAL_MODULES = ("vfio_iommu_type1", "pvpanic_pci")
#: In the guest when the kernel has them, and not loaded: native drivers of endpoints,
#: which would take these away from the checks. ``load-module NAME`` loads one.
EXTRA_MODULES = ("nvme", "ioatdma", "dmatest", "igb")
#: All that a guest may hold; what they depend on comes on top.
ALL_MODULES = (*GUEST_MODULES, *OPTIONAL_MODULES, *EXTRA_MODULES)


def missing_options(config: Mapping[str, str], release: str) -> list[Option]:
    """Return the required options that a kernel lacks.

    :param config: The kernel's options; when empty, nothing is known or missing.
    :param release: The kernel's release.
    """
    if not config:
        return []
    version = parse_release(release)
    return [
        option
        for option in REQUIRED_OPTIONS
        if version >= option.since and config.get(option.name, "n") not in ("y", "m")
    ]


def parse_release(release: str) -> tuple[int, int]:
    """Return the first two numbers of a kernel release.

    :param release: As in ``6.12.117+deb13-cloud-amd64``.
    """
    match = re.match(r"(\d+)\.(\d+)", release)
    return (int(match[1]), int(match[2])) if match else (0, 0)
