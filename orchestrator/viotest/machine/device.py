# SPDX-License-Identifier: GPL-2.0-or-later
"""The device server's owner: :class:`DeviceServer`."""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING

from viotest.machine import names
from viotest.machine.errors import MachineError
from viotest.machine.heartbeat import Heartbeat
from viotest.machine.latch import wait_readable
from viotest.machine.owner import ProcessOwner
from viotest.machine.process import Process
from viotest.machine.qmp import Monitor
from viotest.machine.record import ignore

if TYPE_CHECKING:
    from collections.abc import Sequence

    from viotest.machine.folder import RunFolder
    from viotest.machine.qmp import MonitorLoop
    from viotest.machine.record import Recorder

_NAME = "viotest-device"
_MAX_READY_LINE = 65536


class DeviceServer(ProcessOwner):
    """Owns the process that serves the virtio-iommu and the endpoints.

    :param folder: The run folder; holds the device's configuration.
    :param argv: How the server is started (:func:`~viotest.machine.argv.device_argv`).
    :param loop: Where its monitor runs.
    :param record: Takes its monitor's events, source "device".
    """

    def __init__(
        self,
        folder: RunFolder,
        argv: Sequence[str],
        loop: MonitorLoop,
        *,
        record: Recorder = ignore,
    ) -> None:
        process = Process(
            _NAME, argv, folder=folder, log=names.DEVICE_OUTPUT, pipe_stdout=True
        )
        super().__init__(process, Monitor("device", loop, record=record))
        self._folder = folder

    def heartbeat(self) -> Heartbeat:
        """Return a reader of the device's sign of life; the caller closes it.

        :raise MachineError: When the device keeps no request log.
        """
        try:
            return Heartbeat(self._folder)
        except (OSError, ValueError) as err:
            raise MachineError(f"{_NAME}: no request log: {err}") from err

    def _launch(self, deadline: float, abort: tuple[int, ...]) -> None:
        self.process.launch()
        self._wait_for_ready(deadline, abort)
        sock = self._folder.connect(names.DEVICE_MONITOR_SOCKET)
        # Nobody else is to connect, and a killed device would leave it behind.
        self._folder.unlink(names.DEVICE_MONITOR_SOCKET)
        self.monitor.connect(
            sock,
            timeout=deadline - time.monotonic(),
            abort=(*abort, self.process.pidfd),
        )

    # One line says that every socket listens. Nothing is expected after it, and
    # the pipe stays open, so that a stray print cannot kill the device.
    def _wait_for_ready(self, deadline: float, abort: tuple[int, ...]) -> None:
        pipe = self.process.stdout
        line = b""
        while b"\n" not in line:
            ready = wait_readable([pipe, *abort], deadline - time.monotonic())
            if pipe not in ready:
                raise MachineError("not ready in time")
            data = os.read(pipe, 4096)
            line += data
            if not data or len(line) > _MAX_READY_LINE:
                raise MachineError("it did not say that it is ready")
        if not _is_ready(line.partition(b"\n")[0]):
            raise MachineError(f"it said {line[:80]!r} instead of READY")


def _is_ready(line: bytes) -> bool:
    try:
        message = json.loads(line)
    except (ValueError, RecursionError):
        return False
    return isinstance(message, dict) and message.get("event") == "READY"
