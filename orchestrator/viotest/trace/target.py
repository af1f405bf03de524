# SPDX-License-Identifier: GPL-2.0-or-later
"""The machines that a trace is replayed in: :func:`start_target`.

No endpoint moves a byte in a replay, so the guest-physical addresses of a trace lead
nowhere, and stay as they are. Endpoint ids stay too where they can: QEMU's
virtio-iommu knows an endpoint by the place of its function on the bus.
"""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from viotest.conformance import virtio
from viotest.conformance.machine import QtestMachine, bare_machine_argv, vfio_user_argv
from viotest.conformance.pci import MmioSpace, PciFunction
from viotest.conformance.target import Target, resv_mem_toml
from viotest.conformance.virtio import VirtioPci
from viotest.conformance.virtqueue import AREA_SIZE
from viotest.conformance.wire import Feature
from viotest.machine import argv as machine_args
from viotest.machine import names
from viotest.machine.device import DeviceServer
from viotest.machine.folder import RunFolder
from viotest.machine.latch import wait_readable
from viotest.machine.qmp import MonitorLoop
from viotest.trace.ring import Ring

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from viotest.conformance.target import Programs
    from viotest.machine.process import Process
    from viotest.trace.model import Header, Request
    from viotest.trace.ring import BatchAnswer

_IOMMU_SOCKET = "viommu0.sock"
_IOMMU_SLOT = 1
_RINGS = 0x1000000
_REQUESTQ, _EVENTQ = 0, 1
_LAUNCH_TIMEOUT = 20.0
_EXIT_GRACE = 0.3

#: Where QEMU has functions of its own: host bridge, virtio-iommu, ICH9.
_TAKEN_SLOTS = (0, _IOMMU_SLOT, 31)
#: What a function of :data:`_TAKEN_SLOTS` may be known as.
_TAKEN_IDS = frozenset(slot << 3 | f for slot in _TAKEN_SLOTS for f in range(8))
_PLACES = tuple(devfn for devfn in range(0x100) if devfn not in _TAKEN_IDS)
#: Ids from here on are no function's: bus 0 is the only one.
_NOWHERE = 0x4000

_GRANULES = {4 << 10: "4k", 8 << 10: "8k", 16 << 10: "16k", 64 << 10: "64k"}
#: What QEMU's device can be told, one way or another.
_QEMU_KEYS = {"bypass", "page_size_mask"}


class ReplayDevice:
    """A virtio-iommu in a QEMU that is driven by qtest.

    :param machine: The machine.
    :param ids: What the target calls the endpoints that it has to call otherwise.
    :param processes: What must be alive.
    """

    def __init__(
        self,
        machine: QtestMachine,
        ids: Mapping[int, int],
        processes: Sequence[Process],
    ) -> None:
        assert machine.qtest is not None
        self._machine = machine
        self._qtest = machine.qtest
        self._processes = processes
        self._ring: Ring | None = None
        #: What the target calls endpoints, where that is not the trace's id.
        self.ids = ids
        self._find()

    def _find(self) -> None:
        function = PciFunction(self._qtest, _IOMMU_SLOT << 3)
        function.enable(MmioSpace())
        self._virtio = VirtioPci(function)

    def offered(self) -> Feature:
        """Return the features that the device offers."""
        return self._virtio.offered()

    def reset(self) -> None:
        """Write 0 to the device status, and wait until it reads 0."""
        self._virtio.reset()
        self._ring = None

    def system_reset(self) -> None:
        """Reset the whole machine, and find the device again."""
        self._machine.reset()
        self._ring = None
        self._find()

    def negotiate(self, features: Feature) -> bool:
        """Go from reset to DRIVER_OK; False when it does not take the features."""
        if not self._virtio.set_features(features | Feature.VERSION_1):
            return False
        queues = [
            self._virtio.set_up_queue(index, _RINGS + index * AREA_SIZE)
            for index in (_REQUESTQ, _EVENTQ)
        ]
        self._virtio.add_status(virtio.DRIVER_OK)
        self._ring = Ring(self._qtest, self._virtio, queues[_REQUESTQ], _REQUESTQ)
        return True

    def write_config(self, offset: int, size: int, value: int) -> None:
        """Write a field of the device configuration."""
        self._virtio.write_config(offset, size, value)

    def has_room(self, nr: int, writable: int) -> bool:
        """Whether so many requests, with so many writable bytes in all, fit."""
        assert self._ring is not None, "features come before requests"
        return self._ring.has_room(nr, writable)

    def run(self, requests: Sequence[Request]) -> BatchAnswer:
        """Make requests available together, and wait for all of them."""
        assert self._ring is not None, "features come before requests"
        return self._ring.run(requests)

    def post_mortem(self) -> str:
        """Say which processes have ended, and how; empty when all are alive."""
        # The end of a connection comes a little before that of the process.
        wait_readable([p.pidfd for p in self._processes], _EXIT_GRACE)
        return "; ".join(f"{p.name} {p.status}" for p in self._processes if not p.alive)


@dataclass(frozen=True)
class Plan:
    """How a target is to be started for a trace."""

    target: Target
    #: As :attr:`ReplayDevice.ids`.
    ids: Mapping[int, int]
    #: What the target is not given, in words.
    notes: tuple[str, ...]


def plan_target(target: Target, header: Header, named: frozenset[int]) -> Plan:
    """Decide how a target stands for the device that was recorded.

    :param named: Every endpoint id that a request names.
    :raise ValueError: When it cannot.
    """
    if target is Target.VIOTEST:
        return Plan(target, {}, ())
    known = [endpoint.id for endpoint in header.endpoints]
    ids = _place(known, named)
    notes = [
        f"endpoint {own:#x} is {there:#x} there"
        for own, there in ids.items()
        if own in known
    ]
    left = sorted(header.iommu.keys() - _QEMU_KEYS)
    if left:
        notes.append(f"it cannot be configured with {', '.join(left)}")
    if _granule(header) not in _GRANULES:
        notes.append("it cannot have that granule, and has 4 KiB")
    return Plan(target, ids, tuple(notes))


# An endpoint stays where its id says if that is a free place. Ids that nobody has
# must not become somebody's: neither an endpoint's, nor one of QEMU's own functions.
def _place(known: Sequence[int], named: frozenset[int]) -> dict[int, int]:
    taken = named | set(known)
    places = iter(p for p in _PLACES if p not in taken)
    nowhere = iter(n for n in range(_NOWHERE, 1 << 16) if n not in taken)
    ids = {}
    for own in known:
        if own not in _PLACES:
            found = next(places, None)
            if found is None:
                raise ValueError("more endpoints than fit on QEMU's root bus")
            ids[own] = found
    for own in sorted((named - set(known)) & _TAKEN_IDS):
        ids[own] = next(nowhere)
    return ids


@contextlib.contextmanager
def start_target(
    plan: Plan, header: Header, programs: Programs, folder: Path
) -> Iterator[ReplayDevice]:
    """Start what a trace is replayed against, and end it afterwards.

    :param plan: From :func:`plan_target`.
    :param header: What the device has to be.
    :param programs: How QEMU and the device are started.
    :param folder: An empty folder for it.
    :raise LaunchError: When it does not come up.
    """
    with contextlib.ExitStack() as stack:
        loop = MonitorLoop()
        stack.callback(loop.close)
        run_folder = stack.enter_context(RunFolder(folder))
        processes, abort = [], []
        argv = bare_machine_argv(programs.qemu)
        if plan.target is Target.VIOTEST:
            config = _device_config(header, programs.mutants)
            (folder / names.DEVICE_CONFIG).write_text(config)
            command = machine_args.device_argv(programs.device, parent_pid=os.getpid())
            device = DeviceServer(run_folder, command, loop)
            # Killed, not asked to end: one that is stuck could not be asked.
            stack.callback(device.kill)
            device.launch(timeout=_LAUNCH_TIMEOUT)
            abort.append(device.process.pidfd)
            processes.append(device.process)
            argv += vfio_user_argv(_IOMMU_SOCKET, _IOMMU_SLOT)
        else:
            argv += _qemu_devices(header, plan.ids)
        machine = QtestMachine(run_folder, argv, loop)
        stack.callback(machine.kill)
        machine.launch(timeout=_LAUNCH_TIMEOUT, abort=abort)
        yield ReplayDevice(machine, plan.ids, [machine.process, *processes])


def _device_config(header: Header, mutants: Sequence[str]) -> str:
    lines = [
        f"mutants = {json.dumps(list(mutants))}",
        f'log.path = "{names.DEVICE_LOG}"',
        "log.records = 4096",
        f'monitor.socket = "{names.DEVICE_MONITOR_SOCKET}"',
        "[[iommu]]",
        f'socket = "{_IOMMU_SOCKET}"',
        *(f"{key} = {value:#x}" for key, value in header.iommu.items()),
    ]
    for number, endpoint in enumerate(header.endpoints):
        # Without a socket: an id that may be attached, and no function.
        lines += ["[[endpoint]]", f'name = "ep{number}"', "iommu = 0"]
        lines.append(f"id = {endpoint.id:#x}")
        lines.append(f"resv_mem = {resv_mem_toml(endpoint.regions)}")
    return "\n".join(lines) + "\n"


def _granule(header: Header) -> int:
    mask = header.iommu.get("page_size_mask") or 4 << 10
    return mask & -mask


def _qemu_devices(header: Header, ids: Mapping[int, int]) -> list[str]:
    bypass = "on" if header.iommu.get("bypass") else "off"
    granule = _GRANULES.get(_granule(header), "4k")
    options = f"addr={_IOMMU_SLOT:#x},granule={granule},boot-bypass={bypass}"
    argv = ["-device", f"virtio-iommu-pci,{options}"]
    for endpoint in header.endpoints:
        devfn = ids.get(endpoint.id, endpoint.id)
        where = f"addr={devfn >> 3:x}.{devfn & 7},multifunction=on"
        # Any function will do: what counts is that QEMU knows its place.
        argv += ["-device", f"pci-testdev,{where}"]
    return argv
