# SPDX-License-Identifier: GPL-2.0-or-later
"""What a row may touch: :class:`Device`, got from a :class:`Lab` in a :class:`Shape`.

Protocols, so that the same rows judge QEMU's hardware and, in the unit tests, a model
of the specification whose every rule can be broken.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from viotest.conformance import wire
from viotest.conformance.wire import Feature

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

#: What buffers that the device may write are filled with beforehand.
POISON = 0xAA

#: Every feature of a device of today.
MODERN = (
    Feature.INPUT_RANGE
    | Feature.DOMAIN_RANGE
    | Feature.MAP_UNMAP
    | Feature.PROBE
    | Feature.MMIO
    | Feature.BYPASS_CONFIG
)


@dataclass(frozen=True)
class Region:
    """A reserved region that an endpoint is given; ``end`` is inclusive."""

    subtype: int
    start: int
    end: int


_MSI = Region(wire.RESV_MEM_MSI, 0xFEE00000, 0xFEEFFFFF)

#: Two endpoints alike, one unlike them, one with nothing. The third one's regions
#: lie where there is RAM: an access that gets through is seen there.
_REGIONS = (
    (_MSI,),
    (_MSI,),
    (
        Region(wire.RESV_MEM_RESERVED, 0x09000000, 0x0900FFFF),
        Region(wire.RESV_MEM_MSI, 0x0A000000, 0x0A00FFFF),
        Region(wire.RESV_MEM_RESERVED, 0x500000000, 0x50000FFFF),
    ),
    (),
)


@dataclass(frozen=True)
class Shape:
    """How the device is to be configured.

    A target that cannot be given a shape says so; the row is then not applicable.
    """

    name: str
    features: Feature = MODERN
    #: What ``bypass`` is after a system reset.
    bypass: int = 0
    input_range: tuple[int, int] = (0, 2**64 - 1)
    domain_range: tuple[int, int] = (0, 2**32 - 1)
    regions: tuple[tuple[Region, ...], ...] = field(default=_REGIONS)


FULL = Shape("full", input_range=(0x10000, 2**39 - 1), domain_range=(0x100, 0xFFFFF))
BOOT_BYPASS = Shape("boot-bypass", bypass=1)
#: MAP and UNMAP only: what is not offered must not be understood.
BARE = Shape("bare", features=Feature.MAP_UNMAP, regions=((), (), (), ()))
OLD_BYPASS = Shape(
    "old-bypass",
    features=Feature.MAP_UNMAP | Feature.BYPASS,
    regions=((), (), (), ()),
)


@dataclass(frozen=True)
class Answer:
    """What became of a request."""

    #: Used length; None: the buffers were not returned in time.
    used: int | None
    #: The writable bytes, :data:`POISON` where the device did not write.
    data: bytes
    #: The device asks for a reset (DEVICE_NEEDS_RESET).
    needs_reset: bool = False


@dataclass(frozen=True)
class Event:
    """A buffer that the event queue returned."""

    #: Bytes that were made writable.
    size: int
    used: int
    data: bytes


class Transfer(Protocol):
    """A long DMA write that is going on."""

    def wait(self) -> bool:
        """Wait for its end; False when the rest was refused."""


class Device(Protocol):
    """A virtio-iommu, its endpoints and the memory they share."""

    #: Endpoint ids, in the order of :attr:`Shape.regions`.
    endpoints: tuple[int, ...]
    #: The regions that each endpoint was configured with; None: that is not known.
    regions: Mapping[int, tuple[Region, ...]] | None
    #: The domain that each endpoint was last attached to, for tidying up.
    attached: dict[int, int]

    def offered(self) -> Feature:
        """Return the features that the device offers."""

    def reset(self) -> None:
        """Write 0 to the device status, and wait until it reads 0."""

    def negotiate(self, features: Feature) -> bool:
        """Go from reset to DRIVER_OK, queues set up.

        :return: Whether the device took the features.
        """

    def status(self) -> int:
        """Return the device status."""

    def read_config(self, offset: int, size: int) -> int:
        """Read a field of the device configuration."""

    def write_config(self, offset: int, size: int, value: int) -> None:
        """Write a field of the device configuration."""

    def submit(
        self,
        readable: Sequence[bytes],
        writable: Sequence[int],
        *,
        indirect: bool = False,
    ) -> Answer:
        """Put one chain on the request queue, and wait for it.

        :param readable: The buffers for the device to read.
        :param writable: The sizes of those for it to write.
        :param indirect: Describe them in an indirect table.
        :raise MismatchError: When it wrote outside of them.
        """

    def post_events(self, *sizes: int) -> None:
        """Put buffers of these sizes on the event queue."""

    def take_events(self, *, wait: bool = True) -> list[Event]:
        """Return what the event queue returned since the last call.

        :param wait: Give the first one time to come.
        """

    def dma_read(self, endpoint: int, iova: int) -> int | None:
        """Let an endpoint read 8 bytes; None when it was refused."""

    def dma_write(self, endpoint: int, iova: int, value: int, size: int = 8) -> bool:
        """Let an endpoint write up to 8 bytes; False when it was refused."""

    def dma_start(self, endpoint: int, iova: int, size: int, value: int) -> Transfer:
        """Let an endpoint fill a long range, and return at once."""

    def memory_read(self, address: int, size: int) -> bytes:
        """Read guest memory."""

    def memory_write(self, address: int, data: bytes) -> None:
        """Write guest memory."""

    def memory_clear(self, address: int, size: int) -> None:
        """Zero guest memory."""

    def system_reset(self) -> None:
        """Reset the whole machine, and find the device again."""


class Lab(Protocol):
    """Gives out devices."""

    def device(self, shape: Shape) -> Device:
        """Return a device of this shape, perhaps one that was used before.

        :raise NotApplicableError: When the target cannot be configured so.
        """

    def fresh(self, shape: Shape) -> Device:
        """Return a device of this shape that nobody has touched yet.

        :raise NotApplicableError: As :meth:`device`.
        """
