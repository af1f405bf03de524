# SPDX-License-Identifier: GPL-2.0-or-later
"""The driver's side of a split virtqueue: :class:`Virtqueue`."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from viotest.conformance.qtest import Qtest

_F_NEXT = 1
_F_WRITE = 2
_F_INDIRECT = 4
_AVAIL_F_NO_INTERRUPT = 1
_DESC_SIZE = 16

#: Bytes of memory that a queue takes: three rings, a page each at most, and one
#: indirect table.
AREA_SIZE = 0x4000
_AVAIL = 0x1000
_USED = 0x2000
_INDIRECT = 0x3000

#: Entries of a queue; its table of descriptors then fills less than a page.
MAX_SIZE = 128


@dataclass(frozen=True)
class Buffer:
    """A piece of guest memory given to the device."""

    address: int
    size: int
    #: For the device to write.
    writable: bool


class Virtqueue:
    """One queue, polled, in an area of guest memory.

    :param qtest: The machine.
    :param area: Where :data:`AREA_SIZE` bytes are free.
    :param size: The number of entries, at most :data:`MAX_SIZE`.
    """

    def __init__(self, qtest: Qtest, area: int, size: int) -> None:
        self._qtest = qtest
        self.size = size
        self.desc = area
        self.driver = area + _AVAIL
        self.device = area + _USED
        self._indirect = area + _INDIRECT
        self._avail_idx = 0
        self._used_idx = 0
        qtest.fill(area, AREA_SIZE, 0)
        qtest.write_value(self.driver, 2, _AVAIL_F_NO_INTERRUPT)

    def add(
        self, buffers: Sequence[Buffer], *, first: int = 0, indirect: bool = False
    ) -> None:
        """Make one chain available; the device is not notified.

        :param buffers: The readable ones first.
        :param first: The descriptor to begin with; those after it must be free.
        :param indirect: Put the descriptors in an indirect table.
        """
        if indirect:
            self._qtest.write(self._indirect, _table(buffers, 0))
            length = len(buffers) * _DESC_SIZE
            entry = struct.pack("<QIHH", self._indirect, length, _F_INDIRECT, 0)
            self._qtest.write(self.desc + first * _DESC_SIZE, entry)
        else:
            table = _table(buffers, first)
            self._qtest.write(self.desc + first * _DESC_SIZE, table)
        slot = self.driver + 4 + 2 * (self._avail_idx % self.size)
        self._qtest.write_value(slot, 2, first)
        self._avail_idx = (self._avail_idx + 1) & 0xFFFF
        self._qtest.write_value(self.driver + 2, 2, self._avail_idx)

    def take(self) -> tuple[int, int] | None:
        """Return head and used length of a chain that came back, or None."""
        if self._qtest.read_value(self.device + 2, 2) == self._used_idx:
            return None
        slot = self.device + 4 + 8 * (self._used_idx % self.size)
        head, length = struct.unpack("<II", self._qtest.read(slot, 8))
        self._used_idx = (self._used_idx + 1) & 0xFFFF
        return head, length


def _table(buffers: Sequence[Buffer], first: int) -> bytes:
    entries = []
    for i, buffer in enumerate(buffers):
        flags = _F_WRITE if buffer.writable else 0
        following = 0
        if i + 1 < len(buffers):
            flags |= _F_NEXT
            following = first + i + 1
        entries.append(
            struct.pack("<QIHH", buffer.address, buffer.size, flags, following)
        )
    return b"".join(entries)
