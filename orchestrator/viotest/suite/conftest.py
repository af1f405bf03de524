# SPDX-License-Identifier: GPL-2.0-or-later
"""Fixtures of the suite, over the ``viotest_context`` of viotest's pytest plugin."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from viotest.guest.probe import ProbeError
from viotest.machine.arch import require_arch
from viotest.scenario.model import EndpointModel, Iommu
from viotest.suite import binding as binding_module
from viotest.suite.catalog import check_of_test
from viotest.suite.context import SCENARIO
from viotest.suite.judgement import refused
from viotest.suite.modes import Ways
from viotest.suite.passthrough import Passthrough
from viotest.suite.steps import FaultReasons

if TYPE_CHECKING:
    from collections.abc import Iterator

    from viotest.guest.probe import Probe
    from viotest.report.device_log import DeviceLog
    from viotest.scenario.model import EndpointFunction, Mode, Topology
    from viotest.suite.binding import Binding
    from viotest.suite.context import Context


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run every check that enters VFIO once per mode of the scenario."""
    if "mode" in metafunc.fixturenames:
        check = check_of_test(metafunc.function.__name__)
        modes = check.modes_among(metafunc.config.stash[SCENARIO].modes)
        metafunc.parametrize("mode", modes, ids=[str(mode) for mode in modes])


@pytest.fixture(scope="session")
def topology(viotest_context: Context) -> Topology:
    """Where the guest's functions are."""
    return viotest_context.topology


@pytest.fixture(scope="session")
def engines(topology: Topology) -> tuple[EndpointFunction, ...]:
    """The dma engines, in the order in which they were asked for."""
    model = EndpointModel.DMA_ENGINE
    return tuple(one for one in topology.endpoints if one.spec.model is model)


@pytest.fixture(scope="session")
def endpoint(engines: tuple[EndpointFunction, ...]) -> EndpointFunction:
    """The endpoint under test: the first dma engine."""
    if not engines:
        pytest.skip("needs a dma engine: --endpoint dma-engine")
    return engines[0]


@pytest.fixture(scope="session")
def iommu_log(viotest_context: Context) -> DeviceLog | None:
    """The log of our virtio-iommu; None if the guest's is QEMU's."""
    return viotest_context.iommu_log


@pytest.fixture(scope="session")
def fault_reasons(viotest_context: Context) -> FaultReasons:
    """How an endpoint names a refusal.

    Behind QEMU's IOMMU the endpoint only learns that QEMU refused the access.
    """
    if viotest_context.scenario.iommu is Iommu.VIOTEST:
        return FaultReasons(("mapping",), ("permission",), write_only=True)
    refused = ("mapping", "permission", "bus")
    return FaultReasons(refused, refused, write_only=False)


@pytest.fixture(scope="session")
def probe(viotest_context: Context) -> Probe:
    """vfio-probe in the guest; the guest is up from here on."""
    return viotest_context.probe()


@pytest.fixture(scope="session")
def binding(probe: Probe, endpoint: EndpointFunction) -> Binding:
    """The attempt to bind the endpoint to vfio-pci, whatever came of it."""
    return binding_module.bind(probe, endpoint)


@pytest.fixture
def bound(binding: Binding) -> Binding:
    """The binding; skips the check if there is none."""
    if binding.error is not None:
        pytest.skip("needs vfio-pci, which could not be bound")
    return binding


@pytest.fixture(scope="session")
def ways(viotest_context: Context, probe: Probe, binding: Binding) -> Ways:
    """The ways into VFIO that this kernel offers."""
    return Ways(probe, str(binding.group), viotest_context.kernel_config)


@pytest.fixture
def offered(bound: Binding, ways: Ways, mode: Mode) -> Mode:
    """The mode; skips the check if the kernel does not offer it."""
    assert bound.error is None
    if why := ways.why_absent(mode):
        pytest.skip(why)
    return mode


@pytest.fixture(scope="session")
def msi_window(viotest_context: Context) -> tuple[int, int] | None:
    """First and last address of the window in which a write is an interrupt."""
    return require_arch(viotest_context.scenario.arch).msi_window


class Opener:
    """Opens the endpoint once per mode, and anew after a check that failed.

    Opening and closing reset the function, which the guest's kernel gives 100 ms
    each time: most of what a check would cost.
    """

    def __init__(self, probe: Probe, endpoint: EndpointFunction) -> None:
        self._probe = probe
        self._endpoint = endpoint
        self._current: Passthrough | None = None

    def open(self, mode: Mode) -> Passthrough:
        """Return the endpoint, open in ``mode`` and clean."""
        current = self._current
        if current is None or current.mode is not mode or current.tainted:
            self.close()
            current = Passthrough(self._probe, self._endpoint, mode)
            current.open()
            self._current = current
        return current

    def taint(self) -> None:
        """Note that what is open is in an unknown state: it will be opened anew."""
        if self._current is not None:
            self._current.tainted = True

    def close(self) -> None:
        """Close what is open."""
        current, self._current = self._current, None
        if current is not None:
            current.close()


@pytest.fixture(scope="session")
def opener(probe: Probe, endpoint: EndpointFunction) -> Opener:
    """Who holds the endpoint open from check to check."""
    return Opener(probe, endpoint)


@pytest.fixture
def vfio(opener: Opener, offered: Mode) -> Passthrough:
    """The endpoint, opened through VFIO."""
    try:
        return opener.open(offered)
    except ProbeError as error:
        raise refused(error, "open") from error


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Note on the endpoint that a check has left it in an unknown state."""
    try:
        return (yield)
    except BaseException:
        opener = getattr(item, "funcargs", {}).get("opener")
        if opener is not None:
            opener.taint()
        raise
