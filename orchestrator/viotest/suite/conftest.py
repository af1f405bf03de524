# SPDX-License-Identifier: GPL-2.0-or-later
"""Fixtures of the suite, over the ``viotest_context`` of viotest's pytest plugin."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from viotest.guest.probe import ProbeError
from viotest.scenario.model import Iommu
from viotest.suite import binding as binding_module
from viotest.suite.context import SCENARIO
from viotest.suite.judgement import refused
from viotest.suite.passthrough import Passthrough

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
        modes = metafunc.config.stash[SCENARIO].modes
        metafunc.parametrize("mode", modes, ids=[str(mode) for mode in modes])


@pytest.fixture(scope="session")
def topology(viotest_context: Context) -> Topology:
    """Where the guest's functions are."""
    return viotest_context.topology


@pytest.fixture(scope="session")
def endpoint(topology: Topology) -> EndpointFunction:
    """The endpoint under test."""
    return topology.endpoints[0]


@pytest.fixture(scope="session")
def iommu_log(viotest_context: Context) -> DeviceLog | None:
    """The log of our virtio-iommu; None if the guest's is QEMU's."""
    return viotest_context.iommu_log


@pytest.fixture(scope="session")
def fault_reasons(viotest_context: Context) -> tuple[str, ...]:
    """How an endpoint may name the refusal of an address that is not mapped.

    Behind QEMU's IOMMU the endpoint only learns that QEMU refused the access.
    """
    if viotest_context.scenario.iommu is Iommu.VIOTEST:
        return ("mapping", "permission")
    return ("mapping", "permission", "bus")


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


@pytest.fixture
def vfio(
    probe: Probe, bound: Binding, endpoint: EndpointFunction, mode: Mode
) -> Iterator[Passthrough]:
    """The endpoint, opened through VFIO; closed afterwards."""
    pt = Passthrough(probe, endpoint, mode)
    try:
        pt.open()
    except ProbeError as error:
        raise refused(error, "open") from error
    yield pt
    pt.close()
