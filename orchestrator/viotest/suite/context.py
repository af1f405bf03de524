# SPDX-License-Identifier: GPL-2.0-or-later
"""What the suite needs of whoever runs it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import pytest

from viotest.scenario.model import Scenario

if TYPE_CHECKING:
    from collections.abc import Mapping

    from viotest.guest.probe import Probe
    from viotest.report.device_log import DeviceLog
    from viotest.scenario.model import Topology

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

    def probe(self) -> Probe:
        """Return the guest's probe; waits for the guest the first time.

        :raise GuestLostError: When the guest does not come up.
        """


#: Where ``viotest run`` puts the guest that it has started already.
CONTEXT = pytest.StashKey[Context]()
