# SPDX-License-Identifier: GPL-2.0-or-later
"""QEMU's hardware as a row sees it: :class:`QtestDevice`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from viotest.conformance import virtio
from viotest.conformance.engine import Engine
from viotest.conformance.errors import MismatchError, TargetLostError
from viotest.conformance.lab import POISON, Answer, Event
from viotest.conformance.pci import MmioSpace, PciFunction
from viotest.conformance.virtio import VirtioPci
from viotest.conformance.virtqueue import AREA_SIZE, Buffer
from viotest.conformance.wire import Feature

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from viotest.conformance.lab import Region
    from viotest.conformance.qtest import Qtest
    from viotest.conformance.virtqueue import Virtqueue

_REQUESTQ, _EVENTQ = 0, 1

# Guest memory, far from what firmware would use: rings, then buffers.
_RINGS = 0x1000000
_READABLE = 0x1100000
_WRITABLE = 0x1200000
_EVENTS = 0x1300000
_AREA = 0x10000
#: Space between two buffers, poisoned: a write past the end is seen.
_GAP = 64
_EVENT_STRIDE = 128

#: How long a device may take to answer a request, and to report a fault, on a host
#: that is busy with other things; a row that sees nothing waits as long.
_ANSWER_TIMEOUT = 5.0
_EVENT_TIMEOUT = 1.0

_WANTED = Feature.VERSION_1 | Feature.INDIRECT_DESC


class QtestDevice:
    """A virtio-iommu and DMA engines in a QEMU that is driven by qtest.

    :param qtest: The machine.
    :param iommu: Where the virtio-iommu is: device << 3 | function.
    :param endpoints: Where the engines are, likewise.
    :param regions: What each engine was configured with, if that is known.
    :param reset_machine: Resets the machine, and returns once it is done.
    """

    def __init__(
        self,
        qtest: Qtest,
        iommu: int,
        endpoints: Sequence[int],
        regions: Mapping[int, tuple[Region, ...]] | None,
        reset_machine: Callable[[], None],
    ) -> None:
        self._qtest = qtest
        self._iommu = PciFunction(qtest, iommu)
        self._functions = {devfn: PciFunction(qtest, devfn) for devfn in endpoints}
        self._reset_machine = reset_machine
        self.endpoints = tuple(endpoints)
        self.regions = regions
        self.attached: dict[int, int] = {}
        self._find()

    def _find(self) -> None:
        space = MmioSpace()
        self._iommu.enable(space)
        for function in self._functions.values():
            function.enable(space)
        self._virtio = VirtioPci(self._iommu)
        self._engines = {
            devfn: Engine(function) for devfn, function in self._functions.items()
        }
        self._queues: list[Virtqueue] = []
        # Sizes of the event buffers by the descriptor that holds each.
        self._event_sizes: dict[int, int] = {}
        self._next_event = 0

    def offered(self) -> Feature:
        """Return the features that the device offers."""
        return self._virtio.offered()

    def reset(self) -> None:
        """Write 0 to the device status, and wait until it reads 0."""
        self._virtio.reset()
        self._queues = []

    def negotiate(self, features: Feature) -> bool:
        """Go from reset to DRIVER_OK, queues set up."""
        features |= self.offered() & _WANTED
        if not self._virtio.set_features(features):
            return False
        self._event_sizes.clear()
        self._next_event = 0
        self._queues = [
            self._virtio.set_up_queue(index, _RINGS + index * AREA_SIZE)
            for index in (_REQUESTQ, _EVENTQ)
        ]
        self._virtio.add_status(virtio.DRIVER_OK)
        return True

    def status(self) -> int:
        """Return the device status."""
        return self._virtio.status()

    def read_config(self, offset: int, size: int) -> int:
        """Read a field of the device configuration."""
        return self._virtio.read_config(offset, size)

    def write_config(self, offset: int, size: int, value: int) -> None:
        """Write a field of the device configuration."""
        self._virtio.write_config(offset, size, value)

    def submit(
        self,
        readable: Sequence[bytes],
        writable: Sequence[int],
        *,
        indirect: bool = False,
    ) -> Answer:
        """Put one chain on the request queue, and wait for it."""
        self._qtest.fill(_WRITABLE, _extent(writable) + _GAP, POISON)
        readable_at = _place([len(data) for data in readable], _READABLE)
        writable_at = _place(writable, _WRITABLE)
        image = bytearray(_extent([len(data) for data in readable]))
        for buffer, data in zip(readable_at, readable, strict=True):
            offset = buffer.address - _READABLE
            image[offset : offset + len(data)] = data
        self._qtest.write(_READABLE, bytes(image))
        buffers = [*readable_at, *_writable(writable_at)]
        self._queues[_REQUESTQ].add(buffers, indirect=indirect)
        self._virtio.notify(_REQUESTQ)
        used = self._wait_for_used()
        data = self._collect(writable_at, _extent(writable) + _GAP)
        broken = bool(self._virtio.status() & virtio.NEEDS_RESET)
        return Answer(used, data, broken)

    def post_events(self, *sizes: int) -> None:
        """Put buffers of these sizes on the event queue."""
        queue = self._queues[_EVENTQ]
        for size in sizes:
            index = self._next_event
            self._next_event += 1
            if index >= queue.size:
                raise TargetLostError("a row posts more event buffers than fit")
            address = _EVENTS + index * _EVENT_STRIDE
            self._qtest.fill(address, _EVENT_STRIDE, POISON)
            self._event_sizes[index] = size
            queue.add([Buffer(address, size, writable=True)], first=index)
        self._virtio.notify(_EVENTQ)

    def take_events(self, *, wait: bool = True) -> list[Event]:
        """Return what the event queue returned since the last call."""
        queue = self._queues[_EVENTQ]
        deadline = time.monotonic() + (_EVENT_TIMEOUT if wait else 0)
        while (taken := queue.take()) is None:
            if time.monotonic() >= deadline:
                return []
        events = []
        while taken is not None:
            index, used = taken
            size = self._event_sizes.get(index, 0)
            address = _EVENTS + index * _EVENT_STRIDE
            image = self._qtest.read(address, _EVENT_STRIDE)
            if image[size:].strip(bytes([POISON])):
                raise MismatchError(
                    f"nothing written past an event buffer of {size} bytes",
                    f"bytes behind it: {image[size : size + 24].hex()}",
                )
            events.append(Event(size, used, image[:size]))
            taken = queue.take()
        return events

    def dma_read(self, endpoint: int, iova: int) -> int | None:
        """Let an endpoint read 8 bytes; None when it was refused."""
        return self._engines[endpoint].read(iova)

    def dma_write(self, endpoint: int, iova: int, value: int, size: int = 8) -> bool:
        """Let an endpoint write up to 8 bytes; False when it was refused."""
        self._engines[endpoint].start_fill(iova, size, value)
        return self._engines[endpoint].wait()

    def dma_start(self, endpoint: int, iova: int, size: int, value: int) -> Engine:
        """Let an endpoint fill a long range, and return at once."""
        self._engines[endpoint].start_fill(iova, size, value)
        return self._engines[endpoint]

    def memory_read(self, address: int, size: int) -> bytes:
        """Read guest memory."""
        return self._qtest.read(address, size)

    def memory_write(self, address: int, data: bytes) -> None:
        """Write guest memory."""
        self._qtest.write(address, data)

    def memory_clear(self, address: int, size: int) -> None:
        """Zero guest memory."""
        self._qtest.fill(address, size, 0)

    def system_reset(self) -> None:
        """Reset the whole machine, and find the device again."""
        self._reset_machine()
        self.attached.clear()
        self._find()

    def _wait_for_used(self) -> int | None:
        deadline = time.monotonic() + _ANSWER_TIMEOUT
        while (taken := self._queues[_REQUESTQ].take()) is None:
            if self._virtio.status() & virtio.NEEDS_RESET:
                return None
            if time.monotonic() > deadline:
                return None
        head, used = taken
        if head:
            raise MismatchError("the head of the chain in the used ring", f"{head}")
        return used

    # The bytes of the buffers; what lies between them must be untouched.
    def _collect(self, buffers: Sequence[Buffer], extent: int) -> bytes:
        image = bytearray(self._qtest.read(_WRITABLE, extent))
        data = b""
        for buffer in buffers:
            inside = slice(
                buffer.address - _WRITABLE, buffer.address - _WRITABLE + buffer.size
            )
            data += image[inside]
            image[inside] = bytes([POISON]) * buffer.size
        if image.strip(bytes([POISON])):
            raise MismatchError(
                "nothing written outside of the writable buffers",
                f"bytes {bytes(image).strip(bytes([POISON])).hex()} beside them",
            )
        return data


def _stride(size: int) -> int:
    return (size + _GAP - 1) // _GAP * _GAP + _GAP


def _extent(sizes: Sequence[int]) -> int:
    extent = sum(_stride(size) for size in sizes)
    assert extent <= _AREA
    return extent


def _place(sizes: Sequence[int], start: int) -> list[Buffer]:
    buffers = []
    for size in sizes:
        buffers.append(Buffer(start, size, writable=False))
        start += _stride(size)
    return buffers


def _writable(buffers: Sequence[Buffer]) -> list[Buffer]:
    return [Buffer(b.address, b.size, writable=True) for b in buffers]
