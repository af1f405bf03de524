# SPDX-License-Identifier: GPL-2.0-or-later
"""Whose virtio-iommu is judged, and the machines it is judged in.

:class:`QtestLab` keeps one QEMU (and one device server) per shape that was asked for.
"""

from __future__ import annotations

import contextlib
import enum
import json
import os
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from viotest.conformance.device import QtestDevice
from viotest.conformance.errors import NotApplicableError, TargetLostError
from viotest.conformance.lab import BOOT_BYPASS, FULL, Region, Shape
from viotest.conformance.qtest import Qtest
from viotest.conformance.wire import RESV_MEM_MSI
from viotest.machine import argv as machine_argv
from viotest.machine import names
from viotest.machine.arch import require_arch
from viotest.machine.device import DeviceServer
from viotest.machine.errors import MachineError
from viotest.machine.folder import RunFolder
from viotest.machine.latch import wait_readable
from viotest.machine.owner import ProcessOwner
from viotest.machine.process import Process
from viotest.machine.qmp import Monitor, MonitorLoop

if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

_QTEST_SOCKET = "qtest.sock"
_IOMMU_SOCKET = "viommu0.sock"
_IOMMU_SLOT = 1
_FIRST_ENDPOINT_SLOT = 16

#: MiB; the rows name addresses below it.
_MEMORY = 256
_LAUNCH_TIMEOUT = 20.0
_RESET_TIMEOUT = 10.0
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


class _QtestMachine(ProcessOwner):
    """Owns a QEMU without CPUs, its monitor and its qtest socket."""

    def __init__(
        self, folder: RunFolder, argv: Sequence[str], loop: MonitorLoop
    ) -> None:
        process = Process("QEMU", argv, folder=folder, log=names.QEMU_OUTPUT)
        super().__init__(process, Monitor("qmp", loop, on_event=self._take_event))
        self._folder = folder
        self._was_reset = threading.Event()
        self.qtest: Qtest | None = None

    def reset(self) -> None:
        """Reset the machine, and wait until it is done.

        :raise TargetLostError: When it is not done in time.
        """
        self._was_reset.clear()
        self.monitor.execute("system_reset", timeout=_RESET_TIMEOUT)
        if not self._was_reset.wait(_RESET_TIMEOUT):
            raise TargetLostError("QEMU: no RESET event after system_reset")

    def _take_event(self, name: str, data: Mapping[str, object]) -> None:
        if name == "RESET":
            self._was_reset.set()

    def _launch(self, deadline: float, abort: tuple[int, ...]) -> None:
        with (
            self._folder.listen(names.QMP_SOCKET) as monitor,
            self._folder.listen(_QTEST_SOCKET) as qtest,
        ):
            self.process.launch()
            fds = (*abort, self.process.pidfd)
            monitor_sock = self._accept(monitor, deadline, fds)
            self._resources.callback(monitor_sock.close)
            self.qtest = Qtest(self._accept(qtest, deadline, fds))
            self._resources.callback(self.qtest.close)
        self._folder.unlink(names.QMP_SOCKET)
        self._folder.unlink(_QTEST_SOCKET)
        timeout = deadline - time.monotonic()
        self.monitor.connect(monitor_sock, timeout=timeout, abort=fds)

    def _accept(
        self, listener: socket.socket, deadline: float, abort: tuple[int, ...]
    ) -> socket.socket:
        fds = [listener.fileno(), *abort]
        if listener.fileno() not in wait_readable(fds, deadline - time.monotonic()):
            raise MachineError("it did not connect to its sockets in time")
        return listener.accept()[0]


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
        machine = _QtestMachine(folder, argv, self._loop)
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
            lines.append(f"resv_mem = [{_resv_mem(shape.regions[number])}]")
    return "\n".join(lines) + "\n"


def _limit(key: str, value: int, bits: int) -> list[str]:
    return [f"{key} = {value:#x}"] if value < 2**bits - 1 else []


def _resv_mem(regions: Sequence[Region]) -> str:
    return ", ".join(
        f'{{ type = "{"msi" if r.subtype == RESV_MEM_MSI else "reserved"}",'
        f" start = {r.start:#x}, end = {r.end:#x} }}"
        for r in regions
    )


def _qemu_argv(qemu: Sequence[str], target: Target, shape: Shape) -> list[str]:
    arch = require_arch("x86_64")
    memory = f"memory-backend-memfd,id=ram,size={_MEMORY}M,share=on"
    # fmt: off
    argv = [
        *_with_modules(qemu),
        "-no-user-config", "-nodefaults",
        "-display", "none",
        "-run-with", "exit-with-parent=on",
        "-machine", ",".join(["q35", "memory-backend=ram", *arch.machine_properties]),
        "-accel", "qtest",
        "-m", f"{_MEMORY}M",
        "-object", memory,
        "-chardev", f"socket,id=mon,path={names.QMP_SOCKET}",
        "-qmp", "chardev:mon",
        "-chardev", f"socket,id=qtest,path={_QTEST_SOCKET}",
        "-qtest", "chardev:qtest",
        "-qtest-log", "none",
    ]
    # fmt: on
    if target is Target.QEMU:
        bypass = "on" if shape.bypass else "off"
        options = f"addr={_IOMMU_SLOT:#x},granule=4k,boot-bypass={bypass}"
        argv += ["-device", f"virtio-iommu-pci,{options}"]
    else:
        argv += _vfio_user(_IOMMU_SOCKET, _IOMMU_SLOT)
    for number, devfn in enumerate(_endpoints(shape)):
        argv += _vfio_user(f"ep{number}.sock", devfn >> 3)
    return argv


# Debian's QEMU has its qtest accelerator in a module, which it looks for beside
# its own executable; started through a loader of another folder it sees the loader.
def _with_modules(qemu: Sequence[str]) -> list[str]:
    if "--library-path" not in qemu:
        return list(qemu)
    libraries = qemu[qemu.index("--library-path") + 1]
    return ["env", f"QEMU_MODULE_DIR={libraries}/qemu", *qemu]


def _vfio_user(path: str, slot: int) -> list[str]:
    socket_address = {"type": "unix", "path": path}
    device = {
        "driver": "vfio-user-pci",
        "addr": f"{slot:x}",
        "socket": socket_address,
        "rombar": 0,
    }
    return ["-device", json.dumps(device, separators=(",", ":"))]
