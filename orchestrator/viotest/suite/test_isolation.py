# SPDX-License-Identifier: GPL-2.0-or-later
"""Two endpoints at once: what the one maps is the other's only if they share it."""

from __future__ import annotations

import errno
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn

import pytest

from viotest.guest.probe import ProbeError
from viotest.scenario.model import Mode, Place
from viotest.scenario.topology import expected_groups
from viotest.suite import isolation
from viotest.suite.binding import ensure_bound, ensure_group, find_group
from viotest.suite.judgement import CheckFailed, refused
from viotest.suite.observe import DeviceWatch
from viotest.suite.passthrough import PAGE, Passthrough
from viotest.suite.steps import GUARD, mapped

if TYPE_CHECKING:
    from collections.abc import Iterator

    from viotest.guest.probe import Probe
    from viotest.report.device_log import DeviceLog
    from viotest.scenario.model import EndpointFunction, Topology
    from viotest.suite.conftest import Opener
    from viotest.suite.steps import FaultReasons

Engines = tuple["EndpointFunction", ...]


@contextmanager
def _second(
    first: Passthrough, endpoint: EndpointFunction, *, share: bool
) -> Iterator[Passthrough]:
    ensure_bound(first.probe, endpoint)
    second = Passthrough(first.probe, endpoint, first.mode, device="second")
    try:
        second.open(share=first if share else None)
    except ProbeError as error:
        raise refused(error, f"open of {endpoint.bdf} beside another") from error
    try:
        yield second
    finally:
        second.close()


def _require_partners(
    probe: Probe, topology: Topology, engines: Engines
) -> list[EndpointFunction]:
    """One engine of each place, behind the first's IOMMU and in another group."""
    first, *others = engines
    [group] = [group for group in expected_groups(topology) if first.bdf in group]
    found: dict[Place, EndpointFunction] = {}
    for one in others:
        if one.spec.iommu != first.spec.iommu or one.bdf in group:
            continue
        # Without a group it has no IOMMU, which is for the check "group" to say.
        ensure_group(probe, one)
        if find_group(probe, one.bdf) is not None:
            found.setdefault(one.spec.place, one)
    partners = list(found.values())
    if not partners:
        pytest.skip(
            "needs two dma engines in two groups: --endpoint dma-engine"
            " --endpoint dma-engine, or --endpoint standard"
        )
    return partners


def test_isolation(
    vfio: Passthrough, topology: Topology, engines: Engines, fault_reasons: FaultReasons
) -> None:
    for partner in _require_partners(vfio.probe, topology, engines):
        with _second(vfio, partner, share=False) as second:
            isolation.apart(vfio, second, fault_reasons)


def test_shared_domain(
    vfio: Passthrough,
    opener: Opener,
    topology: Topology,
    engines: Engines,
    fault_reasons: FaultReasons,
    iommu_log: DeviceLog | None,
) -> None:
    for partner in _require_partners(vfio.probe, topology, engines):
        watch = DeviceWatch(iommu_log) if iommu_log else None
        opener.close()
        first = opener.open(vfio.mode)
        with (
            mapped(first, "before", PAGE, flags="rw", byte=GUARD) as before,
            _second(first, partner, share=True) as second,
        ):
            isolation.together(first, second, fault_reasons, before)
            if watch:
                ids = (first.endpoint.endpoint_id, partner.endpoint_id)
                isolation.expect_one_domain(watch, *ids)
            isolation.alone_again(first, second, fault_reasons, before)


def _skip_with(needs: str, endpoints: str, topology: Topology, qemus: str) -> NoReturn:
    # No set of endpoints helps where QEMU's virtio-iommu cannot do it.
    if topology.qemu_iommu_bdf is not None:
        pytest.skip(f"{needs}: --iommu viotest, as {qemus}")
    pytest.skip(f"{needs}: {endpoints}, or --endpoint standard")


def _require_pair(probe: Probe, topology: Topology, engines: Engines) -> Engines:
    found = [one for one in engines if one.spec.place is Place.BRIDGE]
    if len(found) < 2:
        _skip_with(
            "needs two dma engines behind the bridge",
            "--endpoint dma-engine@bridge --endpoint dma-engine@bridge",
            topology,
            "QEMU's knows no function behind one by its own id",
        )
    for one in found[:2]:
        ensure_group(probe, one)
        if find_group(probe, one.bdf) is None:
            pytest.skip(f"{one.bdf} is in no IOMMU group: see the check group")
        ensure_bound(probe, one)
    return tuple(found[:2])


def test_merged_group(
    opener: Opener,
    vfio: Passthrough,
    topology: Topology,
    engines: Engines,
    fault_reasons: FaultReasons,
) -> None:
    pair = _require_pair(vfio.probe, topology, engines)
    # The first engine may be one of the pair.
    opener.close()
    first = Passthrough(vfio.probe, pair[0], vfio.mode, device="first")
    first.open()
    try:
        with mapped(first, "before", PAGE, flags="rw", byte=GUARD) as before:
            _expect_taken(first, pair[1])
            with _second(first, pair[1], share=True) as second:
                isolation.together(first, second, fault_reasons, before)
    finally:
        first.close()


def _expect_taken(first: Passthrough, endpoint: EndpointFunction) -> None:
    # One requester id for both: two owners would share an address space unasked.
    second = Passthrough(first.probe, endpoint, first.mode, device="second")
    try:
        second.open()
    except ProbeError as error:
        # The group is open, or iommufd sees that it has another owner.
        if error.errno in (errno.EBUSY, errno.EPERM):
            return
        raise
    second.close()
    raise CheckFailed(
        f"{endpoint.bdf} was opened apart from its group's owner",
        expected="EBUSY or EPERM: the bridge gives both endpoints one requester id",
        seen="a second container got the same group",
    )


def test_two_iommus(
    vfio: Passthrough, topology: Topology, engines: Engines, fault_reasons: FaultReasons
) -> None:
    first = vfio.endpoint
    others = [one for one in engines if one.spec.iommu != first.spec.iommu]
    if not others:
        _skip_with(
            "needs dma engines behind two virtio-iommus",
            "--endpoint dma-engine --endpoint dma-engine,iommu=1",
            topology,
            "QEMU makes one per guest",
        )
    with _second(vfio, others[0], share=False) as second:
        isolation.apart(vfio, second, fault_reasons)
    if vfio.mode is Mode.CDEV_HWPT:
        # A page table is of one virtio-iommu: there is nothing to share.
        return
    # Shared, each virtio-iommu gets a domain of its own with the same mappings:
    # those made before are replayed into the second.
    with (
        mapped(vfio, "before", PAGE, flags="rw", byte=GUARD) as before,
        _second(vfio, others[0], share=True) as second,
    ):
        isolation.together(vfio, second, fault_reasons, before)
        isolation.alone_again(vfio, second, fault_reasons, before)
