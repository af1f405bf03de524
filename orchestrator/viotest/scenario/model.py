# SPDX-License-Identifier: GPL-2.0-or-later
"""What a run is: one frozen :class:`Scenario`, from which everything follows."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


class Accel(enum.StrEnum):
    """How QEMU executes the guest; ``auto`` proves KVM by a boot, else TCG."""

    AUTO = "auto"
    KVM = "kvm"
    TCG = "tcg"


class Iommu(enum.StrEnum):
    """Whose virtio-iommu the guest sees."""

    #: Ours, served over vfio-user by viotest-device.
    VIOTEST = "viotest"
    #: QEMU's built-in ``virtio-iommu-pci``.
    QEMU = "qemu"


class Mode(enum.StrEnum):
    """How the guest's userspace enters VFIO."""

    TYPE1 = "type1"
    TYPE1V2 = "type1v2"
    #: The container is an iommufd, which answers to the ioctls of type1.
    IOMMUFD_COMPAT = "iommufd-compat"
    #: The group joins an iommufd; memory is mapped by iommufd's own ioctls.
    IOMMUFD_GROUP = "iommufd-group"
    #: The device's own file, attached to an address space of an iommufd.
    CDEV_IOAS = "cdev-ioas"
    #: The same, attached to a page table that was allocated for it.
    CDEV_HWPT = "cdev-hwpt"


#: Modes that open the device's own file instead of its group's.
CDEV_MODES = (Mode.CDEV_IOAS, Mode.CDEV_HWPT)
#: Modes in which vfio_iommu_type1 holds the mappings.
TYPE1_MODES = (Mode.TYPE1, Mode.TYPE1V2)
#: Modes in which an iommufd holds the mappings.
IOMMUFD_MODES = (Mode.IOMMUFD_COMPAT, Mode.IOMMUFD_GROUP, *CDEV_MODES)


class EndpointModel(enum.StrEnum):
    """What an endpoint is. Ours are served over vfio-user, behind either IOMMU."""

    #: Does exactly the DMA it is told: what most checks are made with.
    DMA_ENGINE = "dma-engine"
    #: An I/OAT channel, for the kernel's ``ioatdma``.
    IOAT = "ioat"
    #: A disk backed by a file of the run folder, for the kernel's ``nvme``.
    NVME = "nvme"
    #: QEMU's own devices, whose DMA only QEMU's IOMMU can translate.
    QEMU_EDU = "qemu-edu"
    QEMU_NVME = "qemu-nvme"
    QEMU_IGB = "qemu-igb"

    @property
    def is_qemus(self) -> bool:
        """QEMU is the device, not viotest-device."""
        return self.value.startswith("qemu-")


class Place(enum.StrEnum):
    """Where on the guest's PCI buses an endpoint sits."""

    #: A slot of the root bus.
    ROOT = "root"
    #: Alone behind a PCIe root port of its own, which isolates it.
    PORT = "port"
    #: The same, and it may be unplugged: it has no MSI-X, because QEMU 11.1 aborts
    #: when it unplugs a vfio-user function that has.
    HOTPLUG = "hotplug"
    #: Behind the one PCIe-to-PCI bridge, which gives the DMA of all behind it the
    #: same requester id: they share an IOMMU group.
    BRIDGE = "bridge"


class Phase(enum.StrEnum):
    """The parts of a run that have a deadline each."""

    #: QEMU and the device are up and answer on their monitors.
    LAUNCH = "launch"
    #: QEMU runs to the guest's readiness beacon.
    BOOT = "boot"
    #: The beacon to the first answer over SSH.
    CONNECT = "connect"
    #: One check.
    CHECK = "check"
    #: From the verdict to the end of every process.
    TEARDOWN = "teardown"


#: Deadlines in seconds when the guest is emulated; KVM takes a quarter, 5 s at least.
DEFAULT_TIMEOUTS: Mapping[Phase, float] = MappingProxyType(
    {
        Phase.LAUNCH: 20.0,
        Phase.BOOT: 120.0,
        Phase.CONNECT: 30.0,
        Phase.CHECK: 60.0,
        Phase.TEARDOWN: 10.0,
    }
)


@dataclass(frozen=True)
class EndpointSpec:
    """One endpoint, as asked for: ``MODEL[@PLACE][,iommu=N]``."""

    model: EndpointModel = EndpointModel.DMA_ENGINE
    place: Place = Place.ROOT
    #: Which virtio-iommu of the guest translates it.
    iommu: int = 0

    def __str__(self) -> str:
        place = "" if self.place is Place.ROOT else f"@{self.place}"
        iommu = f",iommu={self.iommu}" if self.iommu else ""
        return f"{self.model}{place}{iommu}"


@dataclass(frozen=True)
class Scenario:
    """One configuration to judge. Hashable, serialisable, compared by value."""

    arch: str = "x86_64"
    machine: str = "q35"
    #: ``debian:SUITE``, or the path of a bzImage, a vmlinux or a built tree.
    kernel: str = "debian:trixie"
    #: A ``lib/modules/RELEASE`` folder for a kernel given as a file.
    modules: str | None = None
    #: Module files that take the place of the kernel's own of the same name.
    replace_modules: tuple[str, ...] = ()
    #: ``auto``, or the path of a qemu-system binary.
    qemu: str = "auto"
    accel: Accel = Accel.AUTO
    iommu: Iommu = Iommu.VIOTEST
    modes: tuple[Mode, ...] = (Mode.TYPE1V2,)
    #: Shell patterns of check names; empty: all.
    checks: tuple[str, ...] = ()
    smp: int = 1
    #: Guest memory in MiB.
    mem: int = 512
    #: Appended to the guest's kernel command line.
    append: tuple[str, ...] = ()
    #: Appended to QEMU's argv.
    qemu_args: tuple[str, ...] = ()
    #: Deliberate device defects, by the device's own names.
    mutants: tuple[str, ...] = ()
    endpoints: tuple[EndpointSpec, ...] = (EndpointSpec(),)
    #: How long our virtio-iommu may look at its ring before it sleeps, microseconds.
    poll_us: int = 20
    #: How many records the device's log holds before it overwrites the oldest.
    log_records: int = 262144
    #: Phase deadlines in seconds that differ from the defaults, sorted by phase.
    timeouts: tuple[tuple[Phase, float], ...] = ()
    #: A kernel that does not reach the beacon is bad (exit 1), not untestable (125).
    boot_fail_is_bad: bool = False
    #: Put the checks too that take half a minute and more.
    thorough: bool = False
    #: How often, in each mode, another guest takes the place of one that is lost.
    reboots: int = 2

    @property
    def any_mode(self) -> bool:
        """A mode that the kernel does not offer is no matter: all were asked for."""
        return set(self.modes) == set(Mode)

    def timeout(self, phase: Phase, accel: Accel) -> float:
        """Return the deadline of a phase in seconds.

        :param phase: The phase.
        :param accel: The accelerator in use: ``kvm`` shortens the defaults.
        :return: What the user asked for, else the scaled default.
        """
        asked = dict(self.timeouts).get(phase)
        if asked is not None:
            return asked
        default = DEFAULT_TIMEOUTS[phase]
        return max(5.0, default / 4) if accel is Accel.KVM else default


@dataclass(frozen=True)
class Function:
    """A PCI function that viotest-device serves."""

    name: str
    #: ``0000:00:01.0``, as the guest's OS will see it.
    bdf: str
    #: The vfio-user socket, relative to the run folder.
    socket: str


@dataclass(frozen=True)
class EndpointFunction(Function):
    """An endpoint. ``socket`` is empty for one that is QEMU's own."""

    #: What virtio-iommu calls the source of its DMA: its requester id, or that of
    #: the bridge that speaks for it.
    endpoint_id: int = 0
    spec: EndpointSpec = EndpointSpec()
    #: The bridge it is behind; None on the root bus.
    behind: Bridge | None = None


@dataclass(frozen=True)
class Bridge:
    """A root port or a PCIe-to-PCI bridge: QEMU's, on the root bus."""

    name: str
    bdf: str
    #: The number of the bus behind it.
    bus: int
    #: Isolates (a root port with ACS), or speaks for all that is behind it.
    place: Place
    #: Which virtio-iommu translates what is behind it.
    iommu: int = 0


@dataclass(frozen=True)
class EndpointRange:
    """Requester ids that one virtio-iommu translates (a VIOT range)."""

    segment: int
    #: First and last requester id (bus << 8 | device << 3 | function).
    bdf_start: int
    bdf_end: int
    #: Endpoint id of ``bdf_start``.
    endpoint_start: int
    #: ``bdf`` of the virtio-iommu function.
    iommu_bdf: str


@dataclass(frozen=True)
class Topology:
    """Where everything sits on the guest's PCI buses. Derived from a Scenario."""

    #: The virtio-iommu functions that we serve; empty with ``Iommu.QEMU``.
    iommus: tuple[Function, ...]
    endpoints: tuple[EndpointFunction, ...]
    #: Slot on pcie.0 of QEMU's own virtio-iommu; None with ``Iommu.VIOTEST``.
    qemu_iommu_bdf: str | None
    #: Slot on pcie.0 of the NIC that carries SSH; outside every range.
    nic_bdf: str
    ranges: tuple[EndpointRange, ...] = field(default=())
    #: In the order of their slots, which is that of their buses.
    bridges: tuple[Bridge, ...] = field(default=())
