# SPDX-License-Identifier: GPL-2.0-or-later
"""Which ways into VFIO a guest offers, from its nodes and its kernel's options."""

from __future__ import annotations

import errno
import json
import shlex
from typing import TYPE_CHECKING

import pytest

from viotest.guest.probe import Probe, ProbeError
from viotest.scenario.model import CDEV_MODES, IOMMUFD_MODES, Mode
from viotest.suite.judgement import CheckFailed
from viotest.suite.modes import NEEDS, Ways

if TYPE_CHECKING:
    from collections.abc import Mapping

ALL_NODES = ("/dev/iommu", "/dev/vfio/vfio", "/dev/vfio/7", "/dev/vfio/devices")
KNOWN = {"CONFIG_VFIO": "m"}


class Guest:
    """Answers as the probe of a guest with these nodes, and no others."""

    def __init__(self, *nodes: str, type1: bool = True, error: int = 0) -> None:
        self.nodes = nodes
        self.type1 = type1
        self.error = error
        self.lines: list[str] = []

    def request(self, line: str, timeout: float) -> str:
        self.lines.append(line)
        command, *words = shlex.split(line)
        args = dict(word.split("=", 1) for word in words)
        reply: dict[str, object] = {"ok": True, "command": command}
        if command == "extension":
            return json.dumps(reply | {"value": int(self.type1)})
        folder = args["path"] + "/"
        inside = [n.removeprefix(folder) for n in self.nodes if n.startswith(folder)]
        if self.error or not (inside or folder == "/dev/"):
            number = self.error or errno.ENOENT
            failure = {"ok": False, "op": "scandir", "errno": number, "text": "no"}
            return json.dumps(reply | failure)
        return json.dumps(reply | {"names": [name.split("/")[0] for name in inside]})


def ways(guest: Guest, config: Mapping[str, str] = KNOWN) -> Ways:
    return Ways(Probe(guest), "7", config)


def test_every_mode_has_its_needs() -> None:
    assert set(NEEDS) == set(Mode)


@pytest.mark.parametrize("mode", list(Mode))
def test_guest_with_every_node_offers_every_mode(mode: Mode) -> None:
    assert ways(Guest(*ALL_NODES)).why_absent(mode) == ""


@pytest.mark.parametrize(("missing", "option", "modes"), [
    ("/dev/iommu", "CONFIG_IOMMUFD", IOMMUFD_MODES),
    ("/dev/vfio/vfio", "CONFIG_VFIO_CONTAINER", (Mode.TYPE1, Mode.TYPE1V2)),
    ("/dev/vfio/7", "CONFIG_VFIO_GROUP", tuple(m for m in Mode if m not in CDEV_MODES)),
    ("/dev/vfio/devices", "CONFIG_VFIO_DEVICE_CDEV", CDEV_MODES),
])  # fmt: skip
def test_missing_node_names_the_option(
    missing: str, option: str, modes: tuple[Mode, ...]
) -> None:
    guest = Guest(*(node for node in ALL_NODES if node != missing))
    offered = ways(guest)
    absent = {mode: offered.why_absent(mode) for mode in Mode}
    assert {mode for mode, why in absent.items() if why} == set(modes)
    assert {absent[mode] for mode in modes} == {
        f"no {missing}: this kernel lacks {option}"
    }


def test_missing_node_of_unknown_kernel_is_a_guess() -> None:
    why = ways(Guest(), {}).why_absent(Mode.CDEV_IOAS)
    expected = "this kernel lacks CONFIG_IOMMUFD (its options are not known)"
    assert why == f"no /dev/iommu: {expected}"


@pytest.mark.parametrize(("mode", "option"), [
    (Mode.CDEV_HWPT, "CONFIG_IOMMUFD"), (Mode.TYPE1, "CONFIG_VFIO_CONTAINER"),
    (Mode.TYPE1V2, "CONFIG_IOMMUFD_VFIO_CONTAINER"),
])  # fmt: skip
def test_option_without_its_node_is_a_failure(mode: Mode, option: str) -> None:
    offered = ways(Guest("/dev/vfio/7"), {option: "m"})
    with pytest.raises(CheckFailed, match=f"though the kernel has {option}") as caught:
        offered.why_absent(mode)
    assert f"{option}=m" in caught.value.details


def test_container_without_type1_names_the_driver() -> None:
    guest = Guest(*ALL_NODES, type1=False)
    why = "no VFIO_TYPE1v2_IOMMU in /dev/vfio/vfio: this kernel lacks"
    assert ways(guest).why_absent(Mode.TYPE1V2) == f"{why} CONFIG_VFIO_IOMMU_TYPE1"
    with pytest.raises(CheckFailed, match="though the kernel has CONFIG_VFIO_IOMMU"):
        ways(guest, {"CONFIG_VFIO_IOMMU_TYPE1": "y"}).why_absent(Mode.TYPE1V2)


def test_guest_is_asked_once() -> None:
    guest = Guest(*ALL_NODES)
    offered = ways(guest)
    for mode in Mode:
        offered.why_absent(mode)
    asked = list(guest.lines)
    for mode in Mode:
        offered.why_absent(mode)
    assert guest.lines == asked


def test_guest_that_cannot_be_looked_at_is_no_skip() -> None:
    with pytest.raises(ProbeError, match="EACCES"):
        ways(Guest(error=errno.EACCES)).why_absent(Mode.TYPE1)
