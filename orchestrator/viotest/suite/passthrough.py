# SPDX-License-Identifier: GPL-2.0-or-later
"""An endpoint in the hands of the guest's userspace: :class:`Passthrough`.

Every method is one command of vfio-probe in the guest; what the kernel refuses
comes back as :class:`~viotest.guest.probe.ProbeError`.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import TYPE_CHECKING

from viotest.guest.probe import ProbeError
from viotest.suite.judgement import CheckFailed, expect, expect_addresses

if TYPE_CHECKING:
    from collections.abc import Mapping

    from viotest.guest.probe import Probe
    from viotest.scenario.model import EndpointFunction, Mode

PAGE = 4096

# Above 4 GiB, where no kernel puts maps of its own for a 32-bit device.
_FIRST_IOVA = 0x1_0000_0000
_IOVA_STEP = 0x20_0000

# Registers of dma_engine.h.
_IN_FLIGHT = 0x014
_SCRATCH = 0x01C

# As a person calls what the probe calls an index.
_IRQ_NAMES = {"msix": "MSI-X vector {}", "msi": "MSI vector {}", "intx": "INTx"}


@dataclass(frozen=True)
class Dma:
    """How a transaction ended, as its slot says."""

    #: ``ok``, ``fault``, ``invalid``, ``no-bus-master``, ``aborted``.
    status: str
    #: Bytes moved.
    done: int
    #: CHECKSUM: the CRC-32.
    result: int
    #: First address that was refused.
    fault_addr: int
    #: ``none``, ``domain``, ``mapping``, ``permission``, ``reserved``, ``bus``.
    fault_reason: str
    #: The refused access was a write.
    fault_write: bool


class Passthrough:
    """One endpoint, opened through VFIO in one mode.

    :param probe: The guest's vfio-probe.
    :param endpoint: The endpoint.
    :param mode: How to enter VFIO.
    :param device: What the probe calls it, when it has several open.
    """

    def __init__(
        self,
        probe: Probe,
        endpoint: EndpointFunction,
        mode: Mode,
        *,
        device: str = "",
    ) -> None:
        self.probe = probe.device(device)
        self.device = device
        self.endpoint = endpoint
        self.mode = mode
        #: The file of the group, or of the device, that was opened.
        self.node = ""
        #: First and last address of each range that may be mapped.
        self.iova_ranges: tuple[tuple[int, int], ...] = ()
        self._next_iova = _FIRST_IOVA
        self._buffers: set[str] = set()
        #: A check has failed: mappings, buffers and interrupts may be left over.
        self.tainted = False

    def open(self, *, share: Passthrough | None = None) -> None:
        """Open and attach as the mode has it, and switch bus mastering on.

        :param share: Another one that is open, whose mappings are to be its too.
        :raise CheckFailed: When nothing can be mapped then.
        """
        bdf, mode = self.endpoint.bdf, str(self.mode)
        if share is None:
            info = self.probe.call("open", bdf=bdf, mode=mode)
        else:
            info = self.probe.call("open", bdf=bdf, mode=mode, share=share.device)
        self.node = str(info["node"])
        ranges = info["iova_ranges"]
        assert isinstance(ranges, list)
        self.iova_ranges = tuple((r["start"], r["end"]) for r in ranges)
        try:
            expect_addresses(self.iova_ranges)
            self.probe.call("bus-master", on=1)
        except (ProbeError, CheckFailed):
            self.close()
            raise

    def close(self) -> None:
        """Close all; mappings and buffers are gone."""
        self.probe.call("close")
        for name in tuple(self._buffers):
            self.free(name)

    # -- memory

    def fresh_iova(self, size: int) -> int:
        """Return an address that was not mapped before since the endpoint was opened.

        What a broken unmap leaves behind is then found by the check that looks for
        it, and by no other. The next range begins well behind this one.

        :param size: Bytes that will be mapped there.
        """
        iova = self._next_iova
        self._next_iova += -(-size // _IOVA_STEP) * _IOVA_STEP + _IOVA_STEP
        return iova

    def buffer(
        self,
        name: str,
        size: int,
        *,
        byte: int | None = None,
        huge: bool = False,
        alias: int = 0,
    ) -> None:
        """Make a buffer of ``size`` bytes, filled with ``byte`` if given.

        :param huge: Of huge pages, which the guest must have.
        :param alias: It is so many bytes again and again; 0: all of it is memory.
        """
        kind = {"huge": 1} if huge else {}
        kind |= {"alias": alias} if alias else {}
        self.probe.call("buf", name=name, size=size, **kind)
        self._buffers.add(name)
        if byte is not None:
            self.probe.call("set", name=name, byte=byte)

    def free(self, name: str) -> None:
        """Give a buffer back; it must not be mapped any more."""
        self.probe.call("buf-free", name=name)
        self._buffers.discard(name)

    def fill(self, name: str, seed: int, *, offset: int = 0, size: int = 0) -> None:
        """Fill a buffer with the pattern of ``seed``; size 0: to the end."""
        args = {"size": size} if size else {}
        self.probe.call("fill", name=name, seed=seed, offset=offset, **args)

    def map(
        self, name: str, iova: int, *, flags: str = "rw", ioas: int | None = None
    ) -> None:
        """Map a whole buffer at ``iova``; flags ``r``, ``w`` or ``rw``.

        :param ioas: An address space of :meth:`ioas_alloc`; default: the mode's own.
        """
        where = {} if ioas is None else {"ioas": ioas}
        self.probe.call("map", name=name, iova=iova, flags=flags, **where)

    def unmap(self, iova: int, size: int) -> None:
        """Take a mapping away.

        :raise CheckFailed: When the kernel unmapped another number of bytes.
        """
        seen = self.probe.call("unmap", iova=iova, size=size).get("unmapped")
        if seen != size:
            raise CheckFailed(f"unmap of {size} bytes took away {seen}")

    # -- page tables; where the device's own file is open

    def attach(self, pt: int | None = None) -> None:
        """Attach the device, in place of what it is attached to.

        :param pt: An address space or a page table; default: the mode's own.
        """
        self.probe.call("attach", **({} if pt is None else {"pt": pt}))

    def detach(self) -> None:
        """Leave the device attached to nothing."""
        self.probe.call("detach")

    def ioas_alloc(self) -> int:
        """Make a further address space."""
        return _int(self.probe.call("ioas-alloc"), "ioas")

    def destroy(self, pt: int) -> None:
        """Give an address space, or a page table, back."""
        self.probe.call("iommufd-destroy", id=pt)

    # -- what is in memory

    def crc(self, name: str, *, offset: int = 0, size: int = 0) -> int:
        """Return the CRC-32 of (a part of) a buffer, as the guest's CPU sees it."""
        args = {"size": size} if size else {}
        return _int(self.probe.call("crc", name=name, offset=offset, **args), "crc32")

    def expect_equal(
        self, a: str, b: str, size: int, *, offset_a: int = 0, offset_b: int = 0
    ) -> None:
        """Fail unless ``size`` bytes of two buffers are the same."""
        seen = self.probe.call(
            "compare", a=a, b=b, size=size, offset_a=offset_a, offset_b=offset_b
        )
        if not seen["equal"]:
            raise CheckFailed(
                f"{b} differs from {a} at byte {seen['first_difference']} of {size}",
                expected=f"{_int(seen, 'a_byte'):#04x}",
                seen=f"{_int(seen, 'b_byte'):#04x}",
            )

    def expect_untouched(
        self, name: str, byte: int, *, offset: int = 0, size: int = 0
    ) -> None:
        """Fail unless every byte of the range still is ``byte``."""
        args = {"size": size} if size else {}
        seen = self.probe.call("check", name=name, byte=byte, offset=offset, **args)
        if not seen["equal"]:
            raise CheckFailed(
                f"{name} was written at byte {seen['first_difference']}",
                expected="no byte moves",
                cause="an access that should have been refused went through",
            )

    def expect_filled(self, name: str, byte: int, *, size: int = 0) -> None:
        """Fail unless every byte is the ``byte`` that the endpoint has written."""
        args = {"size": size} if size else {}
        seen = self.probe.call("check", name=name, byte=byte, **args)
        if not seen["equal"]:
            raise CheckFailed(
                f"{name} was not written at byte {seen['first_difference']}",
                expected=f"{byte:#04x} in all of {name}",
                seen=f"{_int(seen, 'actual_byte'):#04x}",
                cause="the access ended well, and went to other memory",
            )

    def peek(self, name: str, offset: int, size: int) -> str:
        """Return bytes of a buffer as hexadecimal digits."""
        return str(self.probe.call("peek", name=name, offset=offset, size=size)["hex"])

    # -- configuration space and BARs

    def config_read(self, offset: int, size: int) -> int:
        """Read configuration space through VFIO."""
        return _int(self.probe.call("config-read", offset=offset, size=size), "value")

    def _bar_read(self, bar: int, offset: int, size: int) -> int:
        seen = self.probe.call("bar-read", bar=bar, offset=offset, size=size)
        return _int(seen, "value")

    def bar_write(self, bar: int, offset: int, value: int, size: int) -> None:
        """Write a register: 1, 2, 4 or 8 bytes."""
        self.probe.call("bar-write", bar=bar, offset=offset, size=size, value=value)

    def scratch_read(self) -> int:
        """Read the engine's scratch register (DMA_ENGINE_SCRATCH)."""
        return self._bar_read(0, _SCRATCH, 4)

    def scratch_write(self, value: int) -> None:
        """Write the engine's scratch register."""
        self.bar_write(0, _SCRATCH, value, 4)

    def local_read(self, offset: int, size: int) -> int:
        """Read the engine's local memory: 1, 2, 4 or 8 bytes, little endian."""
        return self._bar_read(2, offset, size)

    def local_write(self, offset: int, value: int, size: int) -> None:
        """Write the engine's local memory: 1, 2, 4 or 8 bytes, little endian."""
        self.bar_write(2, offset, value, size)

    def local_bytes(self, offset: int, size: int) -> str:
        """Return bytes of the engine's local memory as hexadecimal digits."""
        first = offset & ~7
        words = (
            self.local_read(at, 8).to_bytes(8, "little")
            for at in range(first, offset + size, 8)
        )
        return b"".join(words)[offset - first :][:size].hex()

    # -- the engine

    def dma(
        self, op: str, iova: int, length: int, *, operand: int = 0, slot: int = 0
    ) -> Dma:
        """Run one transaction to its end.

        :param op: ``read``, ``write``, ``copy``, ``fill`` or ``checksum``.
        :param iova: Address in the endpoint's address space.
        :param length: Bytes.
        :param operand: See dma_engine.h: local offset, destination or pattern.
        """
        seen = self.probe.call(
            "dma",
            slot=slot,
            op=op,
            iova=iova,
            operand=operand,
            length=length,
            timeout_ms=5000,
        )
        return _dma(seen)

    def in_flight(self) -> int:
        """Return the number of transactions that have not ended."""
        return self._bar_read(0, _IN_FLIGHT, 4)

    def engine(self) -> Mapping[str, object]:
        """Return the engine's own account: magic, slots, vectors, in flight."""
        return self.probe.call("engine-info")

    def nr_vectors(self) -> int:
        """Return the number of its MSI-X vectors; 0 for an engine with INTx only."""
        return _int(self.engine(), "nr_vectors")

    def submit(
        self,
        slot: int,
        op: str,
        iova: int,
        length: int,
        *,
        irq: str = "none",
        vector: int = 0,
    ) -> None:
        """Start a transaction and do not wait for it.

        :param irq: How it announces its end: ``none``, ``msix`` or ``intx``.
        """
        self.probe.call(
            "submit",
            slot=slot,
            op=op,
            iova=iova,
            length=length,
            operand=0,
            irq=irq,
            vector=vector,
        )

    def wait(self, slot: int) -> Dma:
        """Wait for a transaction, at most 5 s."""
        return _dma(self.probe.call("wait", slot=slot, timeout_ms=5000))

    def many(
        self, op: str, iova: int, length: int, *, count: int, operand: int
    ) -> None:
        """Run ``count`` transactions at once over neighbouring ranges.

        :raise CheckFailed: When one of them does not move every byte.
        """
        seen = self.probe.call(
            "dma-many",
            op=op,
            iova=iova,
            length=length,
            stride=length,
            count=count,
            operand=operand,
            operand_stride=length,
            timeout_ms=10000,
        )
        expect(seen["nr_ok"], count, f"{op} transactions that ended well")

    def expect_irq(self, vector: int, *, index: str = "msix") -> None:
        """Fail unless the vector's eventfd fires exactly once.

        :param index: ``msix``, ``msi`` or ``intx``.
        """
        name = _IRQ_NAMES[index].format(vector)
        try:
            seen = self.probe.call(
                "irq-wait", index=index, vector=vector, timeout_ms=2000
            )
        except ProbeError as error:
            if error.errno != errno.ETIMEDOUT:
                raise
            raise CheckFailed(
                f"no interrupt on {name} within 2 s",
                expected="its eventfd is signalled once",
                seen="nothing",
                cause="the device did not raise it, or it went to another vector",
            ) from error
        expect(seen["count"], 1, f"interrupts on {name}")

    def expect_dma(self, op: str, iova: int, length: int, *, operand: int = 0) -> Dma:
        """Run one transaction that must move every byte.

        :raise CheckFailed: When it does not.
        """
        seen = self.dma(op, iova, length, operand=operand)
        if seen.status != "ok" or seen.done != length:
            raise CheckFailed(
                f"{op} of {length} bytes at {iova:#x}: {seen.status}"
                f" ({seen.fault_reason} at {seen.fault_addr:#x})",
                expected=f"ok, {length} bytes",
                seen=f"{seen.status}, {seen.done} bytes",
                cause="the mapping did not reach the IOMMU, or translates wrongly",
            )
        return seen

    def expect_fault(
        self,
        op: str,
        iova: int,
        length: int,
        *,
        address: int,
        reasons: tuple[str, ...],
        operand: int = 0,
    ) -> Dma:
        """Run one transaction that must be refused at ``address``, and not earlier.

        :param address: The first address that must be refused.
        :param reasons: The fault reasons that are right.
        :raise CheckFailed: When it gets through or is refused elsewhere.
        """
        seen = self.dma(op, iova, length, operand=operand)
        if seen.status != "fault":
            raise CheckFailed(
                f"{op} of {length} bytes at {iova:#x} was not refused: {seen.status}",
                expected=f"a fault at {address:#x}",
                seen=f"{seen.status}, {seen.done} bytes moved",
                cause="the IOMMU translates what is not, or no longer, mapped",
            )
        if seen.fault_addr != address or seen.fault_reason not in reasons:
            raise CheckFailed(
                f"{op} at {iova:#x} faulted at {seen.fault_addr:#x}"
                f" ({seen.fault_reason})",
                expected=f"{address:#x} ({' or '.join(reasons)})",
                seen=f"{seen.fault_addr:#x} ({seen.fault_reason})",
            )
        return seen


def _dma(seen: Mapping[str, object]) -> Dma:
    return Dma(
        status=str(seen["status"]),
        done=_int(seen, "done"),
        result=_int(seen, "result"),
        fault_addr=_int(seen, "fault_addr"),
        fault_reason=str(seen["fault_reason"]),
        fault_write=bool(seen["fault_write"]),
    )


def _int(seen: Mapping[str, object], key: str) -> int:
    value = seen[key]
    assert isinstance(value, int), f"{key} is {value!r}"
    return value
