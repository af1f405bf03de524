# SPDX-License-Identifier: GPL-2.0-or-later
"""Steps of the suite over a simulated VFIO: they pass, and they can fail."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.unit.probe_program import build_probe, start_probe
from viotest.guest.probe import Probe, ProbeError
from viotest.scenario.model import CDEV_MODES, EndpointFunction, Mode
from viotest.suite import interrupts, mapping, race
from viotest.suite.judgement import CheckFailed
from viotest.suite.passthrough import PAGE, Passthrough
from viotest.suite.steps import FaultReasons

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

BDF = "0000:00:10.0"
REASONS = FaultReasons(("mapping",), ("permission",), write_only=True)
LOAD = race.Load(rounds=3, slots=4, delay_us=0, size=4 * PAGE)
#: What the simulation has room for (NR_MAPS).
LIMIT = 16


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_probe(tmp_path_factory.mktemp("probe"), "vfio-probe-fake")


class Lab:
    """Opens the simulated endpoint."""

    def __init__(self, program: Path, sysfs: Path) -> None:
        self._program = program
        self._sysfs = sysfs

    @contextmanager
    def open(self, mode: Mode = Mode.TYPE1V2, **environ: str) -> Iterator[Passthrough]:
        environ["FAKE_SYSFS"] = str(self._sysfs)
        endpoint = EndpointFunction("ep0", BDF, "ep0.sock", endpoint_id=0x80)
        with start_probe(self._program, **environ) as transport:
            pt = Passthrough(Probe(transport), endpoint, mode)
            pt.open()
            yield pt


@pytest.fixture
def lab(program: Path, tmp_path: Path) -> Lab:
    device = tmp_path / "bus/pci/devices" / BDF
    device.mkdir(parents=True)
    (device / "iommu_group").symlink_to("../../../../kernel/iommu_groups/7")
    (device / "vfio-dev/vfio3").mkdir(parents=True)
    (device / "config").write_bytes(bytes(range(64)))
    return Lab(program, tmp_path)


STEPS: dict[str, Callable[[Passthrough], None]] = {
    "aperture": lambda pt: mapping.aperture(pt, REASONS),
    "unaligned": mapping.unaligned,
    "map-conflict": mapping.map_conflict,
    "unmap-part": lambda pt: mapping.unmap_part(pt, REASONS),
    "intx": interrupts.intx,
    "msi": interrupts.msi,
    "irq-storm": lambda pt: interrupts.storm(pt, 64),
}


@pytest.mark.parametrize("mode", Mode)
@pytest.mark.parametrize("step", STEPS)
def test_step_passes_and_cleans_up(lab: Lab, mode: Mode, step: str) -> None:
    with lab.open(mode) as pt:
        for _ in range(2):
            STEPS[step](pt)
        assert pt.probe.call("unmap-all")["unmapped"] == 0
        pt.close()


def test_remap_leaves_its_neighbours_alone(lab: Lab) -> None:
    with lab.open() as pt:
        mapping.remap_under_load(pt, (2,))
        assert pt.probe.call("unmap-all")["unmapped"] == 0


@pytest.mark.parametrize(
    ("step", "defect", "reason"),
    [
        ("unaligned", {"FAKE_LAX": "1"}, "map of memory at an odd address: no error"),
        ("map-conflict", {"FAKE_LAX": "1"}, "from the start of another one: no error"),
        ("unmap-part", {"FAKE_LAX": "1"}, "unmap of the second of two pages: 0 bytes"),
        ("aperture", {"FAKE_LEAK": "1"}, "was not refused: ok"),
        ("aperture", {"FAKE_FAIL": "VFIO_IOMMU_MAP_DMA=22"}, "cannot be mapped"),
        ("intx", {"FAKE_SILENT": "1"}, "no interrupt on INTx within 2 s"),
        ("msi", {"FAKE_SILENT": "1"}, "no interrupt on MSI vector 0 within 2 s"),
    ],
)
def test_step_sees_a_defect(
    lab: Lab, step: str, defect: dict[str, str], reason: str
) -> None:
    with lab.open(Mode.TYPE1V2, **defect) as pt, pytest.raises(CheckFailed) as failed:
        STEPS[step](pt)
    assert reason in failed.value.reason


# -- races


@pytest.mark.parametrize("mode", Mode)
def test_race_is_clean_where_dma_is_stopped(lab: Lab, mode: Mode) -> None:
    with lab.open(mode, FAKE_LATE="1") as pt:
        race.unmap_race(pt, LOAD)
        if mode in CDEV_MODES:
            race.detach_race(pt, LOAD)
        assert pt.probe.call("unmap-all")["unmapped"] == 0


def test_race_sees_dma_after_an_unmap(lab: Lab) -> None:
    with (
        lab.open(FAKE_LATE="1", FAKE_LEAK="1") as pt,
        pytest.raises(CheckFailed, match="after the unmap had returned, in round 1"),
    ):
        race.unmap_race(pt, LOAD)


def test_race_that_never_was_is_a_skip(lab: Lab) -> None:
    with lab.open() as pt, pytest.raises(pytest.skip.Exception, match="too busy"):
        race.unmap_race(pt, LOAD)


@pytest.mark.parametrize(
    ("mode", "how", "rounds", "text"),
    [
        ("type1", "detach", 1, "cannot detach"),
        ("type1", "close", 2, "closed once"),
        ("type1", "unmap", 0, "out of range"),
    ],
)
def test_race_that_cannot_be_is_refused(
    lab: Lab, mode: str, how: str, rounds: int, text: str
) -> None:
    with lab.open(Mode(mode)) as pt:
        pt.buffer("a", PAGE)
        with pytest.raises(ProbeError) as caught:
            pt.probe.call("race", name="a", iova=PAGE, how=how, rounds=rounds)
    assert (caught.value.op, text in caught.value.text) == ("parse", True)


# -- many


@pytest.mark.parametrize("mode", Mode)
def test_limit_is_met_exactly(lab: Lab, mode: Mode) -> None:
    with lab.open(mode) as pt:
        mapping.map_many(pt, LIMIT + 1, LIMIT)
        mapping.map_many(pt, LIMIT, None)


def test_limit_that_is_not_kept_is_seen(lab: Lab) -> None:
    with lab.open() as pt:
        pt.buffer("taken", PAGE)
        pt.map("taken", 0x1000)
        with pytest.raises(CheckFailed, match="mappings that the kernel made"):
            mapping.map_many(pt, LIMIT, None)


# -- storms


@pytest.mark.parametrize("lost", ["1", "64"])
def test_storm_sees_a_single_loss(lab: Lab, lost: str) -> None:
    with lab.open(FAKE_LOSE=lost) as pt:
        pt.buffer("a", PAGE)
        pt.map("a", PAGE)
        pt.probe.call("irq-enable", index="msix", vectors=4)
        with pytest.raises(ProbeError) as caught:
            pt.probe.call("irq-storm", iova=PAGE, count=64, timeout_ms=50)
    assert (caught.value.op, caught.value.error) == ("storm", "ETIMEDOUT")
    assert "4 of 4 had ended, vector" in caught.value.text


def test_storm_needs_vectors(lab: Lab) -> None:
    with lab.open() as pt, pytest.raises(ProbeError) as caught:
        pt.probe.call("irq-storm", iova=PAGE, count=1)
    assert (caught.value.op, caught.value.error) == ("irq", "ENODEV")


# -- small commands


def test_alias_is_the_same_memory_again(lab: Lab) -> None:
    with lab.open() as pt:
        pt.buffer("a", 8 * PAGE, alias=2 * PAGE)
        pt.probe.call("poke", name="a", offset=5 * PAGE, hex="c0ffee")
        assert pt.peek("a", PAGE, 3) == "c0ffee"
        assert pt.peek("a", 0, 3) == "000000"
        for size, alias in ((8 * PAGE, 3 * PAGE), (PAGE, 7)):
            with pytest.raises(ProbeError, match="multiple"):
                pt.buffer("b", size, alias=alias)


def test_number_is_read_out_of_a_binary_file(lab: Lab) -> None:
    path = f"/sys/bus/pci/devices/{BDF}/config"
    with lab.open() as pt:
        seen = pt.probe.call("read-at", path=path, offset=4, size=4)
        assert seen["value"] == 0x07060504
        for offset, size, op in ((62, 4, "read"), (0, 3, "parse")):
            with pytest.raises(ProbeError) as caught:
                pt.probe.call("read-at", path=path, offset=offset, size=size)
            assert caught.value.op == op
