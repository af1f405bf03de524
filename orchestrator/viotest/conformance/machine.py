# SPDX-License-Identifier: GPL-2.0-or-later
"""A QEMU without a guest: :class:`QtestMachine`, and its command line."""

from __future__ import annotations

import json
import threading
import time
from typing import TYPE_CHECKING

from viotest.conformance.errors import TargetLostError
from viotest.conformance.qtest import Qtest, SocketLink
from viotest.machine import names
from viotest.machine.arch import require_arch
from viotest.machine.errors import MachineError
from viotest.machine.latch import wait_readable
from viotest.machine.owner import ProcessOwner
from viotest.machine.process import Process
from viotest.machine.qmp import Monitor

if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping, Sequence

    from viotest.machine.folder import RunFolder
    from viotest.machine.qmp import MonitorLoop

_QTEST_SOCKET = "qtest.sock"
#: MiB; the rows name addresses below it.
_MEMORY = 256
_RESET_TIMEOUT = 10.0


class QtestMachine(ProcessOwner):
    """Owns a QEMU without CPUs, its monitor and its qtest socket.

    :param folder: Where it runs.
    :param argv: :func:`bare_machine_argv`, and devices.
    :param loop: Where its monitor runs.
    """

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
            self.qtest = Qtest(SocketLink(self._accept(qtest, deadline, fds)))
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


def bare_machine_argv(qemu: Sequence[str]) -> list[str]:
    """Return the command line of a machine without devices.

    :param qemu: How QEMU is started.
    """
    arch = require_arch("x86_64")
    memory = f"memory-backend-memfd,id=ram,size={_MEMORY}M,share=on"
    # fmt: off
    return [
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


def vfio_user_argv(path: str, slot: int) -> list[str]:
    """Return the option that puts a device of ours into a slot.

    :param path: Its socket.
    """
    socket_address = {"type": "unix", "path": path}
    device = {
        "driver": "vfio-user-pci",
        "addr": f"{slot:x}",
        "socket": socket_address,
        "rombar": 0,
    }
    return ["-device", json.dumps(device, separators=(",", ":"))]


# Debian's QEMU has its qtest accelerator in a module, which it looks for beside
# its own executable; started through a loader of another folder it sees the loader.
def _with_modules(qemu: Sequence[str]) -> list[str]:
    if "--library-path" not in qemu:
        return list(qemu)
    libraries = qemu[qemu.index("--library-path") + 1]
    return ["env", f"QEMU_MODULE_DIR={libraries}/qemu", *qemu]
