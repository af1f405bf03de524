# SPDX-License-Identifier: GPL-2.0-or-later
"""DMA against whoever takes its memory away."""

from __future__ import annotations

from typing import TYPE_CHECKING

from viotest.scenario.model import CDEV_MODES
from viotest.suite import race
from viotest.suite.observe import DeviceWatch

if TYPE_CHECKING:
    from viotest.suite.context import Context
    from viotest.suite.passthrough import Passthrough


def test_unmap_race(vfio: Passthrough) -> None:
    race.unmap_race(vfio, race.SHORT)


def test_detach_race(vfio: Passthrough) -> None:
    race.detach_race(vfio, race.SHORT)


def test_close_race(vfio: Passthrough, viotest_context: Context) -> None:
    race.close_race(vfio, DeviceWatch(viotest_context.device_log()))


def test_race_long(vfio: Passthrough) -> None:
    race.unmap_race(vfio, race.LONG)
    if vfio.mode in CDEV_MODES:
        race.detach_race(vfio, race.LONG)
