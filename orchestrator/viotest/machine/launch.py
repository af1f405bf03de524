# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest's machine, from its first process to its last: :func:`start_machine`."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from viotest.machine.device import DeviceServer
from viotest.machine.errors import LaunchError
from viotest.machine.folder import RunFolder
from viotest.machine.machine import Machine
from viotest.machine.qmp import MonitorLoop
from viotest.machine.record import ignore
from viotest.machine.watch import Watch

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from viotest.machine.record import Recorder


@dataclass(frozen=True)
class Launch:
    """What to start, and where. The folder holds every file that is named."""

    #: The run folder: the working directory of both processes.
    folder: Path
    qemu_argv: tuple[str, ...]
    device_argv: tuple[str, ...]
    #: The sockets of the device's functions, removed once QEMU is connected.
    sockets: tuple[str, ...] = field(default=())
    #: Seconds for each process to come up.
    launch_timeout: float = 20.0
    #: Seconds for each process to end when asked to.
    shutdown_timeout: float = 10.0


@dataclass(frozen=True)
class RunningMachine:
    """The parts of a machine that runs."""

    folder: RunFolder
    device: DeviceServer
    machine: Machine
    watch: Watch


@contextlib.contextmanager
def start_machine(
    launch: Launch, *, record: Recorder = ignore
) -> Iterator[RunningMachine]:
    """Run the device server and QEMU, watched, for the length of a with block.

    Both are asked to end after the block, and killed without being asked when it
    raises or the guest is lost. Nothing of them is left in either case, no socket
    either.

    :param launch: What to start.
    :param record: Takes what monitors, console and watch have to tell.
    :raise LaunchError: When one does not come up.
    :raise AbnormalShutdownError: When one does not end when asked to.
    """
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(RunFolder(launch.folder))
        loop = MonitorLoop()
        stack.callback(loop.close)
        device = DeviceServer(folder, launch.device_argv, loop, record=record)
        stack.enter_context(device)
        machine = Machine(folder, launch.qemu_argv, loop, record=record)
        stack.enter_context(machine)
        # The device first: QEMU connects to it once, and waits for no socket.
        device.launch(timeout=launch.launch_timeout)
        _launch_qemu(machine, device, launch.launch_timeout)
        for name in launch.sockets:
            folder.unlink(name)
        watch = _start_watch(machine, device, record)
        stack.callback(watch.close)
        yield RunningMachine(folder, device, machine, watch)
        watch.stop()
        if watch.loss is not None:
            # QEMU may hang on the device, or the device on nothing at all.
            machine.kill()
            device.kill()
        machine.shutdown(timeout=launch.shutdown_timeout)
        device.shutdown(timeout=launch.shutdown_timeout)


def _launch_qemu(machine: Machine, device: DeviceServer, timeout: float) -> None:
    try:
        machine.launch(timeout=timeout, abort=[device.process.pidfd])
    except LaunchError as err:
        if device.process.alive:
            raise
        # QEMU only noticed.
        process = device.process
        raise LaunchError(
            f"{process.name} {process.status} while QEMU was starting",
            argv=process.argv,
            status=process.status,
            output=process.log_tail(),
        ) from err


def _start_watch(machine: Machine, device: DeviceServer, record: Recorder) -> Watch:
    watch = Watch(
        qemu=machine.process,
        device=device.process,
        console=machine.console,
        end=machine.end,
        heartbeat=device.heartbeat(),
        record=record,
    )
    watch.start()
    return watch
