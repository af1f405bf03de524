# SPDX-License-Identifier: GPL-2.0-or-later
"""The DMA engine endpoint, driven by its registers: :class:`Engine`.

The registers are those of the device's public header ``dma_engine.h``.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from viotest.conformance.errors import TargetLostError

if TYPE_CHECKING:
    from viotest.conformance.pci import PciFunction

ID = (0x1234, 0x7E57)
_MAGIC = 0x414D4456

_BAR_REGS = 0
_BAR_LOCAL = 2
_IRQ_TRIGGER = 0x20
_SLOT = 0x1000
_COMMAND = _SLOT + 0x00
_STATUS = _SLOT + 0x04
_IOVA = _SLOT + 0x08
_OPERAND = _SLOT + 0x10
_LENGTH = _SLOT + 0x18

_RESULT = _SLOT + 0x20
_FAULT_ADDRESS = _SLOT + 0x28
_FAULT_INFO = _SLOT + 0x30

_OP_READ = 1
_OP_COPY = 3
_OP_FILL = 4
_OP_CHECKSUM = 5

_FAULT_WRITE = 1 << 8

_BUSY = 1
_OK = 2
_FAULT = 3

#: A transaction that QEMU's IOMMU translates may wait for QEMU as long.
_TIMEOUT = 10.0


class Engine:
    """One endpoint; it uses one slot, so one transaction at a time.

    :param function: The PCI function, enabled.
    :raise TargetLostError: When it is no DMA engine.
    """

    def __init__(self, function: PciFunction) -> None:
        self._qtest = function.qtest
        self._regs = function.bars.get(_BAR_REGS, 0)
        self._local = function.bars.get(_BAR_LOCAL, 0)
        if function.id != ID or self._register(0) != _MAGIC:
            raise TargetLostError(f"an endpoint is no DMA engine: {function.id}")

    def read(self, iova: int) -> int | None:
        """Read 8 bytes of memory; None when it was refused."""
        self._qtest.write_value(self._local, 8, 0)
        self._start(_OP_READ, iova, 0, 8)
        if not self.wait():
            return None
        return self._qtest.read_value(self._local, 8)

    def start_fill(self, iova: int, size: int, value: int) -> None:
        """Begin to write ``value``, 8 bytes over and over."""
        self._start(_OP_FILL, iova, value, size)

    def copy(self, source: int, target: int, size: int) -> bool:
        """Copy memory; False when it was refused, see :meth:`fault`."""
        self._start(_OP_COPY, source, target, size)
        return self.wait()

    def checksum(self, iova: int, size: int) -> int | None:
        """Return the CRC-32 of memory; None when it was refused."""
        self._start(_OP_CHECKSUM, iova, 0, size)
        if not self.wait():
            return None
        return self._qtest.read_value(self._regs + _RESULT, 8)

    def fault(self) -> tuple[int, bool]:
        """Return the first address that was refused, and whether to a write."""
        address = self._qtest.read_value(self._regs + _FAULT_ADDRESS, 8)
        return address, bool(self._register(_FAULT_INFO) & _FAULT_WRITE)

    def trigger(self, vector: int) -> None:
        """Raise an MSI-X vector."""
        self._qtest.write_value(self._regs + _IRQ_TRIGGER, 4, vector)

    def wait(self) -> bool:
        """Wait for the end of the transaction; False when it was refused.

        :raise TargetLostError: When it does not end, or ends otherwise.
        """
        deadline = time.monotonic() + _TIMEOUT
        # Each look is a message to the device and back: no busy loop.
        while (status := self._register(_STATUS)) == _BUSY:
            if time.monotonic() > deadline:
                raise TargetLostError(f"a DMA does not end within {_TIMEOUT:g} s")
        if status not in (_OK, _FAULT):
            raise TargetLostError(f"a DMA ended with engine status {status}")
        return status == _OK

    def _register(self, offset: int) -> int:
        return self._qtest.read_value(self._regs + offset, 4)

    def _start(self, opcode: int, iova: int, operand: int, length: int) -> None:
        write = self._qtest.write_value
        write(self._regs + _IOVA, 8, iova)
        write(self._regs + _OPERAND, 8, operand)
        write(self._regs + _LENGTH, 8, length)
        write(self._regs + _COMMAND, 4, opcode)
