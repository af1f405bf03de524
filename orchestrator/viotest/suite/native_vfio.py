# SPDX-License-Identifier: GPL-2.0-or-later
"""Drivers in userspace, the least there can be, over an open :class:`Passthrough`.

They show that vfio-pci hands over what the kernel's driver had before: registers,
DMA, interrupts, faults. Registers: device/core/include/ioat_regs.h, and NVM Express
1.4.
"""

from __future__ import annotations

import struct
import time
from typing import TYPE_CHECKING

from viotest.suite.judgement import CheckFailed, expect
from viotest.suite.passthrough import PAGE

if TYPE_CHECKING:
    from viotest.suite.passthrough import Passthrough

_PATIENCE = 5.0

# The first channel of the I/OAT endpoint.
_CHANNEL = 0x80
_INTRCTRL = 0x03
_INTRCTRL_MSIX = 0x08
_CHANCTRL = _CHANNEL + 0x00
_CHANCTRL_REARM = 0x0001
_CHANCMD = _CHANNEL + 0x04
_CHANCMD_RESET = 0x20
_DMACOUNT = _CHANNEL + 0x06
_CHANSTS = _CHANNEL + 0x08
_CHAINADDR = _CHANNEL + 0x10
_CHANERR = _CHANNEL + 0x28
_ACTIVE, _DONE, _SUSPENDED, _HALTED = range(4)
_DESC_INTERRUPT = 0x01

#: CHANERR of a source that cannot be read, and of a destination that cannot be written.
CHANERR_READ_DATA = 0x100
CHANERR_WRITE_DATA = 0x200

_NVME_VS = 0x08
_NVME_INTMS = 0x0C
_NVME_CC = 0x14
_NVME_CSTS = 0x1C
_NVME_AQA = 0x24
_NVME_ASQ = 0x28
_NVME_ACQ = 0x30
_NVME_SQ0_TAIL = 0x1000
_NVME_VERSION = 0x10400
_NVME_ENABLE = 0x460001
_NVME_IDENTIFY = 0x06
_NVME_CNS_CONTROLLER = 1


def _read(pt: Passthrough, offset: int, size: int) -> int:
    value = pt.probe.call("bar-read", bar=0, offset=offset, size=size)["value"]
    assert isinstance(value, int)
    return value


def _write(pt: Passthrough, offset: int, value: int, size: int) -> None:
    pt.probe.call("bar-write", bar=0, offset=offset, value=value, size=size)


def _wait(pt: Passthrough, offset: int, mask: int, *, unlike: int, what: str) -> int:
    # A register tells nobody that it changes.
    deadline = time.monotonic() + _PATIENCE
    while (value := _read(pt, offset, 4) & mask) == unlike:
        if time.monotonic() > deadline:
            raise CheckFailed(f"{what} is still {unlike:#x} after {_PATIENCE:.0f} s")
    return value


class Ioat:
    """The first channel of an I/OAT endpoint.

    :param pt: The endpoint, open.
    :param ring: A mapped buffer of one page.
    :param ring_iova: Where it is mapped.
    """

    def __init__(self, pt: Passthrough, ring: str, ring_iova: int) -> None:
        self._pt = pt
        self._ring = ring
        self._ring_iova = ring_iova

    def reset(self) -> None:
        """Reset the channel, and let its interrupts come by MSI-X."""
        pt = self._pt
        _write(pt, _CHANERR, _read(pt, _CHANERR, 4), 4)
        _write(pt, _CHANCMD, _CHANCMD_RESET, 1)
        expect(_read(pt, _CHANSTS, 8) & 7, _HALTED, "channel state after a reset")
        _write(pt, _INTRCTRL, _INTRCTRL_MSIX, 1)

    def copy(self, source: int, target: int, length: int) -> int:
        """Copy by one descriptor.

        :return: CHANERR: 0 if it went well.
        """
        pt = self._pt
        descriptor = struct.pack(
            "<IIQQQ", length, _DESC_INTERRUPT, source, target, self._ring_iova
        )
        pt.probe.call("poke", name=self._ring, hex=descriptor.hex())
        _write(pt, _CHANCTRL, _CHANCTRL_REARM, 2)
        _write(pt, _CHAINADDR, self._ring_iova, 8)
        _write(pt, _DMACOUNT, 1, 2)
        state = _wait(pt, _CHANSTS, 7, unlike=_ACTIVE, what="the channel's state")
        error = _read(pt, _CHANERR, 4)
        expect(state, _HALTED if error else _DONE, "channel state after the copy")
        return error


def nvme_identify(pt: Passthrough, area: str, iova: int) -> str:
    """Bring an NVMe controller up, ask it who it is, and shut it down again.

    :param pt: The endpoint, open.
    :param area: A mapped buffer of three pages.
    :param iova: Where it is mapped.
    :return: The model's name.
    """
    expect(_read(pt, _NVME_VS, 4), _NVME_VERSION, "NVMe version register")
    # Completions are polled for, and INTx is nobody's: the guest's kernel would find
    # a line that nobody cares for.
    _write(pt, _NVME_INTMS, 0xFFFFFFFF, 4)
    _write(pt, _NVME_AQA, 1 << 16 | 1, 4)
    _write(pt, _NVME_ASQ, iova, 8)
    _write(pt, _NVME_ACQ, iova + PAGE, 8)
    _write(pt, _NVME_CC, _NVME_ENABLE, 4)
    ready = _wait(pt, _NVME_CSTS, 3, unlike=0, what="CSTS")
    expect(ready, 1, "CSTS: ready, and not fatal")
    command = bytearray(64)
    struct.pack_into("<BxHI", command, 0, _NVME_IDENTIFY, 7, 0)
    struct.pack_into("<Q", command, 24, iova + 2 * PAGE)
    struct.pack_into("<I", command, 40, _NVME_CNS_CONTROLLER)
    pt.probe.call("poke", name=area, hex=command.hex())
    _write(pt, _NVME_SQ0_TAIL, 1, 4)
    deadline = time.monotonic() + _PATIENCE
    while not (entry := bytes.fromhex(pt.peek(area, PAGE, 16)))[14] & 1:
        if time.monotonic() > deadline:
            raise CheckFailed(f"no completion of Identify in {_PATIENCE:.0f} s")
    cid, status = struct.unpack_from("<HH", entry, 12)
    expect((cid, status >> 1), (7, 0), "identifier and status of the completion")
    _write(pt, _NVME_CC, 0, 4)
    return bytes.fromhex(pt.peek(area, 2 * PAGE + 24, 40)).decode("ascii").strip()


# Registers of the Intel 82576, whose datasheet names them.
_IGB_CTRL, _IGB_RAL0, _IGB_RAH0 = 0x0000, 0x5400, 0x5404
_IGB_CTRL_RST = 1 << 26
_IGB_RAH_VALID = 1 << 31


def igb_registers(pt: Passthrough) -> None:
    """Reset an igb by its own register, and find its address afterwards.

    It has nobody to talk to, and so no DMA to make.

    :raise CheckFailed: When it has no valid address, or keeps what is written to it.
    """
    _write(pt, _IGB_RAL0, 0x12345678, 4)
    expect(_read(pt, _IGB_RAL0, 4), 0x12345678, "RAL0, written")
    _write(pt, _IGB_CTRL, _read(pt, _IGB_CTRL, 4) | _IGB_CTRL_RST, 4)
    _wait(pt, _IGB_CTRL, _IGB_CTRL_RST, unlike=_IGB_CTRL_RST, what="CTRL.RST")
    high = _read(pt, _IGB_RAH0, 4)
    expect(high & _IGB_RAH_VALID, _IGB_RAH_VALID, "RAH0.AV: the address is valid")
    # The EEPROM's: QEMU's own, 52:54:00:...
    expect(_read(pt, _IGB_RAL0, 4) & 0xFFFFFF, 0x005452, "RAL0 after the reset")
