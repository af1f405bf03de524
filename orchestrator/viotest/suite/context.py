# SPDX-License-Identifier: GPL-2.0-or-later
"""What the suite needs of whoever runs it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import pytest

from viotest.scenario.model import Scenario

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AbstractContextManager
    from pathlib import Path

    from viotest.guest.guest import ProbeProcess
    from viotest.guest.probe import Probe
    from viotest.guest.ssh import ExecResult, LineChannel
    from viotest.machine.hotplug import Unplug
    from viotest.report.device_log import DeviceLog
    from viotest.report.results import Subtest
    from viotest.scenario.model import EndpointFunction, Topology

#: Where pytest's configuration holds the scenario, from ``pytest_configure`` on:
#: which checks there are depends on it.
SCENARIO = pytest.StashKey[Scenario]()


class Context(Protocol):
    """A guest to put checks to."""

    @property
    def scenario(self) -> Scenario:
        """What was asked for."""

    @property
    def topology(self) -> Topology:
        """Where the guest's functions are."""

    @property
    def kernel_config(self) -> Mapping[str, str]:
        """The kernel's options with their values; empty if they are not known."""

    @property
    def iommu_log(self) -> DeviceLog | None:
        """The log of our virtio-iommu; None if the guest's is not ours."""

    def device_log(self) -> DeviceLog:
        """Return the log of the device process, whatever it serves."""

    def device_domain(self, endpoint_id: int) -> int | None:
        """Return the domain that our virtio-iommu has an endpoint in, if any."""

    def nr_device_mappings(self) -> int:
        """Return how many mappings our virtio-iommus hold, in all domains."""

    def start_probe(self) -> AbstractContextManager[ProbeProcess]:
        """Run another probe in the guest, to be killed at will."""

    def start_lines(self, command: str) -> AbstractContextManager[LineChannel]:
        """Run a command in the guest that answers each line with one line."""

    def reboot(self) -> None:
        """Let the guest reboot; the probe is the same, started anew."""

    @property
    def bzimage(self) -> Path | None:
        """The guest's kernel as kexec takes it; None if there is none."""

    def load_kexec(self) -> None:
        """Let the guest's kernel load itself once more.

        :raise ProbeError: When it refuses.
        """

    def kexec(self) -> None:
        """Let the guest start what it has loaded; the probe is started anew."""

    def plug(self, endpoint: EndpointFunction) -> None:
        """Plug an endpoint in again that was unplugged."""

    def unplug(self, endpoint: EndpointFunction) -> Unplug:
        """Ask the guest to give an endpoint back that is behind a root port."""

    def wait_for_unplug(self, unplug: Unplug) -> None:
        """Wait until the guest has given an endpoint back.

        :raise MachineError: When it does not.
        """

    def probe(self) -> Probe:
        """Return the guest's probe; waits for the guest the first time.

        :raise GuestLostError: When the guest does not come up.
        """

    def exec(self, command: str, *, timeout: float) -> ExecResult:
        """Run a shell command in the guest, as root.

        :param command: The command.
        :param timeout: Seconds.
        :raise GuestLostError: When the guest is lost.
        """

    def image(self, endpoint: EndpointFunction) -> Path | None:
        """Return the host's file with the blocks of an endpoint, if it has one."""


#: Where ``viotest run`` puts the guest that it has started already.
CONTEXT = pytest.StashKey[Context]()

#: Where a check leaves what it consists of, on its own pytest item.
SUBTESTS: pytest.StashKey[tuple[Subtest, ...]] = pytest.StashKey()
