# SPDX-License-Identifier: GPL-2.0-or-later
"""Passthrough in the guest: its own QEMU gives the endpoint to a machine in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from viotest.provision.nested import MEM
from viotest.suite.binding import ensure_bound, find_group
from viotest.suite.judgement import expect
from viotest.suite.nested import prove_nested, start_nested

if TYPE_CHECKING:
    from viotest.guest.probe import Probe
    from viotest.scenario.model import EndpointFunction, Mode, Topology
    from viotest.suite.conftest import Opener
    from viotest.suite.context import Context


@pytest.fixture
def enough(viotest_context: Context) -> int:
    """The guest's MiB; skips the check if the guest could not hold a QEMU."""
    mem = viotest_context.scenario.mem
    if mem < MEM:
        pytest.skip(f"a QEMU in the guest needs --mem {MEM}, it has {mem}")
    return mem


@pytest.fixture
def free_endpoint(
    enough: int,
    probe: Probe,
    endpoint: EndpointFunction,
    topology: Topology,
    opener: Opener,
) -> EndpointFunction:
    """The endpoint and all of its group in the hands of vfio-pci, and not open."""
    assert enough
    opener.close()
    ensure_bound(probe, endpoint)
    group = find_group(probe, endpoint.bdf)
    for other in topology.endpoints:
        if find_group(probe, other.bdf) == group:
            ensure_bound(probe, other)
    return endpoint


def test_nested(
    viotest_context: Context, free_endpoint: EndpointFunction, offered: Mode
) -> None:
    before = viotest_context.nr_device_mappings()
    with start_nested(viotest_context, free_endpoint, offered) as qtest:
        prove_nested(qtest)
    left = viotest_context.nr_device_mappings()
    expect(left, before, "mappings that the device holds once QEMU is gone")
