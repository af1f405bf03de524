# SPDX-License-Identifier: GPL-2.0-or-later
"""PCI functions of bus 0, found and enabled as firmware would: :class:`PciFunction`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from viotest.conformance.errors import TargetLostError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from viotest.conformance.qtest import Qtest

_CONFIG_ADDRESS = 0xCF8
_CONFIG_DATA = 0xCFC

_ID = 0x00
_COMMAND = 0x04
_STATUS = 0x06
_BAR0 = 0x10
_CAPABILITIES = 0x34

_COMMAND_MEMORY_MASTER = 0x6
_STATUS_CAP_LIST = 0x10
_BAR_IO = 1
_BAR_64BIT = 4
_NR_BARS = 6
#: More capabilities than this in 256 bytes are a loop.
_MAX_CAPS = 48

#: Below the chipset's own devices and above any RAM given to these machines.
MMIO_START = 0xC0000000
MMIO_END = 0xF0000000


class MmioSpace:
    """Hands out addresses for BARs."""

    def __init__(self) -> None:
        self._next = MMIO_START

    def take(self, size: int) -> int:
        """Return an address for a BAR of this size, aligned on it."""
        address = (self._next + size - 1) & ~(size - 1)
        if address + size > MMIO_END:
            raise TargetLostError(f"no room for a BAR of {size:#x} bytes")
        self._next = address + size
        return address


class PciFunction:
    """One function of bus 0.

    :param qtest: The machine.
    :param devfn: Device << 3 | function.
    """

    def __init__(self, qtest: Qtest, devfn: int) -> None:
        self.qtest = qtest
        self._devfn = devfn
        #: The address of each BAR that is there, by index.
        self.bars: dict[int, int] = {}

    @property
    def id(self) -> tuple[int, int]:
        """Vendor and device."""
        value = self.read(_ID, 4)
        return value & 0xFFFF, value >> 16

    def read(self, offset: int, size: int) -> int:
        """Read configuration space; an access must not cross four bytes."""
        self._select(offset)
        return self.qtest.in_(_CONFIG_DATA + offset % 4, size)

    def write(self, offset: int, size: int, value: int) -> None:
        """Write configuration space; as :meth:`read`."""
        self._select(offset)
        self.qtest.out(_CONFIG_DATA + offset % 4, size, value)

    def enable(self, space: MmioSpace) -> None:
        """Place every memory BAR, then switch decoding and bus mastering on."""
        self.bars.clear()
        index = 0
        while index < _NR_BARS:
            index += self._place_bar(index, space)
        command = self.read(_COMMAND, 2)
        self.write(_COMMAND, 2, command | _COMMAND_MEMORY_MASTER)

    def capabilities(self) -> Iterator[tuple[int, int]]:
        """Yield id and offset of each capability."""
        if not self.read(_STATUS, 2) & _STATUS_CAP_LIST:
            return
        offset = self.read(_CAPABILITIES, 1) & 0xFC
        for _ in range(_MAX_CAPS):
            if not offset:
                return
            yield self.read(offset, 1), offset
            offset = self.read(offset + 1, 1) & 0xFC
        raise TargetLostError("the list of capabilities is a loop")

    def _select(self, offset: int) -> None:
        address = 1 << 31 | self._devfn << 8 | offset & 0xFC
        self.qtest.out(_CONFIG_ADDRESS, 4, address)

    # Returns how many registers the BAR takes.
    def _place_bar(self, index: int, space: MmioSpace) -> int:
        register = _BAR0 + 4 * index
        self.write(register, 4, 0xFFFFFFFF)
        value = self.read(register, 4)
        if not value or value & _BAR_IO:
            return 1
        address = space.take(-(value & ~0xF) & 0xFFFFFFFF)
        self.write(register, 4, address)
        self.bars[index] = address
        if not value & _BAR_64BIT:
            return 1
        self.write(register + 4, 4, 0)
        return 2
