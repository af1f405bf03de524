# SPDX-License-Identifier: GPL-2.0-or-later
"""What differs between guest architectures: one record each, :data:`ARCHES`."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from viotest.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class Arch:
    """A guest architecture as QEMU and the kernel command line see it."""

    name: str
    #: The name of QEMU's binary.
    qemu_binary: str
    #: Machine types that can be built.
    machines: tuple[str, ...]
    #: Properties of ``-machine`` beside the accelerator and the memory.
    machine_properties: tuple[str, ...]
    cpu_tcg: str
    cpu_kvm: str
    #: The PCI bus that every function of ours is plugged into.
    root_bus: str
    #: ``-device`` values that every guest of this architecture gets.
    devices: tuple[str, ...]
    #: The kernel's name of the serial console.
    console: str
    #: Kernel arguments that every guest of this architecture gets.
    kernel_args: tuple[str, ...]
    #: The addresses at which a write is an interrupt, first and last; None when
    #: the IOMMU translates those writes like any other.
    msi_window: tuple[int, int] | None


_X86_64 = Arch(
    name="x86_64",
    qemu_binary="qemu-system-x86_64",
    machines=("q35",),
    # Nothing here is used by the tests, and probing for most of it costs the
    # guest's boot time. The PIT must stay: the kernel calibrates the TSC by it.
    machine_properties=(
        "smm=off",
        "vmport=off",
        "hpet=off",
        "i8042=off",
        "sata=off",
        "smbus=off",
        "usb=off",
    ),
    # Five-level page tables are of no use in a small guest, and every TLB miss
    # of an emulated CPU walks them.
    cpu_tcg="max,la57=off",
    cpu_kvm="host",
    root_bus="pcie.0",
    # Turns a panic into a QMP event, should the guest's kernel know the device.
    devices=("pvpanic",),
    console="ttyS0",
    kernel_args=(
        # Self-tests of ciphers take a fifth of an emulated boot.
        "cryptomgr.notests",
        # Interrupt remapping is what VFIO asks for and virtio-iommu has not;
        # for kernels that have VFIO built in, the initramfs cares for modules.
        "vfio_iommu_type1.allow_unsafe_interrupts=1",
        "tsc=reliable",
        "no_timer_check",
    ),
    msi_window=(0xFEE00000, 0xFEEFFFFF),
)

#: The known architectures by name.
ARCHES: Mapping[str, Arch] = MappingProxyType({_X86_64.name: _X86_64})


def find_arch(name: str) -> Arch | None:
    """Return the record of an architecture, or None."""
    return ARCHES.get(name)


def require_arch(name: str) -> Arch:
    """Return the record of an architecture.

    :raise UsageError: When there is none of that name.
    """
    arch = find_arch(name)
    if arch is None:
        raise UsageError(f"unknown architecture {name!r}: there is {', '.join(ARCHES)}")
    return arch
