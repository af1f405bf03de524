# SPDX-License-Identifier: GPL-2.0-or-later
"""Devices that come and go: which event means which device."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import pytest

from viotest.machine.errors import MachineError, MonitorError
from viotest.machine.hotplug import Hotplug
from viotest.machine.latch import wait_readable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from viotest.machine.qmp import Monitor


class FakeMonitor:
    """Takes down commands; may say at once that a device is gone, or refuse."""

    def __init__(self) -> None:
        self.commands: list[tuple[str, Mapping[str, object]]] = []
        self.events: list[dict[str, object]] = []
        self.refuses = False
        self.hotplug: Hotplug | None = None

    def execute(self, command: str, arguments: Any, *, timeout: float) -> None:
        if self.refuses:
            raise MonitorError("no")
        self.commands.append((command, arguments))
        for event in self.events:
            assert self.hotplug is not None
            self.hotplug.handle_event("DEVICE_DELETED", event)


class LivingGuest:
    def wait_readable(self, fd: int, timeout: float) -> bool:
        return bool(wait_readable([fd], timeout))


@pytest.fixture
def monitor() -> FakeMonitor:
    return FakeMonitor()


@pytest.fixture
def hotplug(monitor: FakeMonitor) -> Iterator[Hotplug]:
    hotplug = Hotplug(cast("Monitor", monitor))
    monitor.hotplug = hotplug
    yield hotplug
    hotplug.close()


def test_plug_hands_the_device_on(hotplug: Hotplug, monitor: FakeMonitor) -> None:
    hotplug.plug({"driver": "x", "id": "ep0"})
    assert monitor.commands == [("device_add", {"driver": "x", "id": "ep0"})]


def test_unplug_waits_for_its_own_event(hotplug: Hotplug, monitor: FakeMonitor) -> None:
    unplug = hotplug.unplug("ep0")
    assert monitor.commands == [("device_del", {"id": "ep0"})]
    hotplug.handle_event("DEVICE_DELETED", {"path": "/machine/peripheral/ep0/x"})
    hotplug.handle_event("DEVICE_DELETED", {"device": "ep1", "path": "/"})
    hotplug.handle_event("DEVICE_UNPLUG_GUEST_ERROR", {"device": "ep0", "path": "/"})
    assert not unplug.is_done()
    with pytest.raises(MachineError, match="ep0: not given back within"):
        unplug.wait(LivingGuest(), 0.01)
    hotplug.handle_event("DEVICE_DELETED", {"device": "ep0", "path": "/"})
    unplug.wait(LivingGuest(), 0.0)
    assert unplug.is_done()


def test_unplug_that_is_done_before_its_answer(
    hotplug: Hotplug, monitor: FakeMonitor
) -> None:
    monitor.events = [{"device": "ep0"}]
    unplug = hotplug.unplug("ep0")
    unplug.wait(LivingGuest(), 0.0)


def test_unplug_that_is_refused(hotplug: Hotplug, monitor: FakeMonitor) -> None:
    monitor.refuses = True
    with pytest.raises(MonitorError):
        hotplug.unplug("ep0")
