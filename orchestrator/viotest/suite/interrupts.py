# SPDX-License-Identifier: GPL-2.0-or-later
"""Interrupts of every kind: by line, by message, by thousands, by a DMA write."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from viotest.guest.probe import ProbeError
from viotest.suite import steps
from viotest.suite.judgement import CheckFailed, expect
from viotest.suite.passthrough import PAGE
from viotest.suite.steps import mapped

if TYPE_CHECKING:
    from viotest.suite.observe import DeviceWatch
    from viotest.suite.passthrough import Passthrough

# Nothing is to come: all of an interrupt's way is well below this, and a late one is
# found by the count of the next.
_QUIET_MS = 40
_INTX_STATUS = 0x018

# PCI: where the list of capabilities begins, and the one for MSI.
_CAP_POINTER, _CAP_MSI = 0x34, 0x05


# -- the line


def intx(pt: Passthrough) -> None:
    """INTx is a level: masked it waits, and unmasked it comes while it is asserted."""
    pt.probe.call("irq-enable", index="intx")
    _raise(pt)
    pt.expect_irq(0, index="intx")
    # vfio-pci has masked it as it came.
    _raise(pt)
    _expect_quiet(pt, "INTx came though it is masked, by its own arrival")
    _unmask(pt)
    pt.expect_irq(0, index="intx")
    _lower(pt)
    _unmask(pt)
    _expect_quiet(pt, "INTx came though its line is low")
    pt.probe.call("irq-mask", index="intx")
    _raise(pt)
    _expect_quiet(pt, "INTx came though VFIO_DEVICE_SET_IRQS has masked it")
    _unmask(pt)
    pt.expect_irq(0, index="intx")
    _lower(pt)
    _unmask(pt)
    with mapped(pt, "page", PAGE, flags="rw", byte=0) as page:
        _storm(pt, page, "intx", vectors=1, burst=1, count=16)
    pt.probe.call("irq-disable", index="intx")


def _raise(pt: Passthrough) -> None:
    pt.probe.call("irq-trigger", index="intx")


def _lower(pt: Passthrough) -> None:
    pt.bar_write(0, _INTX_STATUS, 1, 4)


def _unmask(pt: Passthrough) -> None:
    pt.probe.call("irq-unmask", index="intx")


def _expect_quiet(pt: Passthrough, what: str, *, index: str = "intx") -> None:
    try:
        seen = pt.probe.call("irq-wait", index=index, timeout_ms=_QUIET_MS)
    except ProbeError as error:
        if error.errno != errno.ETIMEDOUT:
            raise
        return
    raise CheckFailed(
        what,
        expected="no event",
        seen=f"{seen['count']} of them",
    )


# -- messages


def msi(pt: Passthrough) -> None:
    """Each MSI vector that the kernel has, by register and by the end of DMA."""
    steps.interrupts(pt, "msi")


def msi_by_dma(pt: Passthrough, watch: DeviceWatch, window: tuple[int, int]) -> None:
    """The endpoint raises its MSI itself, by writing to the window of interrupts.

    :param watch: The device's log since before.
    """
    steps.enable_irqs(pt, "msi")
    address, data = _msi_of(pt)
    expect(window[0] <= address <= window[1], True, f"{address:#x} is in the window")
    _dma_write(pt, address, data)
    pt.expect_irq(0, index="msi")
    # Another processor's address, and data that is none of ours: nobody's interrupt.
    meant = [(address, data), (address ^ 0x1000, data), (address, data ^ 0x8)]
    for wrong_address, wrong_data in meant[1:]:
        _dma_write(pt, wrong_address, wrong_data)
    _expect_quiet(pt, "a write that means no vector raised one", index="msi")
    writes = [(record.start, record.target) for record in watch.records("msi-write")]
    expect(writes, meant, "writes into the window, as the device logged them")
    seen = pt.dma("read", address, 4)
    expect(seen.status, "fault", "a read of the window")
    pt.probe.call("irq-disable", index="msi")


def _dma_write(pt: Passthrough, address: int, data: int) -> None:
    pt.local_write(0, data, 4)
    pt.expect_dma("write", address, 4)


def _msi_of(pt: Passthrough) -> tuple[int, int]:
    # The real ones, which VFIO hides from whoever it gives the device to.
    at = _config(pt, _CAP_POINTER, 1)
    while at:
        head = _config(pt, at, 2)
        if head & 0xFF == _CAP_MSI:
            return _config(pt, at + 4, 8), _config(pt, at + 12, 2)
        at = head >> 8
    raise CheckFailed("the endpoint has no MSI capability")


def _config(pt: Passthrough, offset: int, size: int) -> int:
    path = f"/sys/bus/pci/devices/{pt.endpoint.bdf}/config"
    value = pt.probe.call("read-at", path=path, offset=offset, size=size)["value"]
    assert isinstance(value, int)
    return value


# -- thousands


def storm(pt: Passthrough, count: int) -> None:
    """As many transactions, each with an interrupt, and nobody looks unless woken.

    Over all vectors at once, one transaction each: not one event may be missing. Then
    bursts on one vector, where an event may stand for several.

    :param count: Of each kind.
    """
    with mapped(pt, "page", PAGE, flags="rw", byte=0) as page:
        vectors = steps.enable_irqs(pt, "msix")
        events = _storm(pt, page, "msix", vectors=vectors, burst=1, count=count)
        expect(events, count, "events, one for each transaction")
        _storm(pt, page, "msix", vectors=1, burst=16, count=count)
        pt.probe.call("irq-disable", index="msix")
        steps.enable_irqs(pt, "msi")
        _storm(pt, page, "msi", vectors=1, burst=4, count=count // 4)
        pt.probe.call("irq-disable", index="msi")


def _storm(
    pt: Passthrough, page: int, index: str, *, vectors: int, burst: int, count: int
) -> object:
    try:
        seen = pt.probe.call(
            "irq-storm",
            index=index,
            iova=page,
            vectors=vectors,
            burst=burst,
            count=count,
            timeout=_STORM_TIMEOUT,
        )
    except ProbeError as error:
        if error.op != "storm" or error.errno != errno.ETIMEDOUT:
            raise
        raise CheckFailed(
            f"an interrupt was lost, by {index}, of {vectors * burst} at once",
            expected="each transaction that has ended is announced",
            seen=f"nothing for 5 s; {error.text}",
            cause="the device did not raise it, or it was lost on its way to the"
            " eventfd; the device's irq records tell which",
        ) from error
    return seen["events"]


_STORM_TIMEOUT = 200.0
