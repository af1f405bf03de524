# SPDX-License-Identifier: GPL-2.0-or-later
"""Endpoints and their users come and go: the steps of those checks."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from viotest.guest.probe import ProbeError
from viotest.machine.argv import vfio_user_sockets
from viotest.machine.errors import MachineError
from viotest.scenario.topology import own_id, requester_ids
from viotest.suite import steps
from viotest.suite.binding import VFIO_DRIVER, ensure_bound, find_group
from viotest.suite.judgement import CheckFailed, expect, refused
from viotest.suite.observe import DeviceWatch, find_message
from viotest.suite.passthrough import PAGE, Passthrough
from viotest.suite.steps import GUARD, MIB, mapped

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from viotest.guest.guest import ProbeProcess
    from viotest.guest.probe import Probe
    from viotest.machine.hotplug import Unplug
    from viotest.report.device_log import DeviceRecord
    from viotest.scenario.model import EndpointFunction, Mode
    from viotest.suite.context import Context
    from viotest.suite.steps import FaultReasons

#: How often an endpoint changes hands in the check ``rebind-often``.
NR_REBINDS = 100

# vfio_pci_core_request() of drivers/vfio/pci/vfio_pci_core.c, with and without an
# eventfd for the request.
_UNPLUG_WAITS = "device request (to user|channel)"
_PLUG_TIMEOUT = 10.0
_KILL_TIMEOUT = 20.0

# enum dma_engine_status
_OK, _FAULT, _NO_BUS_MASTER, _ABORTED = 2, 3, 5, 6
# enum viommu_reset_kind
_RESET_DEVICE, _RESET_VIRTIO = 1, 3


@dataclass(frozen=True)
class Subject:
    """An endpoint that something is to happen to, bound to vfio-pci and not open."""

    context: Context
    probe: Probe
    endpoint: EndpointFunction
    #: How it is opened.
    mode: Mode
    reasons: FaultReasons


def works(subject: Subject) -> None:
    """Open an endpoint that vfio-pci has, and see that it works as ever."""
    pt = Passthrough(subject.probe, subject.endpoint, subject.mode, device="again")
    try:
        pt.open()
        steps.dma_write(pt, PAGE, 0)
        steps.dma_read(pt, PAGE, 0)
        steps.unmap(pt, subject.reasons)
        if pt.nr_vectors():
            steps.interrupts(pt)
        pt.close()
    except ProbeError as error:
        raise refused(error, f"passthrough of {subject.endpoint.bdf}") from error


def rebind_often(
    context: Context, endpoint: EndpointFunction, driver: str = ""
) -> None:
    """Give an endpoint from vfio-pci to another driver and back, many times.

    :param endpoint: The endpoint, bound to vfio-pci.
    :param driver: The other driver; default: none.
    :raise CheckFailed: When a change is refused, or mappings are left over.
    """
    probe, before = context.probe(), context.nr_device_mappings()
    for i in range(NR_REBINDS):
        try:
            if driver:
                probe.call("bind", bdf=endpoint.bdf, driver=driver)
            else:
                probe.call("unbind", bdf=endpoint.bdf)
            probe.call("bind", bdf=endpoint.bdf, driver=VFIO_DRIVER)
        except ProbeError as error:
            raise refused(error, f"change of driver number {i + 1}") from error
    expect(
        context.nr_device_mappings(),
        before,
        f"mappings in the device after {NR_REBINDS} changes of driver",
        cause="a driver, or VFIO, leaves mappings behind",
    )


# -- removal


def remove(subject: Subject) -> None:
    """Take an endpoint out of the guest, which forgets it.

    :raise CheckFailed: Unless it is in no domain afterwards, under none of its ids:
        memory that is somebody else's by then would still be its own.
    """
    context, probe, endpoint = subject.context, subject.probe, subject.endpoint
    probe.call("unbind", bdf=endpoint.bdf)
    watch = DeviceWatch(context.iommu_log) if context.iommu_log else None
    path = f"/sys/bus/pci/devices/{endpoint.bdf}/remove"
    probe.call("write", path=path, data="1")
    expect(_is_there(probe, endpoint.bdf), False, f"{endpoint.bdf} is still in sysfs")
    if watch is None:
        return
    detached = {r.endpoint for r in watch.records("detach") if r.status == 0}
    for number in requester_ids(endpoint):
        if number not in detached:
            raise CheckFailed(
                f"endpoint {number:#x} was removed and not detached",
                expected="a DETACH when the kernel releases it",
                seen=f"domain {context.device_domain(number)} still is its own",
                cause="the kernel lacks commit 809d0810e352 (iommu/virtio: Detach"
                " domain on endpoint release), or reverts it",
            )
        expect(
            context.device_domain(number),
            None,
            f"domain of endpoint {number:#x} after its DETACH",
            cause="the device answers DETACH, and leaves the endpoint where it was",
        )


def rescan(subject: Subject) -> None:
    """Let the guest find an endpoint that was removed, and bind it to vfio-pci."""
    probe, endpoint = subject.probe, subject.endpoint
    probe.call("write", path="/sys/bus/pci/rescan", data="1")
    expect(_is_there(probe, endpoint.bdf), True, f"{endpoint.bdf} is found again")
    ensure_bound(probe, endpoint)


# -- a user that dies

# One buffer, mapped again and again, makes a range that takes long to write.
_BUFFER = 32 * MIB
_NR_MAPS = 16
_NR_TRANSACTIONS = 16
# A kexec takes longer than to kill somebody: every slot of the engine.
_NR_KEXEC_TRANSACTIONS = 128


def start_endless_dma(pt: Passthrough, *, nr: int = _NR_TRANSACTIONS) -> None:
    """Submit writes that take much longer than it takes to kill their submitter.

    :param nr: How many, of 512 MiB each.
    """
    pt.buffer("victim", _BUFFER, byte=GUARD)
    iova = pt.fresh_iova(_NR_MAPS * _BUFFER)
    for i in range(_NR_MAPS):
        pt.map("victim", iova + i * _BUFFER)
    for slot in range(nr):
        pt.submit(slot, "fill", iova, _NR_MAPS * _BUFFER)


def kill_in_flight(user: ProbeProcess, pt: Passthrough, watch: DeviceWatch) -> None:
    """Kill the user of an endpoint that writes to its memory.

    :param user: The process in which ``pt`` is open.
    :param watch: The device's log since before the first of the writes.
    :raise CheckFailed: Unless the kernel stopped the endpoint, all of it, before the
        process was gone: the IOMMU alone would let it run into faults.
    """
    start_endless_dma(pt)
    user.kill(timeout=_KILL_TIMEOUT)
    _expect_cut(_all_ended(pt, watch, "transactions that ended with their user"))


def _all_ended(
    pt: Passthrough, watch: DeviceWatch, what: str, *, nr: int = _NR_TRANSACTIONS
) -> list[DeviceRecord]:
    own = own_id(pt.endpoint)
    ended = [r for r in watch.records("dma") if r.endpoint == own]
    expect(len(ended), nr, what)
    return ended


def _expect_cut(
    ended: Sequence[DeviceRecord], *, or_fault_after: int | None = None
) -> None:
    # The endless DMA has not ended by itself: how, in the device's words. A fault will
    # do after a reset of the virtio-iommu with that number: it has let nothing through.
    def is_cut(record: DeviceRecord) -> bool:
        if record.status == _FAULT and or_fault_after is not None:
            return record.seq > or_fault_after
        return record.status in (_NO_BUS_MASTER, _ABORTED)

    if not any(is_cut(record) for record in ended):
        statuses = [record.status for record in ended]
        raise CheckFailed(
            "no transaction was cut short by the end of its user",
            expected="bus mastering off, or a reset, with DMA in flight",
            seen=f"{statuses.count(_OK)} of {len(statuses)} ran to their end,"
            f" {statuses.count(_FAULT)} into faults",
        )


# -- another boot


def boot_again(
    subject: Subject, boot: Callable[[Context, Passthrough], None], what: str
) -> None:
    """Boot the guest anew while an endpoint of it is open, and bind it again.

    :param boot: :func:`reboot` or :func:`kexec`.
    :param what: Its name.
    :raise CheckFailed: As that.
    """
    pt = Passthrough(subject.probe, subject.endpoint, subject.mode)
    try:
        pt.open()
        try:
            boot(subject.context, pt)
        finally:
            # For what comes after, whatever came of it.
            ensure_bound(subject.probe, subject.endpoint)
    except ProbeError as error:
        raise refused(error, f"endpoint that is open in a {what}") from error


def reboot(context: Context, pt: Passthrough) -> None:
    """Reboot the guest while an endpoint of it writes to memory.

    :param pt: The endpoint, open. The process that has it open is gone afterwards.
    :raise CheckFailed: When the guest is the same as before, DMA went on, or one of
        our functions was not reset on the way.
    """
    before, watch = _boot_id(pt.probe), DeviceWatch(context.device_log())
    start_endless_dma(pt)
    context.reboot()
    _expect_other_boot(pt.probe, before, "the guest did not reboot")
    _expect_cut(_all_ended(pt, watch, "transactions that ended with the reboot"))
    resets = [r for r in watch.records("reset") if r.flags == _RESET_DEVICE]
    served = vfio_user_sockets(context.topology)
    reset = len({record.source for record in resets})
    expect(reset, len(served), "functions that the reboot has reset")


def kexec(context: Context, pt: Passthrough) -> None:
    """Let the guest's kernel start another while an endpoint writes to memory.

    Nobody resets the machine: the old kernel must end the endpoint's DMA, and the new
    one must begin with a virtio-iommu that it has reset.

    The PCI core switches bus mastering off. Since commit 8bd2fa086a04 (Linux 6.15,
    virtio: break and reset virtio devices on device_shutdown()) the old kernel may
    reset the virtio-iommu before that, and the rest of the DMA then ends in faults:
    after a reset nothing of it may get through.

    :param pt: The endpoint, open. The process that has it open is gone afterwards.
    :raise CheckFailed: When the guest is the same as before, or DMA might have gone
        on until the new kernel had the virtio-iommu.
    """
    before, watch = _boot_id(pt.probe), DeviceWatch(context.device_log())
    # It takes longer than the endless DMA.
    context.load_kexec()
    start_endless_dma(pt, nr=_NR_KEXEC_TRANSACTIONS)
    context.kexec()
    _expect_other_boot(pt.probe, before, "the guest did not start another kernel")
    what, nr = "transactions that ended with the old kernel", _NR_KEXEC_TRANSACTIONS
    ended = _all_ended(pt, watch, what, nr=nr)
    resets = watch.records("reset")
    machine = [record for record in resets if record.flags == _RESET_DEVICE]
    expect(len(machine), 0, "functions that a reset of the machine has reset")
    # Without a virtio-iommu of ours nobody logs its reset.
    if context.iommu_log is None:
        _expect_cut(ended)
        return
    virtio = [r for r in resets if r.flags == _RESET_VIRTIO]
    if not virtio:
        raise CheckFailed(
            "the new kernel did not reset the virtio-iommu",
            expected="device status 0: what the old one had mapped is gone",
            seen="no such write",
        )
    # Of each virtio-iommu the last is the new kernel's.
    new = min({r.source: r.seq for r in virtio}.values())
    _expect_bus_master_off(pt, watch, before=new)
    late = [record for record in ended if record.seq > new]
    expect(len(late), 0, "transactions that ended after the new kernel's reset")
    _expect_cut(ended, or_fault_after=virtio[0].seq)


def _expect_bus_master_off(pt: Passthrough, watch: DeviceWatch, before: int) -> None:
    own = own_id(pt.endpoint)
    off = [r for r in watch.records("bus-master") if r.endpoint == own and not r.flags]
    if not off or off[0].seq > before:
        raise CheckFailed(
            "the old kernel left bus mastering on",
            expected="off before the new kernel resets the virtio-iommu",
            seen="off later" if off else "not off at all",
            cause="pci_device_shutdown() of drivers/pci/pci-driver.c ends it before a"
            " kexec, unless the driver has its device look as if it was asleep",
        )


def _expect_other_boot(probe: Probe, before: str, what: str) -> None:
    if _boot_id(probe) == before:
        raise CheckFailed(what, expected="another boot id than before", seen=before)


def _boot_id(probe: Probe) -> str:
    seen = probe.call("read", path="/proc/sys/kernel/random/boot_id")
    return str(seen["text"]).strip()


# -- hot-plug


def unplugged(subject: Subject, unplug: Unplug) -> None:
    """Wait until an endpoint is gone from the guest, and see that nothing is left."""
    probe, endpoint = subject.probe, subject.endpoint
    try:
        subject.context.wait_for_unplug(unplug)
    except MachineError as error:
        raise CheckFailed(
            f"the guest does not give {endpoint.bdf} back",
            expected="DEVICE_DELETED",
            seen=str(error),
            step="the guest's dmesg in timeline.jsonl",
        ) from error
    expect(_is_there(probe, endpoint.bdf), False, f"{endpoint.bdf} is still in sysfs")


def plug(subject: Subject) -> None:
    """Plug an endpoint in, wait until the guest has it, and bind it to vfio-pci.

    :raise CheckFailed: When the guest does not find it.
    """
    probe, endpoint = subject.probe, subject.endpoint
    probe.call("dmesg", clear=1)
    subject.context.plug(endpoint)
    deadline = time.monotonic() + _PLUG_TIMEOUT
    while not _is_there(probe, endpoint.bdf):
        if time.monotonic() > deadline:
            raise CheckFailed(
                f"the guest does not find {endpoint.bdf}",
                expected="hot-plugged, it appears in sysfs",
                step="the guest's dmesg in timeline.jsonl",
            )
        # The kernel speaks of everything that it finds.
        find_message(probe, endpoint.bdf, timeout=0.2)
    # It is in sysfs before it can be bound. A scan waits for the one that goes on.
    probe.call("write", path="/sys/bus/pci/rescan", data="1")
    ensure_bound(probe, endpoint)


def _is_there(probe: Probe, bdf: str) -> bool:
    names = probe.call("list", path="/sys/bus/pci/devices")["names"]
    assert isinstance(names, list)
    return bdf in names


def hot_plug(subject: Subject) -> None:
    """Unplug and plug an endpoint: bound to vfio-pci and idle, then without driver."""
    probe, endpoint = subject.probe, subject.endpoint
    for driver in (VFIO_DRIVER, None):
        if driver is None:
            probe.call("unbind", bdf=endpoint.bdf)
        unplugged(subject, subject.context.unplug(endpoint))
        plug(subject)
        if find_group(probe, endpoint.bdf) is None:
            raise CheckFailed(f"plugged in again, {endpoint.bdf} is in no IOMMU group")
        works(subject)


def unplug_in_use(subject: Subject) -> None:
    """Unplug an endpoint that is open: it stays until it is closed, and works."""
    probe, endpoint = subject.probe, subject.endpoint
    pt = Passthrough(probe, endpoint, subject.mode, device="again")
    pt.open()
    with mapped(pt, "page", PAGE, flags="rw", byte=GUARD) as page:
        pt.expect_dma("fill", page, PAGE, operand=0)
        probe.call("dmesg", clear=1)
        unplug = subject.context.unplug(endpoint)
        if find_message(probe, _UNPLUG_WAITS, timeout=_PLUG_TIMEOUT) is None:
            raise CheckFailed(
                "vfio-pci does not say that the unplug waits for the user",
                expected=f"a message like {_UNPLUG_WAITS!r}",
                seen="DEVICE_DELETED" if unplug.is_done() else "silence",
            )
        expect(unplug.is_done(), False, "the endpoint was taken from its user")
        pt.probe.call("set", name="page", byte=GUARD)
        pt.expect_dma("fill", page, PAGE, operand=0)
        pt.expect_untouched("page", 0)
    pt.close()
    unplugged(subject, unplug)
    plug(subject)
    works(subject)
