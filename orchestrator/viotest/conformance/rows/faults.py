# SPDX-License-Identifier: GPL-2.0-or-later
"""Fault reports: E1 to E7."""

from __future__ import annotations

from typing import TYPE_CHECKING

from viotest.conformance.driver import (
    UNKNOWN_ENDPOINTS,
    expect,
    expect_equal,
    open_viommu,
)
from viotest.conformance.errors import MismatchError
from viotest.conformance.row import Section, Strength
from viotest.conformance.wire import (
    FAULT_ADDRESS,
    FAULT_READ,
    FAULT_SIZE,
    FAULT_WRITE,
    MAP_F_READ,
    Reason,
    Status,
)

if TYPE_CHECKING:
    from viotest.conformance.driver import Viommu
    from viotest.conformance.lab import Event, Lab
    from viotest.conformance.wire import Fault

FAULTS = Section("5.13.6 Device operations: Fault reporting")

_ODD = 0x58
_KNOWN_FLAGS = FAULT_READ | FAULT_WRITE | FAULT_ADDRESS


def _one_fault(viommu: Viommu, case: str) -> list[Fault]:
    """Return the records of a refused access; leave the row when there is none."""
    faults = viommu.faults()
    if not faults:
        raise MismatchError(f"{case}: a fault record", "none on the event queue")
    return faults


def _provoke(viommu: Viommu) -> list[tuple[int, int, Fault]]:
    """Have accesses refused in several ways.

    :return: The endpoint and the address of each, with the records that it made.
    """
    endpoint, other = viommu.endpoints[:2]
    domain = viommu.domain()
    iova, _ = viommu.mapped(domain, endpoint, MAP_F_READ)
    viommu.faults(wait=False)
    found = []
    for who, address in (
        (endpoint, iova),
        (endpoint, iova + viommu.granule),
        (other, iova),
    ):
        viommu.device.dma_write(who, address, 0)
        what = f"a refused write of {who:#x} to {address:#x}"
        found += [(who, address, fault) for fault in _one_fault(viommu, what)]
    return found


@FAULTS.row("E1", Strength.SHOULD, "reserved fields of a record are 0")
def check_e1(lab: Lab) -> None:
    """Linux drops a record otherwise."""
    for _, _, fault in _provoke(open_viommu(lab)):
        expect_equal(fault.reserved, bytes(3), "reserved")
        expect_equal(fault.reserved1, 0, "reserved1")


@FAULTS.row("E2", Strength.SHOULD, "undefined flags of a record are 0")
def check_e2(lab: Lab) -> None:
    """READ, WRITE and ADDRESS are defined."""
    for _, _, fault in _provoke(open_viommu(lab)):
        expect_equal(fault.flags & ~_KNOWN_FLAGS, 0, "undefined flags")


@FAULTS.row("E3", Strength.SHOULD, "a record names the endpoint")
def check_e3(lab: Lab) -> None:
    """The one whose access it was."""
    for endpoint, _, fault in _provoke(open_viommu(lab)):
        expect_equal(fault.endpoint, endpoint, "endpoint of the record")


@FAULTS.row("E4", Strength.MAY, "a record may leave the address out")
def check_e4(lab: Lab) -> str:
    """If it has one, it is that of the access."""
    without = 0
    faults = _provoke(open_viommu(lab))
    for _, address, fault in faults:
        if not fault.flags & FAULT_ADDRESS:
            without += 1
        elif not address <= fault.address < address + 8:
            raise MismatchError(f"an address from {address:#x}", f"{fault.address:#x}")
    return f"{len(faults) - without} of {len(faults)} with an address"


@FAULTS.row("E5", Strength.SHOULD, "a record is never spread over two buffers")
def check_e5(lab: Lab) -> str:
    """With room for a part of it only."""
    viommu = open_viommu(lab)
    outcomes = []
    for size in (8, 16):
        viommu.restart()
        viommu.device.take_events(wait=False)
        _use_up_events(viommu)
        viommu.device.post_events(size, size, FAULT_SIZE, FAULT_SIZE)
        # An address whose bytes could not be the beginning of a record.
        viommu.device.dma_read(viommu.endpoints[0], viommu.iova() + _ODD)
        events = viommu.device.take_events()
        for event in events:
            _check_beginning(event)
        small = [event.used for event in events if event.size == size]
        outcomes.append(f"{size} bytes: used lengths {small or 'none'}")
    return "; ".join(outcomes)


# Whatever is in a buffer must be a record from its first byte on.
def _check_beginning(event: Event) -> None:
    if event.used > event.size:
        raise MismatchError(f"used length at most {event.size}", str(event.used))
    if event.size == FAULT_SIZE and event.used not in (0, FAULT_SIZE):
        what = "a buffer with room for a record holds a whole one"
        raise MismatchError(what, f"used length {event.used}")
    data = event.data[: event.used]
    if data and (data[0] not in set(Reason) or any(data[1:4])):
        what = f"a buffer of {event.size} bytes holds the beginning of a record"
        raise MismatchError(what, data.hex(" "))


def _use_up_events(viommu: Viommu) -> None:
    """Have an access refused until every posted event buffer came back."""
    for _ in range(64):
        viommu.device.dma_read(viommu.endpoints[0], viommu.iova())
        if not viommu.device.take_events():
            return
    raise MismatchError("no more records than buffers", "more than 64")


@FAULTS.row("E6", Strength.TEXT, "no buffer: it waits or drops the record")
def check_e6(lab: Lab) -> str:
    """No reset is asked for, and the next record comes."""
    viommu = open_viommu(lab)
    _use_up_events(viommu)
    for _ in range(40):
        viommu.device.dma_read(viommu.endpoints[0], viommu.iova())
    answer = viommu.attach(viommu.domain(), UNKNOWN_ENDPOINTS[0])
    expect(answer, Status.NOENT, "a request while there is no event buffer")
    expect_equal(answer.needs_reset, False, "DEVICE_NEEDS_RESET")
    viommu.device.post_events(*[FAULT_SIZE] * 64)
    late = len(viommu.faults(wait=False))
    viommu.device.dma_read(viommu.endpoints[0], viommu.iova())
    _one_fault(viommu, "after buffers were posted again")
    return f"{'waits' if late else 'drops'}"


@FAULTS.row("E7", Strength.TEXT, "the reason is right")
def check_e7(lab: Lab) -> None:
    """DOMAIN: unattached. MAPPING: unmapped, or without the permission."""
    viommu = open_viommu(lab)
    endpoint, other = viommu.endpoints[:2]
    domain = viommu.domain()
    iova, _ = viommu.mapped(domain, endpoint, MAP_F_READ)
    gone = viommu.endpoints[2]
    viommu.attached(domain, gone)
    expect(viommu.detach(domain, gone), Status.OK, "DETACH")
    viommu.faults(wait=False)
    for case, who, address, reason in (
        ("a write through a read-only mapping", endpoint, iova, Reason.MAPPING),
        ("unmapped", endpoint, iova + viommu.granule, Reason.MAPPING),
        ("never attached", other, iova, Reason.DOMAIN),
        ("attached no longer", gone, iova, Reason.DOMAIN),
    ):
        viommu.device.dma_write(who, address, 0)
        for fault in _one_fault(viommu, case):
            names = {int(r): r.name for r in Reason}
            seen = names.get(fault.reason, str(fault.reason))
            expect_equal(seen, reason.name, f"reason, {case}")
            if address == iova and who == endpoint:
                flags = fault.flags & (FAULT_READ | FAULT_WRITE)
                expect_equal(flags, FAULT_WRITE, f"access flags, {case}")
