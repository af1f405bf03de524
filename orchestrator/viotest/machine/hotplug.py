# SPDX-License-Identifier: GPL-2.0-or-later
"""Devices that come and go while the guest runs: :class:`Hotplug`."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Protocol

from viotest.machine.errors import MachineError
from viotest.machine.latch import Latch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from viotest.machine.qmp import Monitor

_TIMEOUT = 20.0


class _LossWatch(Protocol):
    def wait_readable(self, fd: int, timeout: float) -> bool: ...


class Unplug:
    """A device that the guest has been asked to give back.

    :param name: The device's id.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.gone = Latch()

    def is_done(self) -> bool:
        """Return whether the device is gone."""
        return self.gone.is_set()

    def wait(self, watch: _LossWatch, timeout: float) -> None:
        """Wait until the device is gone.

        :param watch: Ends the wait when the guest is lost.
        :param timeout: Seconds.
        :raise MachineError: When it stays.
        """
        if not watch.wait_readable(self.gone.fileno(), timeout):
            raise MachineError(f"{self.name}: not given back within {timeout:g} s")
        self.gone.close()


class Hotplug:
    """Plugs devices into a running machine, and takes them out.

    :param monitor: QEMU's monitor.
    """

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor
        self._lock = threading.Lock()
        self._unplugs: dict[str, Unplug] = {}

    def handle_event(self, name: str, data: Mapping[str, object]) -> None:
        """Take one event of QEMU's monitor."""
        if name != "DEVICE_DELETED":
            return
        with self._lock:
            # Parts of a device have a path and no id: not ours.
            unplug = self._unplugs.pop(str(data.get("device", "")), None)
        if unplug is not None:
            unplug.gone.set()

    def plug(self, device: Mapping[str, object]) -> None:
        """Add a device.

        :param device: As ``-device`` takes it in JSON.
        :raise MonitorError: When QEMU refuses.
        """
        self._monitor.execute("device_add", device, timeout=_TIMEOUT)

    def unplug(self, name: str) -> Unplug:
        """Ask the guest to give a device back; it may take its time.

        :param name: The device's id.
        :return: What tells when it is gone.
        :raise MonitorError: When QEMU refuses.
        """
        unplug = Unplug(name)
        with self._lock:
            # Before the command: the event may come before its answer.
            self._unplugs[name] = unplug
        self._monitor.execute("device_del", {"id": name}, timeout=_TIMEOUT)
        return unplug

    def close(self) -> None:
        """Forget what is still awaited; idempotent."""
        with self._lock:
            unplugs, self._unplugs = list(self._unplugs.values()), {}
        for unplug in unplugs:
            unplug.gone.close()
