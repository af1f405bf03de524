# SPDX-License-Identifier: GPL-2.0-or-later
"""What the checks do, as functions over an open :class:`Passthrough`.

Each step makes its own buffers and maps them at addresses that were not used before,
and takes them away again, so that steps can follow each other in any order and be
repeated.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from viotest.suite.judgement import expect
from viotest.suite.observe import DeviceWatch, expect_guest_fault
from viotest.suite.passthrough import PAGE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from viotest.report.device_log import DeviceLog
    from viotest.suite.passthrough import Dma, Passthrough

KIB = 1024
MIB = 1024 * KIB

#: Sizes by the name in the check's id: (length, offset into the mapping) pairs.
#: ``odd``: one byte, across one page edge, and lengths that no power of two divides.
SIZES: dict[str, tuple[tuple[int, int], ...]] = {
    "4KiB": ((4 * KIB, 0),),
    "64KiB": ((64 * KIB, 0),),
    "2MiB": ((2 * MIB, 0),),
    "odd": ((1, 1), (3, 4094), (4095, 1), (4097, 7), (65537, 5), (123457, 4099)),
}

#: Length of an access that is to be refused. The guest's driver drops all but ten
#: messages in five seconds (dev_err_ratelimited), and QEMU's virtio-iommu reports
#: one fault for every four bytes.
WORD = 4

#: What memory holds that nobody may write to.
GUARD = 0xA5


def _span(length: int, offset: int) -> int:
    """Bytes of a mapping that holds the range and one guard page behind it."""
    return -(-(offset + length) // PAGE) * PAGE + PAGE


@contextmanager
def mapped(
    pt: Passthrough, name: str, size: int, *, flags: str, byte: int
) -> Iterator[int]:
    """A fresh buffer, filled with ``byte`` and mapped; then unmapped and freed.

    :return: Its address in the endpoint's address space.
    """
    iova = pt.fresh_iova(size)
    pt.buffer(name, size, byte=byte)
    pt.map(name, iova, flags=flags)
    yield iova
    pt.unmap(iova, size)
    pt.free(name)


def dma_read(pt: Passthrough, length: int, offset: int) -> None:
    """Memory to the endpoint, through a read-only mapping.

    What arrived is looked at twice: by the checksum that the engine computes on its
    way, and by the first and last bytes in the engine's local memory.
    """
    size = _span(length, offset)
    with mapped(pt, "src", size, flags="r", byte=0) as src:
        pt.fill("src", seed=length)
        crc = pt.crc("src", offset=offset, size=length)
        seen = pt.expect_dma("checksum", src + offset, length)
        expect(seen.result, crc, f"CRC-32 of {length} bytes", cause=_WRONG_BYTES)
        pt.expect_dma("read", src + offset, length)
        edge = min(length, 8)
        for at in (0, length - edge):
            expect(
                pt.local_bytes(at, edge),
                pt.peek("src", offset + at, edge),
                f"bytes {at} to {at + edge - 1} of {length} in the engine's memory",
                cause=_WRONG_BYTES,
            )


def dma_write(pt: Passthrough, length: int, offset: int) -> None:
    """The endpoint to memory, through a write-only mapping; guards stay untouched."""
    size = _span(length, offset)
    with (
        mapped(pt, "src", size, flags="r", byte=0) as src,
        mapped(pt, "dst", size, flags="w", byte=GUARD) as dst,
    ):
        pt.fill("src", seed=length + 1)
        pt.expect_dma("read", src + offset, length)
        pt.expect_dma("write", dst + offset, length)
        _expect_arrived(pt, length, offset, size)


def dma_copy(pt: Passthrough, length: int, offset: int) -> None:
    """Memory to memory, between two mappings; guards stay untouched."""
    size = _span(length, offset)
    with (
        mapped(pt, "src", size, flags="r", byte=0) as src,
        mapped(pt, "dst", size, flags="rw", byte=GUARD) as dst,
    ):
        pt.fill("src", seed=length + 2)
        pt.expect_dma("copy", src + offset, length, operand=dst + offset)
        _expect_arrived(pt, length, offset, size)


_WRONG_BYTES = "the IOMMU translates to another page, or the memory is not shared"


def _expect_arrived(pt: Passthrough, length: int, offset: int, size: int) -> None:
    pt.expect_equal("src", "dst", length, offset_a=offset, offset_b=offset)
    if offset:
        pt.expect_untouched("dst", GUARD, offset=0, size=offset)
    after = offset + length
    pt.expect_untouched("dst", GUARD, offset=after, size=size - after)


def dma_in_flight(pt: Passthrough) -> None:
    """64 copies submitted before the first is waited for."""
    count, chunk = 64, 16 * KIB
    with (
        mapped(pt, "src", count * chunk, flags="r", byte=0) as src,
        mapped(pt, "dst", count * chunk, flags="w", byte=GUARD) as dst,
    ):
        pt.fill("src", seed=count)
        pt.many("copy", src, chunk, count=count, operand=dst)
        pt.expect_equal("src", "dst", count * chunk)


@dataclass(frozen=True)
class FaultReasons:
    """How the endpoint may name a refusal, see ``enum dma_engine_fault``."""

    unmapped: tuple[str, ...]
    permission: tuple[str, ...]
    #: A mapping for writes refuses reads; virtio leaves that to the device.
    write_only: bool


def fault_unmapped(pt: Passthrough, reasons: FaultReasons) -> None:
    """Accesses outside every mapping: refused, reported to the guest, no byte moved."""
    with mapped(pt, "island", PAGE, flags="rw", byte=GUARD) as island:
        outside = island + PAGE
        for op in ("read", "write"):
            seen = _expect_reported_fault(pt, op, outside, reasons.unmapped)
            expect(seen.fault_write, op == "write", "the refused access is a write")
        pt.expect_untouched("island", GUARD)
        # Across the end of the mapping: exactly the bytes before the end move.
        edge, length = outside - 16, 16 + WORD
        seen = pt.expect_fault(
            "fill", edge, length, address=outside, reasons=reasons.unmapped
        )
        expect(seen.done, 16, "bytes moved before the end of the mapping")
        pt.expect_untouched("island", GUARD, offset=0, size=PAGE - 16)


def fault_permission(pt: Passthrough, reasons: FaultReasons) -> None:
    """A write through a read-only mapping: refused, reported, no byte moved.

    And the other way round, where the IOMMU refuses that: it may let reads through a
    mapping for writes.
    """
    with mapped(pt, "rom", PAGE, flags="r", byte=GUARD) as rom:
        pt.expect_dma("checksum", rom, PAGE)
        seen = _expect_reported_fault(pt, "fill", rom, reasons.permission)
        expect(seen.fault_write, True, "the refused access is a write")
        pt.expect_untouched("rom", GUARD)
    if not reasons.write_only:
        return
    with mapped(pt, "sink", PAGE, flags="w", byte=GUARD) as sink:
        pt.expect_dma("fill", sink, WORD)
        seen = pt.expect_fault(
            "read", sink, WORD, address=sink, reasons=reasons.permission
        )
        expect(seen.fault_write, False, "the refused access is a write")


def fault_event(pt: Passthrough, log: DeviceLog) -> None:
    """What the guest is told of a fault is what the device says that it told."""
    iova = pt.fresh_iova(PAGE)
    watch = DeviceWatch(log)
    pt.expect_fault("fill", iova, WORD, address=iova, reasons=("mapping",))
    watch.expect_fault(pt.endpoint.endpoint_id, iova)


def unmap(pt: Passthrough, reasons: FaultReasons) -> None:
    """What went through before an unmap is refused after it, and a new map is new."""
    iova = pt.fresh_iova(PAGE)
    pt.buffer("gone", PAGE, byte=0)
    pt.map("gone", iova)
    pt.expect_dma("fill", iova, PAGE)
    pt.unmap(iova, PAGE)
    pt.probe.call("set", name="gone", byte=GUARD)
    pt.expect_fault("fill", iova, WORD, address=iova, reasons=reasons.unmapped)
    pt.expect_untouched("gone", GUARD)
    # The same address again: it must lead to the new page, not to the old one.
    pt.buffer("new", PAGE, byte=GUARD)
    pt.map("new", iova)
    pt.expect_dma("fill", iova, PAGE, operand=0)
    pt.expect_untouched("new", 0)
    pt.expect_untouched("gone", GUARD)
    pt.unmap(iova, PAGE)
    pt.free("new")
    pt.free("gone")


def _expect_reported_fault(
    pt: Passthrough, op: str, iova: int, reasons: tuple[str, ...]
) -> Dma:
    def access() -> Dma:
        return pt.expect_fault(op, iova, WORD, address=iova, reasons=reasons)

    seen = access()
    expect(seen.done, 0, f"bytes moved by the refused {op}")
    expect_guest_fault(pt.probe, pt.endpoint.endpoint_id, iova, access)
    return seen


def interrupts(pt: Passthrough) -> None:
    """Each MSI-X vector, raised by register and by the end of a transaction."""
    vectors = pt.nr_vectors()
    pt.probe.call("irq-enable", index="msix", vectors=vectors)
    with mapped(pt, "page", PAGE, flags="rw", byte=0) as page:
        for vector in range(vectors):
            pt.probe.call("irq-trigger", vector=vector)
            pt.expect_irq(vector)
            pt.submit(0, "fill", page, 8, irq="msix", vector=vector)
            pt.expect_irq(vector)
            expect(pt.wait(0).status, "ok", "transaction behind the interrupt")
    pt.probe.call("irq-disable", index="msix")


def flr(pt: Passthrough) -> None:
    """A reset under load: transactions end, registers clear, and then it works."""
    size = 2 * MIB
    with mapped(pt, "load", size, flags="r", byte=1) as load:
        pt.local_write(8, 0x5A5A5A5A, 4)
        pt.scratch_write(0x5A5A5A5A)
        expect(pt.scratch_read(), 0x5A5A5A5A, "scratch register before the reset")
        for slot in range(32):
            pt.submit(slot, "checksum", load, size)
        # vfio-pci saves and restores configuration space around the reset.
        pt.probe.call("reset")
        expect(pt.scratch_read(), 0, "scratch register after the reset")
        expect(pt.local_read(8, 4), 0, "local memory after the reset")
        expect(pt.in_flight(), 0, "transactions in flight after the reset")
        expect(
            pt.expect_dma("checksum", load, PAGE).result,
            pt.crc("load", size=PAGE),
            "CRC-32 after the reset",
        )


def bars(pt: Passthrough) -> None:
    """Configuration space and both BARs, in every access size."""
    for at, size, value in ((0, 2, 0x1234), (2, 2, 0x7E57), (0, 4, 0x7E571234)):
        expect(pt.config_read(at, size), value, f"config space at {at:#x}/{size}")
    info = pt.engine()
    expect(info["magic"], 0x414D4456, "magic of the dma engine")
    pt.scratch_write(0xC0FFEE01)
    expect(pt.scratch_read(), 0xC0FFEE01, "scratch register")
    pt.scratch_write(0)
    value = 0x8877665544332211
    for at, size in ((0, 8), (16, 4), (24, 2), (32, 1), (4 * MIB - 8, 8)):
        part = value & (1 << 8 * size) - 1
        pt.local_write(at, part, size)
        expect(pt.local_read(at, size), part, f"local memory at {at:#x}/{size}")


def bus_master(pt: Passthrough) -> None:
    """Without bus mastering nothing moves."""
    with mapped(pt, "page", PAGE, flags="rw", byte=GUARD) as page:
        pt.probe.call("bus-master", on=0)
        expect(pt.dma("fill", page, PAGE).status, "no-bus-master", "DMA")
        pt.expect_untouched("page", GUARD)
        pt.probe.call("bus-master", on=1)
        # It writes nothing: a wrong translation is for dma-read to find, alive.
        pt.expect_dma("checksum", page, PAGE)


def everything(pt: Passthrough, reasons: FaultReasons) -> None:
    """All steps, the small sizes: what a second binding must be able to do again."""
    bars(pt)
    for step in (dma_read, dma_write, dma_copy):
        for length, offset in SIZES["4KiB"] + SIZES["odd"][:2]:
            step(pt, length, offset)
    unmap(pt, reasons)
    if pt.nr_vectors():
        interrupts(pt)
    flr(pt)
