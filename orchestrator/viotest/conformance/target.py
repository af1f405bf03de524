# SPDX-License-Identifier: GPL-2.0-or-later
"""Whose virtio-iommu is judged, and the machines it is judged in.

:class:`QtestLab` keeps one QEMU (and one device server) per shape that was asked for.
"""

from __future__ import annotations

import contextlib
import enum
import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from viotest.conformance.device import QtestDevice
from viotest.conformance.errors import NotApplicableError
from viotest.conformance.lab import BOOT_BYPASS, FULL, Region, Shape
from viotest.conformance.machine import QtestMachine, bare_machine_argv, vfio_user_argv
from viotest.conformance.wire import RESV_MEM_MSI
from viotest.machine import argv as machine_argv
from viotest.machine import names
from viotest.machine.device import DeviceServer
from viotest.machine.folder import RunFolder
from viotest.machine.latch import wait_readable
from viotest.machine.qmp import MonitorLoop

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from types import TracebackType

    from viotest.machine.process import Process

_IOMMU_SOCKET = "viommu0.sock"
_IOMMU_SLOT = 1
_FIRST_ENDPOINT_SLOT = 16

_LAUNCH_TIMEOUT = 20.0
_EXIT_GRACE = 0.3


class Target(enum.StrEnum):
    """Whose virtio-iommu is judged."""

    #: Ours, over vfio-user.
    VIOTEST = "viotest"
    #: QEMU's built-in ``virtio-iommu-pci``.
    QEMU = "qemu"


@dataclass(frozen=True)
class Programs:
    """How the processes are started."""

    qemu: tuple[str, ...]
    device: tuple[str, ...]
    #: Deliberate defects of the device, by its own names.
    mutants: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Running:
    device: QtestDevice
    processes: tuple[Process, ...]
    resources: contextlib.ExitStack


class QtestLab:
    """Starts machines as rows ask for them; a context manager.

    :param target: Whose virtio-iommu they have.
    :param programs: How QEMU and the device are started.
    :param folder: An empty folder for them; each gets one below it.
    """

    def __init__(self, target: Target, programs: Programs, folder: Path) -> None:
        self._target = target
        self._programs = programs
        self._folder = folder
        self._running: dict[Shape, _Running] = {}
        self._nr_started = 0
        self._loop: MonitorLoop | None = None

    def __enter__(self) -> Self:
        self._loop = MonitorLoop()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with contextlib.ExitStack() as stack:
            if self._loop is not None:
                stack.callback(self._loop.close)
            self.discard()

    def device(self, shape: Shape) -> QtestDevice:
        """Return a device of this shape.

        :raise NotApplicableError: When the target cannot be configured so.
        :raise MachineError: When no machine comes up.
        """
        if shape not in self._running:
            self._require(shape)
            with contextlib.ExitStack() as stack:
                device, processes = self._start(shape, stack)
                self._running[shape] = _Running(device, processes, stack.pop_all())
        return self._running[shape].device

    def fresh(self, shape: Shape) -> QtestDevice:
        """Return a device of this shape that nobody has touched yet; as device()."""
        entry = self._running.pop(shape, None)
        if entry is not None:
            entry.resources.close()
        return self.device(shape)

    def discard(self) -> None:
        """End every machine; the next row gets a new one."""
        with contextlib.ExitStack() as stack:
            while self._running:
                stack.push(self._running.popitem()[1].resources)

    def post_mortem(self) -> str:
        """Say which processes have ended, and how; empty when all are alive."""
        processes = [p for entry in self._running.values() for p in entry.processes]
        # The end of a connection comes a little before that of the process.
        wait_readable([p.pidfd for p in processes], _EXIT_GRACE)
        return "; ".join(f"{p.name} {p.status}" for p in processes if not p.alive)

    # QEMU's offers its features whatever it is told, and one MSI region.
    def _require(self, shape: Shape) -> None:
        if self._target is Target.QEMU and shape not in (FULL, BOOT_BYPASS):
            raise NotApplicableError(f"it cannot be configured as {shape.name!r}")

    def _start(
        self, shape: Shape, stack: contextlib.ExitStack
    ) -> tuple[QtestDevice, tuple[Process, ...]]:
        assert self._loop is not None
        path = self._folder / f"{self._target}-{shape.name}-{self._nr_started}"
        self._nr_started += 1
        path.mkdir()
        folder = stack.enter_context(RunFolder(path))
        config = _device_config(self._target, shape, self._programs.mutants)
        (path / names.DEVICE_CONFIG).write_text(config)
        argv = machine_argv.device_argv(self._programs.device, parent_pid=os.getpid())
        device = DeviceServer(folder, argv, self._loop)
        # Killed, not asked to end: what is judged is over, and a target that a row
        # has broken could not be asked.
        stack.callback(device.kill)
        device.launch(timeout=_LAUNCH_TIMEOUT)
        argv = _qemu_argv(self._programs.qemu, self._target, shape)
        machine = QtestMachine(folder, argv, self._loop)
        stack.callback(machine.kill)
        machine.launch(timeout=_LAUNCH_TIMEOUT, abort=[device.process.pidfd])
        assert machine.qtest is not None
        endpoints = _endpoints(shape)
        regions = None
        if self._target is Target.VIOTEST:
            regions = dict(zip(endpoints, shape.regions, strict=True))
        found = QtestDevice(
            machine.qtest, _IOMMU_SLOT << 3, endpoints, regions, machine.reset
        )
        return found, (machine.process, device.process)


def _endpoints(shape: Shape) -> tuple[int, ...]:
    slots = range(_FIRST_ENDPOINT_SLOT, _FIRST_ENDPOINT_SLOT + len(shape.regions))
    return tuple(slot << 3 for slot in slots)


def _device_config(target: Target, shape: Shape, mutants: Sequence[str]) -> str:
    lines = [
        f"mutants = {json.dumps(list(mutants))}",
        f'log.path = "{names.DEVICE_LOG}"',
        "log.records = 4096",
        f'monitor.socket = "{names.DEVICE_MONITOR_SOCKET}"',
    ]
    if target is Target.VIOTEST:
        lines += [
            "[[iommu]]",
            f'socket = "{_IOMMU_SOCKET}"',
            f"features = {int(shape.features):#x}",
            f"bypass = {shape.bypass}",
            f"input_start = {shape.input_range[0]:#x}",
            f"domain_start = {shape.domain_range[0]:#x}",
            # 0 means all, which is also the default.
            *(_limit("input_end", shape.input_range[1], 64)),
            *(_limit("domain_end", shape.domain_range[1], 32)),
        ]
    for number, devfn in enumerate(_endpoints(shape)):
        lines += ["[[endpoint]]", f'name = "ep{number}"', f'socket = "ep{number}.sock"']
        lines.append(f"id = {devfn:#x}")
        if target is Target.VIOTEST:
            lines.append("iommu = 0")
            lines.append(f"resv_mem = {resv_mem_toml(shape.regions[number])}")
    return "\n".join(lines) + "\n"


def _limit(key: str, value: int, bits: int) -> list[str]:
    return [f"{key} = {value:#x}"] if value < 2**bits - 1 else []


def resv_mem_toml(regions: Sequence[Region]) -> str:
    """Return an endpoint's ``resv_mem`` for the device's configuration, in TOML."""
    tables = ", ".join(
        f'{{ type = "{"msi" if r.subtype == RESV_MEM_MSI else "reserved"}",'
        f" start = {r.start:#x}, end = {r.end:#x} }}"
        for r in regions
    )
    return f"[{tables}]"


def _qemu_argv(qemu: Sequence[str], target: Target, shape: Shape) -> list[str]:
    argv = bare_machine_argv(qemu)
    if target is Target.QEMU:
        bypass = "on" if shape.bypass else "off"
        options = f"addr={_IOMMU_SLOT:#x},granule=4k,boot-bypass={bypass}"
        argv += ["-device", f"virtio-iommu-pci,{options}"]
    else:
        argv += vfio_user_argv(_IOMMU_SOCKET, _IOMMU_SLOT)
    for number, devfn in enumerate(_endpoints(shape)):
        argv += vfio_user_argv(f"ep{number}.sock", devfn >> 3)
    return argv
