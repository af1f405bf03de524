# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel's own VFIO selftests, each program a check, each test of it a subtest."""

from __future__ import annotations

import posixpath
from typing import TYPE_CHECKING

import pytest

from viotest.guest.probe import ProbeError
from viotest.provision.kernel import BUILD
from viotest.scenario.model import EndpointModel
from viotest.suite.binding import bind
from viotest.suite.context import SUBTESTS
from viotest.suite.judgement import refused
from viotest.suite.native import Shell
from viotest.suite.selftests import (
    FOLDER,
    MODES,
    available_mib,
    huge_pages,
    judge_selftest,
    run_selftest,
    skip_reason,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from viotest.guest.probe import Probe
    from viotest.scenario.model import EndpointFunction, Topology
    from viotest.suite.context import Context

_DRIVER_TEST = "vfio_pci_driver_test"
#: It maps 1 GiB, of pages that it all writes to.
_DRIVER_TEST_MIB = 1200
#: Of Linux 7.3, and in which mode each runs: the one that moves gigabytes gets as
#: many checks as there are modes, so that none takes longer than a check may.
_RUNS = [
    ("vfio_pci_device_test", ""),
    ("vfio_iommufd_setup_test", ""),
    ("vfio_dma_mapping_test", ""),
    ("vfio_dma_mapping_mmio_test", ""),
    ("vfio_pci_device_init_perf_test", ""),
    ("vfio_pci_sriov_uapi_test", ""),
    *((_DRIVER_TEST, mode) for mode in MODES),
]


@pytest.fixture(scope="session")
def programs(viotest_context: Context, probe: Probe) -> frozenset[str]:
    """The names of the selftests that the guest has; skips the check if none."""
    folder, name = posixpath.split(FOLDER)
    try:
        names = probe.call("list", path=f"{folder}/{name}")["names"]
    except ProbeError:
        kernel = viotest_context.scenario.kernel
        if kernel.startswith(BUILD):
            pytest.skip(
                f"the source of {kernel} has no VFIO selftests (Linux 6.18 does)"
            )
        pytest.skip("the VFIO selftests need a kernel from source: build:linux-7.3")
    assert isinstance(names, list)
    return frozenset(map(str, names))


@pytest.fixture
def target(
    programs: frozenset[str], probe: Probe, topology: Topology
) -> Iterator[EndpointFunction]:
    """The I/OAT endpoint, in the hands of vfio-pci; skips the check if none."""
    assert programs
    ioats = [e for e in topology.endpoints if e.spec.model is EndpointModel.IOAT]
    if not ioats:
        pytest.skip("no such endpoint: --endpoint ioat")
    binding = bind(probe, ioats[0], traced=False)
    if binding.error is not None:
        raise refused(binding.error, "bind to vfio-pci")
    yield ioats[0]
    probe.call("unbind", bdf=ioats[0].bdf)


@pytest.mark.parametrize(
    ("program", "variant"), _RUNS, ids=["-".join(filter(None, run)) for run in _RUNS]
)
def test_selftests(
    request: pytest.FixtureRequest,
    viotest_context: Context,
    programs: frozenset[str],
    target: EndpointFunction,
    program: str,
    variant: str,
) -> None:
    if program not in programs:
        pytest.skip(f"this kernel's source has no {program}")
    shell = Shell(viotest_context)
    if program == _DRIVER_TEST and available_mib(shell) < _DRIVER_TEST_MIB:
        pytest.skip(f"{program} needs {_DRIVER_TEST_MIB} MiB: --mem 3072")
    with huge_pages(shell):
        run = run_selftest(viotest_context, program, target.bdf, mode=variant)
    tests, failure = judge_selftest(run)
    request.node.stash[SUBTESTS] = tests
    if failure is not None:
        raise failure
    if why := skip_reason(run):
        pytest.skip(why)
