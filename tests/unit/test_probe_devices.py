# SPDX-License-Identifier: GPL-2.0-or-later
"""Several devices in one vfio-probe, over a simulated VFIO."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.unit import test_probe_vfio
from tests.unit.test_probe_vfio import BDF, IOVA, start_ready
from viotest.guest.probe import Probe, ProbeError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

program = test_probe_vfio.program
sysfs = test_probe_vfio.sysfs


@pytest.fixture
def opened(program: Path, sysfs: Path) -> Iterator[Probe]:
    """A probe whose first device is open."""
    with start_ready(program, sysfs) as probe:
        yield probe


def test_use_leaves_each_device_its_own_state(opened: Probe) -> None:
    other = opened.device("other")
    with pytest.raises(ProbeError) as caught:
        other.call("reset")
    assert (caught.value.op, caught.value.error) == ("vfio", "ENODEV")
    # The first is open still, and engine and mappings with it.
    assert opened.call("engine-info")["nr_vectors"]
    seen = opened.call("dma", op="checksum", iova=IOVA, length=4096)
    assert seen["status"] == "ok"


def test_use_refuses_a_name_that_is_too_long(opened: Probe) -> None:
    with pytest.raises(ProbeError) as caught:
        opened.device("a name of sixteen").call("reset")
    assert (caught.value.op, caught.value.error) == ("parse", "EINVAL")


def test_open_refuses_to_share_with_what_is_not_open(opened: Probe) -> None:
    with pytest.raises(ProbeError) as caught:
        opened.device("b").call("open", bdf=BDF, mode="type1v2", share="nobody")
    assert (caught.value.op, caught.value.error) == ("parse", "EINVAL")


def test_open_refuses_to_share_another_mode(opened: Probe) -> None:
    with pytest.raises(ProbeError) as caught:
        opened.device("b").call("open", bdf=BDF, mode="type1", share="")
    assert (caught.value.op, caught.value.error) == ("parse", "EINVAL")
