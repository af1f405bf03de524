# SPDX-License-Identifier: GPL-2.0-or-later
"""The virtio-pci transport, modern only: :class:`VirtioPci`."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from viotest.conformance.errors import TargetLostError
from viotest.conformance.virtqueue import MAX_SIZE, Virtqueue
from viotest.conformance.wire import Feature

if TYPE_CHECKING:
    from viotest.conformance.pci import PciFunction

ID = (0x1AF4, 0x1057)

_CAP_VENDOR = 0x09
_COMMON, _NOTIFY, _DEVICE = 1, 2, 4

# Fields of the common configuration: offset and size.
_DEVICE_FEATURE_SELECT = (0, 4)
_DEVICE_FEATURE = (4, 4)
_DRIVER_FEATURE_SELECT = (8, 4)
_DRIVER_FEATURE = (12, 4)
_STATUS = (20, 1)
_QUEUE_SELECT = (22, 2)
_QUEUE_SIZE = (24, 2)
_QUEUE_ENABLE = (28, 2)
_QUEUE_NOTIFY_OFF = (30, 2)
_QUEUE_DESC = (32, 4)
_QUEUE_DRIVER = (40, 4)
_QUEUE_DEVICE = (48, 4)

ACKNOWLEDGE = 1
DRIVER = 2
DRIVER_OK = 4
FEATURES_OK = 8
NEEDS_RESET = 0x40

_RESET_TIMEOUT = 5.0


@dataclass(frozen=True)
class _Structure:
    address: int
    #: Of the notification structure only.
    multiplier: int


class VirtioPci:
    """One device.

    :param function: The PCI function, enabled.
    :raise TargetLostError: When it is no virtio-iommu with a modern interface.
    """

    def __init__(self, function: PciFunction) -> None:
        self._qtest = function.qtest
        if function.id != ID:
            raise TargetLostError(f"no virtio-iommu, but {function.id}")
        self._structures = _find_structures(function)
        for kind in (_COMMON, _NOTIFY, _DEVICE):
            if kind not in self._structures:
                raise TargetLostError(f"no virtio structure of type {kind}")

    def offered(self) -> Feature:
        """Return the feature bits that the device offers."""
        words = []
        for select in range(2):
            self._set(_DEVICE_FEATURE_SELECT, select)
            words.append(self._get(_DEVICE_FEATURE))
        return Feature(words[0] | words[1] << 32)

    def status(self) -> int:
        """Return the device status."""
        return self._get(_STATUS)

    def add_status(self, bits: int) -> int:
        """Set bits of the device status, and return what it reads then."""
        self._set(_STATUS, self.status() | bits)
        return self.status()

    def reset(self) -> None:
        """Reset the device, and wait until it has."""
        self._set(_STATUS, 0)
        deadline = time.monotonic() + _RESET_TIMEOUT
        while self.status():
            if time.monotonic() > deadline:
                raise TargetLostError("device status does not become 0 after a reset")

    def set_features(self, features: Feature) -> bool:
        """Negotiate; False when the device does not take these."""
        self.add_status(ACKNOWLEDGE)
        self.add_status(DRIVER)
        for select in range(2):
            self._set(_DRIVER_FEATURE_SELECT, select)
            self._set(_DRIVER_FEATURE, features >> 32 * select & 0xFFFFFFFF)
        return bool(self.add_status(FEATURES_OK) & FEATURES_OK)

    def set_up_queue(self, index: int, area: int) -> Virtqueue:
        """Give the device a queue in this area of guest memory.

        :raise TargetLostError: When it has no such queue.
        """
        self._set(_QUEUE_SELECT, index)
        size = min(self._get(_QUEUE_SIZE), MAX_SIZE)
        if not size:
            raise TargetLostError(f"there is no queue {index}")
        self._set(_QUEUE_SIZE, size)
        queue = Virtqueue(self._qtest, area, size)
        self._set_address(_QUEUE_DESC, queue.desc)
        self._set_address(_QUEUE_DRIVER, queue.driver)
        self._set_address(_QUEUE_DEVICE, queue.device)
        self._set(_QUEUE_ENABLE, 1)
        return queue

    def notify(self, index: int) -> None:
        """Tell the device that a queue has new buffers."""
        self._qtest.write_value(self.notify_address(index), 2, index)

    def notify_address(self, index: int) -> int:
        """Return where the number of a queue is written to notify the device."""
        self._set(_QUEUE_SELECT, index)
        notify = self._structures[_NOTIFY]
        return notify.address + self._get(_QUEUE_NOTIFY_OFF) * notify.multiplier

    @property
    def status_address(self) -> int:
        """Where the device status is, one byte."""
        return self._structures[_COMMON].address + _STATUS[0]

    def read_config(self, offset: int, size: int) -> int:
        """Read the device configuration."""
        return self._qtest.read_value(self._structures[_DEVICE].address + offset, size)

    def write_config(self, offset: int, size: int, value: int) -> None:
        """Write the device configuration."""
        address = self._structures[_DEVICE].address + offset
        self._qtest.write_value(address, size, value)

    def _get(self, field: tuple[int, int]) -> int:
        offset, size = field
        address = self._structures[_COMMON].address + offset
        return self._qtest.read_value(address, size)

    def _set(self, field: tuple[int, int], value: int) -> None:
        offset, size = field
        address = self._structures[_COMMON].address + offset
        self._qtest.write_value(address, size, value)

    def _set_address(self, field: tuple[int, int], value: int) -> None:
        offset, size = field
        self._set(field, value & 0xFFFFFFFF)
        self._set((offset + size, size), value >> 32)


def _find_structures(function: PciFunction) -> dict[int, _Structure]:
    found: dict[int, _Structure] = {}
    for kind, at in function.capabilities():
        if kind != _CAP_VENDOR:
            continue
        structure = function.read(at + 3, 1)
        bar = function.bars.get(function.read(at + 4, 1))
        # "The driver SHOULD use the first instance of each virtio structure type"
        if bar is None or structure in found:
            continue
        multiplier = function.read(at + 16, 4) if structure == _NOTIFY else 0
        address = bar + function.read(at + 8, 4)
        found[structure] = _Structure(address, multiplier)
    return found
