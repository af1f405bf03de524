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
from viotest.suite.observe import DeviceWatch
from viotest.suite.passthrough import Passthrough

if TYPE_CHECKING:
    from viotest.guest.probe import Probe
    from viotest.scenario.model import EndpointFunction, Mode
    from viotest.suite.binding import Binding
    from viotest.suite.conftest import Opener
    from viotest.suite.context import Context
    from viotest.suite.steps import FaultReasons


@pytest.fixture
def idle(
    probe: Probe, opener: Opener, bound: Binding, endpoint: EndpointFunction
) -> EndpointFunction:
    """The endpoint under test, bound to vfio-pci and not open."""
    opener.close()
    ensure_bound(probe, endpoint)
    return endpoint


@pytest.fixture
def pluggable(
    probe: Probe, opener: Opener, bound: Binding, engines: tuple[EndpointFunction, ...]
) -> EndpointFunction:
    """A dma engine that may be unplugged, bound to vfio-pci and not open."""
    for one in engines:
        if one.spec.place is Place.HOTPLUG:
            opener.close()
            ensure_bound(probe, one)
            return one
    pytest.skip(
        "needs a dma engine that may be unplugged:"
        " --endpoint dma-engine@hotplug, or --endpoint standard"
    )


def test_rebind_often(
    viotest_context: Context,
    probe: Probe,
    idle: EndpointFunction,
    offered: Mode,
    fault_reasons: FaultReasons,
) -> None:
    lifetime.rebind_often(viotest_context, idle)
    lifetime.works(probe, idle, offered, fault_reasons)


def test_removal(
    viotest_context: Context,
    probe: Probe,
    idle: EndpointFunction,
    offered: Mode,
    fault_reasons: FaultReasons,
) -> None:
    lifetime.remove(viotest_context, probe, idle)
    lifetime.rescan(probe, idle)
    lifetime.works(probe, idle, offered, fault_reasons)


def test_kill_in_flight(
    viotest_context: Context,
    probe: Probe,
    idle: EndpointFunction,
    offered: Mode,
    fault_reasons: FaultReasons,
) -> None:
    watch = DeviceWatch(viotest_context.device_log())
    with viotest_context.start_probe() as user:
        pt = Passthrough(user.probe, idle, offered)
        try:
            pt.open()
            lifetime.kill_in_flight(user, pt, watch)
        except ProbeError as error:
            raise refused(error, "DMA of a second process") from error
    lifetime.works(probe, idle, offered, fault_reasons)


def test_hot_plug(
    viotest_context: Context,
    probe: Probe,
    pluggable: EndpointFunction,
    offered: Mode,
    fault_reasons: FaultReasons,
) -> None:
    lifetime.hot_plug(viotest_context, probe, pluggable, offered, fault_reasons)


def test_unplug_in_use(
    viotest_context: Context,
    probe: Probe,
    pluggable: EndpointFunction,
    offered: Mode,
    fault_reasons: FaultReasons,
) -> None:
    lifetime.unplug_in_use(viotest_context, probe, pluggable, offered, fault_reasons)


def test_reboot(
    viotest_context: Context,
    probe: Probe,
    idle: EndpointFunction,
    offered: Mode,
    fault_reasons: FaultReasons,
) -> None:
    pt = Passthrough(probe, idle, offered)
    try:
        pt.open()
        try:
            lifetime.reboot(viotest_context, pt)
        finally:
            # For what comes after, whatever came of it.
            ensure_bound(probe, idle)
    except ProbeError as error:
        raise refused(error, "endpoint that is open in a reboot") from error
    lifetime.works(probe, idle, offered, fault_reasons)


def test_kexec(
    viotest_context: Context,
    probe: Probe,
    idle: EndpointFunction,
    offered: Mode,
    fault_reasons: FaultReasons,
) -> None:
    # Without the second the image cannot be loaded above 4 GiB: ENOEXEC.
    for option in ("CONFIG_KEXEC_FILE", "CONFIG_RELOCATABLE"):
        if viotest_context.kernel_config.get(option) not in (None, "y"):
            pytest.skip(f"this kernel lacks {option}")
    if viotest_context.bzimage is None:
        pytest.skip("kexec takes a bzImage, and --kernel is none")
    pt = Passthrough(probe, idle, offered)
    try:
        pt.open()
        try:
            lifetime.kexec(viotest_context, pt)
        finally:
            # For what comes after, whatever came of it.
            ensure_bound(probe, idle)
    except ProbeError as error:
        raise refused(error, "endpoint that is open in a kexec") from error
    lifetime.works(probe, idle, offered, fault_reasons)
