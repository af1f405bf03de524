# SPDX-License-Identifier: GPL-2.0-or-later
"""Endpoints change hands, their users die, and they are unplugged.

After everything else: what goes wrong here may leave the guest in any state.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from viotest.guest.probe import ProbeError
from viotest.scenario.model import Place
from viotest.suite import lifetime
from viotest.suite.binding import ensure_bound
from viotest.suite.judgement import refused
from viotest.suite.lifetime import Subject
from viotest.suite.observe import DeviceWatch
from viotest.suite.passthrough import Passthrough

if TYPE_CHECKING:
    from collections.abc import Callable

    from viotest.guest.probe import Probe
    from viotest.scenario.model import EndpointFunction, Mode
    from viotest.suite.binding import Binding
    from viotest.suite.conftest import Opener
    from viotest.suite.context import Context
    from viotest.suite.steps import FaultReasons

    Prepare = Callable[[EndpointFunction], Subject]


@pytest.fixture
def prepare(
    viotest_context: Context,
    probe: Probe,
    opener: Opener,
    bound: Binding,
    offered: Mode,
    fault_reasons: FaultReasons,
) -> Prepare:
    """Bind an endpoint to vfio-pci, with nothing open."""

    def prepare(endpoint: EndpointFunction) -> Subject:
        opener.close()
        ensure_bound(probe, endpoint)
        return Subject(viotest_context, probe, endpoint, offered, fault_reasons)

    return prepare


@pytest.fixture
def idle(prepare: Prepare, endpoint: EndpointFunction) -> Subject:
    """The endpoint under test."""
    return prepare(endpoint)


@pytest.fixture
def pluggable(prepare: Prepare, engines: tuple[EndpointFunction, ...]) -> Subject:
    """A dma engine that may be unplugged."""
    for one in engines:
        if one.spec.place is Place.HOTPLUG:
            return prepare(one)
    pytest.skip(
        "needs a dma engine that may be unplugged:"
        " --endpoint dma-engine@hotplug, or --endpoint standard"
    )


def test_rebind_often(idle: Subject) -> None:
    lifetime.rebind_often(idle.context, idle.endpoint)
    lifetime.works(idle)


def test_removal(idle: Subject) -> None:
    lifetime.remove(idle)
    lifetime.rescan(idle)
    lifetime.works(idle)


def test_kill_in_flight(idle: Subject) -> None:
    watch = DeviceWatch(idle.context.device_log())
    with idle.context.start_probe() as user:
        pt = Passthrough(user.probe, idle.endpoint, idle.mode)
        try:
            pt.open()
            lifetime.kill_in_flight(user, pt, watch)
        except ProbeError as error:
            raise refused(error, "DMA of a second process") from error
    lifetime.works(idle)


def test_hot_plug(pluggable: Subject) -> None:
    lifetime.hot_plug(pluggable)


def test_unplug_in_use(pluggable: Subject) -> None:
    lifetime.unplug_in_use(pluggable)


def test_reboot(idle: Subject) -> None:
    lifetime.boot_again(idle, lifetime.reboot, "reboot")
    lifetime.works(idle)


def test_kexec(idle: Subject) -> None:
    # Without the second the image cannot be loaded above 4 GiB: ENOEXEC.
    for option in ("CONFIG_KEXEC_FILE", "CONFIG_RELOCATABLE"):
        if idle.context.kernel_config.get(option) not in (None, "y"):
            pytest.skip(f"this kernel lacks {option}")
    if idle.context.bzimage is None:
        pytest.skip("kexec takes a bzImage, and --kernel is none")
    lifetime.boot_again(idle, lifetime.kexec, "kexec")
    lifetime.works(idle)
