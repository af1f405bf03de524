# SPDX-License-Identifier: GPL-2.0-or-later
"""QEMU's owner: :class:`Machine`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from viotest.machine import names
from viotest.machine.console import Console
from viotest.machine.errors import MachineError
from viotest.machine.hotplug import Hotplug
from viotest.machine.latch import wait_readable
from viotest.machine.owner import ProcessOwner
from viotest.machine.process import Process
from viotest.machine.qmp import Monitor
from viotest.machine.record import ignore
from viotest.machine.watch import GuestEnd

if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping, Sequence

    from viotest.machine.folder import RunFolder
    from viotest.machine.qmp import MonitorLoop
    from viotest.machine.record import Recorder


_TIMEOUT = 10.0


class Machine(ProcessOwner):
    """Owns QEMU, its monitor and the guest's console.

    :param folder: The run folder.
    :param argv: How QEMU is started (:func:`~viotest.machine.argv.qemu_argv`).
    :param loop: Where its monitor runs.
    :param record: Takes its monitor's events, source "qmp", and the console's.
    """

    def __init__(
        self,
        folder: RunFolder,
        argv: Sequence[str],
        loop: MonitorLoop,
        *,
        record: Recorder = ignore,
    ) -> None:
        #: What QEMU's events tell about the end of the guest.
        self.end = GuestEnd()
        #: The guest's serial console.
        self.console = Console(folder, record=record)
        monitor = Monitor("qmp", loop, record=record, on_event=self._handle_event)
        #: Plugs devices into the running guest.
        self.hotplug = Hotplug(monitor)
        process = Process("QEMU", argv, folder=folder, log=names.QEMU_OUTPUT)
        super().__init__(process, monitor)
        self._folder = folder

    def _launch(self, deadline: float, abort: tuple[int, ...]) -> None:
        self._resources.callback(self.end.latch.close)
        self._resources.callback(self.hotplug.close)
        self._resources.callback(self.console.close)
        # Both are there before QEMU starts: it connects once, at once.
        self.console.start()
        with self._folder.listen(names.QMP_SOCKET) as monitor:
            self.process.launch()
            fds = (*abort, self.process.pidfd)
            monitor_sock = self._accept(monitor, deadline, fds)
            self._resources.callback(monitor_sock.close)
        self._folder.unlink(names.QMP_SOCKET)
        # QEMU answers when its main loop runs, so every device is realized then,
        # and the console open.
        timeout = deadline - time.monotonic()
        self.monitor.connect(monitor_sock, timeout=timeout, abort=fds)
        self.console.connected()
        self._folder.hold(names.SSH_SOCKET)

    def _handle_event(self, name: str, data: Mapping[str, object]) -> None:
        self.end.handle_event(name, data)
        self.hotplug.handle_event(name, data)

    def allow_reboot(self, allowed: bool) -> None:
        """Let a reboot of the guest be one, instead of the end of QEMU.

        :raise MonitorError: When QEMU refuses.
        """
        action = "reset" if allowed else "shutdown"
        self.monitor.execute("set-action", {"reboot": action}, timeout=_TIMEOUT)

    def connect_ssh(self) -> socket.socket:
        """Return a connection to the guest's SSH port.

        Not before the beacon: QEMU's network then has to guess when the guest is
        up, and its guesses double, which costs seconds.

        :raise MachineError: When QEMU does not take it.
        """
        try:
            return self._folder.connect(names.SSH_SOCKET)
        except OSError as err:
            raise MachineError(
                f"{self.process.name}: {names.SSH_SOCKET}: {err}"
            ) from err

    def _accept(
        self, listener: socket.socket, deadline: float, abort: tuple[int, ...]
    ) -> socket.socket:
        fds = [listener.fileno(), *abort]
        if listener.fileno() not in wait_readable(fds, deadline - time.monotonic()):
            raise MachineError("it did not connect to its monitor in time")
        return listener.accept()[0]
