# SPDX-License-Identifier: GPL-2.0-or-later
"""What the checks do, as functions over an open :class:`Passthrough`.

Each step makes its own buffers and maps them at addresses that were not used before,
and takes them away again, so that steps can follow each other in any order and be
repeated.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from viotest.guest.probe import ProbeError
from viotest.suite.judgement import CheckFailed, expect
from viotest.suite.observe import DeviceWatch, expect_guest_fault
from viotest.suite.passthrough import PAGE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

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
    """The device logs a fault, and puts it on its event queue."""
    iova = pt.fresh_iova(PAGE)
    watch = DeviceWatch(log)
    before = log.counters()[_TOLD]
    pt.expect_fault("fill", iova, WORD, address=iova, reasons=("mapping",))
    watch.expect_fault(pt.endpoint.endpoint_id, iova)
    # The thread that fills the queue has answered our reads of the slot since then.
    expect(
        log.counters()[_TOLD] - before,
        1,
        "faults that the device put on its event queue",
        cause="the driver gave it no buffer, or the device lost the event",
    )


# Of VIOMMU_COUNTERS: events that the driver can see.
_TOLD = "faults-reported"


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
    pt.expect_filled("new", 0)
    pt.expect_untouched("gone", GUARD)
    pt.unmap(iova, PAGE)
    pt.free("new")
    pt.free("gone")


def reattach(pt: Passthrough, reasons: FaultReasons) -> None:
    """A detached endpoint reaches nothing; attached again, its mappings are back.

    IOMMU_IOAS_MAP is not called again: iommufd replays what the address space holds,
    what was mapped while the endpoint was away included.
    """
    with mapped(pt, "kept", PAGE, flags="rw", byte=0) as kept:
        pt.expect_dma("fill", kept, PAGE)
        pt.detach()
        pt.probe.call("set", name="kept", byte=GUARD)
        _expect_detached(pt, kept, reasons)
        pt.expect_untouched("kept", GUARD)
        with mapped(pt, "late", PAGE, flags="rw", byte=GUARD) as late:
            _expect_detached(pt, late, reasons)
            pt.attach()
            for name, iova in (("kept", kept), ("late", late)):
                pt.expect_dma("fill", iova, PAGE, operand=0)
                pt.expect_filled(name, 0)


def _expect_detached(pt: Passthrough, iova: int, reasons: FaultReasons) -> None:
    # VFIO leaves it in an empty domain, or in none.
    pt.expect_fault(
        "fill", iova, WORD, address=iova, reasons=(*reasons.unmapped, "domain")
    )


def replace(pt: Passthrough, reasons: FaultReasons) -> None:
    """To another address space and back, without a detach.

    Both map the same address to another page, and each has one that the other lacks.
    """
    other = pt.ioas_alloc()
    with mapped(pt, "own", 2 * PAGE, flags="rw", byte=GUARD) as iova:
        pt.buffer("other", PAGE, byte=GUARD)
        pt.map("other", iova, ioas=other)
        pt.attach(other)
        pt.expect_dma("fill", iova, PAGE, operand=0)
        pt.expect_filled("other", 0)
        pt.expect_untouched("own", GUARD)
        beyond = iova + PAGE
        pt.expect_fault("fill", beyond, WORD, address=beyond, reasons=reasons.unmapped)
        pt.attach()
        pt.probe.call("set", name="other", byte=GUARD)
        pt.expect_dma("fill", iova, 2 * PAGE, operand=0)
        pt.expect_filled("own", 0)
        pt.expect_untouched("other", GUARD)
    pt.destroy(other)
    pt.free("other")


# enum iommufd_hwpt_alloc_flags of include/uapi/linux/iommufd.h.
_HWPT_FLAGS = {
    "IOMMU_HWPT_ALLOC_NEST_PARENT": 1 << 0,
    "IOMMU_HWPT_ALLOC_DIRTY_TRACKING": 1 << 1,
}


def hw_info(pt: Passthrough) -> None:
    """Nothing is promised that virtio-iommu has not, and none of it can be had."""
    promised = pt.probe.call("hw-info")["dirty_tracking"]
    expect(promised, False, "IOMMU_HW_CAP_DIRTY_TRACKING")
    for name, flags in _HWPT_FLAGS.items():
        seen = refusal(pt, "hwpt-alloc", flags=flags)
        expect(seen, "EOPNOTSUPP", f"IOMMU_HWPT_ALLOC with {name}")


def refusal(pt: Passthrough, command: str, /, **args: Any) -> str:
    """Return the name of the error that a command is refused with."""
    try:
        pt.probe.call(command, **args)
    except ProbeError as error:
        return error.error
    return "no error"


def iova_ranges(
    pt: Passthrough, group: str, msi_window: tuple[int, int] | None
) -> None:
    """What the group reserves is in no range, and is refused to a mapping."""
    path = f"/sys/kernel/iommu_groups/{group}/reserved_regions"
    reserved = _parse_regions(str(pt.probe.call("read", path=path)["text"]))
    if msi_window is not None and msi_window not in reserved:
        raise CheckFailed(
            "the interrupt window is not reserved",
            expected=_show_ranges([msi_window]),
            seen=_show_ranges(reserved),
            cause="the RESV_MEM property of the endpoint's PROBE was not heeded",
        )
    shown = _show_ranges(pt.iova_ranges)
    for first, last in reserved:
        if any(low <= last and first <= high for low, high in pt.iova_ranges):
            raise CheckFailed(
                f"the reserved region from {first:#x} may be mapped",
                expected=f"nothing between {first:#x} and {last:#x}",
                seen=shown,
            )
        pt.buffer("no", PAGE)
        seen = refusal(pt, "map", name="no", iova=first)
        expect(seen in ("EINVAL", "EADDRINUSE"), True, f"map at {first:#x} is refused")
        pt.free("no")
    # And the addresses that the other checks use are there.
    iova = pt.fresh_iova(PAGE)
    inside = any(low <= iova <= high for low, high in pt.iova_ranges)
    expect(inside, True, f"{iova:#x} in {shown}")


def _parse_regions(text: str) -> list[tuple[int, int]]:
    lines = [line.split() for line in text.splitlines()]
    return [
        (int(first, 16), int(last, 16))
        for first, last, kind in lines
        if kind != "direct-relaxable"
    ]


def _show_ranges(ranges: Iterable[tuple[int, int]]) -> str:
    return ", ".join(f"{low:#x}-{high:#x}" for low, high in ranges) or "none"


def _expect_reported_fault(
    pt: Passthrough, op: str, iova: int, reasons: tuple[str, ...]
) -> Dma:
    def access() -> Dma:
        return pt.expect_fault(op, iova, WORD, address=iova, reasons=reasons)

    seen = access()
    expect(seen.done, 0, f"bytes moved by the refused {op}")
    expect_guest_fault(pt.probe, pt.endpoint.endpoint_id, iova, access)
    return seen


def enable_irqs(pt: Passthrough, index: str) -> int:
    """Enable all vectors of ``msix`` or ``msi``; return how many that are.

    Without interrupt remapping x86 has one MSI vector for a function, and says so.
    """
    vectors = pt.nr_vectors()
    try:
        pt.probe.call("irq-enable", index=index, vectors=vectors)
    except ProbeError as error:
        if index != "msi" or error.error != "ENOSPC":
            raise
        vectors = 1
        pt.probe.call("irq-enable", index=index, vectors=vectors)
    return vectors


def interrupts(pt: Passthrough, index: str = "msix") -> None:
    """Each vector, raised by register and by the end of a transaction.

    :param index: ``msix`` or ``msi``.
    """
    vectors = enable_irqs(pt, index)
    with mapped(pt, "page", PAGE, flags="rw", byte=0) as page:
        for vector in range(vectors):
            pt.probe.call("irq-trigger", index=index, vector=vector)
            pt.expect_irq(vector, index=index)
            pt.submit(0, "fill", page, 8, irq=index, vector=vector)
            pt.expect_irq(vector, index=index)
            expect(pt.wait(0).status, "ok", "transaction behind the interrupt")
    pt.probe.call("irq-disable", index=index)


# A range this large over little memory: its transactions outlast what goes on beside.
_LOAD, _LOAD_MEMORY = 16 * MIB, 256 * KIB
#: So many of them, and more where all had ended too early: not the engine's last slots.
LOAD_SLOTS = (32, 120)


def flr(pt: Passthrough) -> None:
    """A reset under load: transactions end, registers clear, and then it works."""
    load = pt.fresh_iova(_LOAD)
    pt.buffer("load", _LOAD, alias=_LOAD_MEMORY)
    pt.probe.call("set", name="load", byte=1, size=_LOAD_MEMORY)
    pt.map("load", load, flags="r")
    for nr_slots in LOAD_SLOTS:
        if _reset_under_load(pt, load, nr_slots):
            break
    seen = pt.expect_dma("checksum", load, PAGE)
    expect(seen.result, pt.crc("load", size=PAGE), "CRC-32 after the reset")
    pt.unmap(load, _LOAD)
    pt.free("load")


def _reset_under_load(pt: Passthrough, load: int, nr_slots: int) -> bool:
    # Whether there was any load left when the reset came.
    pt.local_write(8, 0x5A5A5A5A, 4)
    pt.scratch_write(0x5A5A5A5A)
    expect(pt.scratch_read(), 0x5A5A5A5A, "scratch register before the reset")
    for slot in range(nr_slots):
        pt.submit(slot, "checksum", load, _LOAD)
    busy = pt.in_flight()
    # vfio-pci saves and restores configuration space around the reset.
    pt.probe.call("reset")
    expect(pt.in_flight(), 0, "transactions in flight after the reset")
    expect(pt.scratch_read(), 0, "scratch register after the reset")
    expect(pt.local_read(8, 4), 0, "local memory after the reset")
    return busy > 0


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
    # Each line of the address counts: no place is another one, too.
    places = [0, *(8 << line for line in range(19))]
    for at in places:
        pt.local_write(at, at + 1, 8)
    for at in places:
        expect(pt.local_read(at, 8), at + 1, f"local memory at {at:#x}, of many")


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
