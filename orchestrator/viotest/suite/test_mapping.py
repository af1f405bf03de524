# SPDX-License-Identifier: GPL-2.0-or-later
"""Mappings at the limits of what may be mapped."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from viotest.guest.probe import ProbeError
from viotest.scenario.model import TYPE1_MODES
from viotest.suite import mapping

if TYPE_CHECKING:
    from collections.abc import Iterator

    from viotest.guest.probe import Probe
    from viotest.report.device_log import DeviceLog
    from viotest.scenario.model import Mode
    from viotest.suite.conftest import Opener
    from viotest.suite.passthrough import Passthrough
    from viotest.suite.steps import FaultReasons

# Of the container that test_map_limit makes: enough to be an exact number.
_SMALL_LIMIT = 48


@pytest.fixture
def log(iommu_log: DeviceLog | None) -> DeviceLog:
    """The log of our virtio-iommu; skips the check if the guest's is QEMU's."""
    if iommu_log is None:
        pytest.skip("the guest's IOMMU is QEMU's: it keeps no log for us to read")
    return iommu_log


@pytest.fixture
def huge_pages(vfio: Passthrough) -> None:
    """Two huge pages; skips the check if the guest has none."""
    if not mapping.has_huge_pages(vfio, 2):
        pytest.skip("the guest has no huge pages: CONFIG_HUGETLBFS, or its memory")


@pytest.fixture
def type1_limit(probe: Probe) -> Iterator[int]:
    """The limit of type1; what a check sets it to is undone."""
    try:
        text = str(probe.call("read", path=mapping.TYPE1_LIMIT)["text"])
    except ProbeError:
        pytest.skip(f"no {mapping.TYPE1_LIMIT}: the container is iommufd's")
    yield int(text)
    probe.call("write", path=mapping.TYPE1_LIMIT, data=text.strip())


def test_aperture(vfio: Passthrough, fault_reasons: FaultReasons) -> None:
    mapping.aperture(vfio, fault_reasons)


def test_unaligned(vfio: Passthrough) -> None:
    mapping.unaligned(vfio)


def test_map_requests(vfio: Passthrough, log: DeviceLog) -> None:
    mapping.map_requests(vfio, log)


@pytest.mark.usefixtures("huge_pages")
def test_huge_page(vfio: Passthrough, log: DeviceLog) -> None:
    mapping.huge_page(vfio, log)


@pytest.mark.usefixtures("huge_pages")
def test_map_gigabyte(vfio: Passthrough, fault_reasons: FaultReasons) -> None:
    mapping.map_gigabyte(vfio, fault_reasons)


def test_map_conflict(vfio: Passthrough) -> None:
    mapping.map_conflict(vfio)


def test_unmap_part(vfio: Passthrough, fault_reasons: FaultReasons) -> None:
    mapping.unmap_part(vfio, fault_reasons)


def test_remap_under_load(vfio: Passthrough) -> None:
    mapping.remap_under_load(vfio)


@pytest.mark.usefixtures("type1_limit")
def test_map_limit(opener: Opener, probe: Probe, offered: Mode) -> None:
    # A container takes the limit over as it is opened.
    opener.close()
    probe.call("write", path=mapping.TYPE1_LIMIT, data=str(_SMALL_LIMIT))
    pt = opener.open(offered)
    # Twice: an unmap gives back what it takes away.
    for _ in range(2):
        mapping.map_many(pt, _SMALL_LIMIT + 1, _SMALL_LIMIT)
    opener.close()


def test_map_64k(vfio: Passthrough, mode: Mode, request: pytest.FixtureRequest) -> None:
    limit = None
    if mode in TYPE1_MODES:
        limit = request.getfixturevalue("type1_limit")
    mapping.map_many(vfio, 1 << 16, limit)
