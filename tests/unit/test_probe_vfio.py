# SPDX-License-Identifier: GPL-2.0-or-later
"""The commands of vfio-probe that need a device, over a simulated VFIO."""

from __future__ import annotations

import zlib
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from tests.unit.probe_program import build_probe, start_probe
from viotest.guest.probe import Probe, ProbeError, pattern

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BDF = "0000:00:10.0"
IOVA = 0x100000
GROUP_MODES = ("type1", "type1v2", "iommufd-compat", "iommufd-group")
CDEV_MODES = ("cdev-ioas", "cdev-hwpt")
MODES = GROUP_MODES + CDEV_MODES


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_probe(tmp_path_factory.mktemp("probe"), "vfio-probe-fake")


@pytest.fixture
def sysfs(tmp_path: Path) -> Path:
    device = tmp_path / "bus/pci/devices" / BDF
    device.mkdir(parents=True)
    for name in ("native", "vfio-pci"):
        driver = tmp_path / "bus/pci/drivers" / name
        driver.mkdir(parents=True)
        (driver / "bind").touch()
        (driver / "unbind").touch()
    (device / "driver_override").touch()
    (device / "driver").symlink_to("../../drivers/native")
    (device / "iommu_group").symlink_to("../../../../kernel/iommu_groups/7")
    (device / "vfio-dev/vfio3").mkdir(parents=True)
    return tmp_path


@contextmanager
def start(program: Path, sysfs: Path, **environ: str) -> Iterator[Probe]:
    with start_probe(program, FAKE_SYSFS=str(sysfs), **environ) as transport:
        yield Probe(transport)


@contextmanager
def start_ready(
    program: Path, sysfs: Path, mode: str = "type1v2", **environ: str
) -> Iterator[Probe]:
    """A device that is open, with a buffer "a" of 64 KiB mapped at IOVA."""
    with start(program, sysfs, **environ) as probe:
        probe.call("open", bdf=BDF, mode=mode)
        probe.call("bus-master", on=1)
        probe.call("buf", name="a", size=65536)
        probe.call("map", name="a", iova=IOVA)
        yield probe


@pytest.fixture
def probe(program: Path, sysfs: Path) -> Iterator[Probe]:
    with start_ready(program, sysfs) as probe:
        yield probe


@pytest.fixture(params=MODES)
def any_mode(
    program: Path, sysfs: Path, request: pytest.FixtureRequest
) -> Iterator[Probe]:
    with start_ready(program, sysfs, request.param) as probe:
        yield probe


@pytest.fixture(params=CDEV_MODES)
def cdev(program: Path, sysfs: Path, request: pytest.FixtureRequest) -> Iterator[Probe]:
    with start_ready(program, sysfs, request.param) as probe:
        yield probe


# --- drivers -----------------------------------------------------------------


def test_bind_moves_function_and_back(program: Path, sysfs: Path) -> None:
    device = sysfs / "bus/pci/devices" / BDF
    with start(program, sysfs) as probe:
        reply = probe.call("bind", bdf=BDF, driver="vfio-pci")
        assert (reply["previous"], reply["group"]) == ("native", 7)
        assert (device / "driver").readlink().name == "vfio-pci"
        assert (device / "driver_override").read_text() == "vfio-pci"
        probe.call("bind", bdf=BDF, driver="native")
        assert (device / "driver").readlink().name == "native"
        # A write to sysfs replaces; here it goes over the first byte.
        assert (device / "driver_override").read_text()[0] == "\n"
        assert probe.call("unbind", bdf=BDF)["previous"] == "native"
        assert not (device / "driver").is_symlink()


def test_bind_names_refusal(program: Path, sysfs: Path) -> None:
    with (
        start(program, sysfs, FAKE_FAIL="bind=22") as probe,
        pytest.raises(ProbeError) as caught,
    ):
        probe.call("bind", bdf=BDF, driver="vfio-pci")
    assert (caught.value.op, caught.value.error) == ("bind", "EINVAL")


def test_bind_names_refused_unbind(program: Path, sysfs: Path) -> None:
    with (
        start(program, sysfs, FAKE_FAIL="unbind=16") as probe,
        pytest.raises(ProbeError) as caught,
    ):
        probe.call("bind", bdf=BDF, driver="vfio-pci")
    assert (caught.value.op, caught.value.error) == ("unbind", "EBUSY")


def test_bind_of_missing_function_fails(program: Path, sysfs: Path) -> None:
    with (
        start(program, sysfs) as probe,
        pytest.raises(ProbeError) as caught,
    ):
        probe.call("bind", bdf="0000:00:11.0", driver="vfio-pci")
    assert (caught.value.op, caught.value.error) == ("driver_override", "ENOENT")


# --- open --------------------------------------------------------------------


RANGES = [
    {"start": 0, "end": 0xFEDFFFFF},
    {"start": 0xFEF00000, "end": 0x7FFFFFFFFF},
]


@pytest.mark.parametrize("mode", MODES)
def test_open_reports_device_and_iommu(program: Path, sysfs: Path, mode: str) -> None:
    with start(program, sysfs) as probe:
        reply = probe.call("open", bdf=BDF, mode=mode)
    assert (reply["num_regions"], reply["num_irqs"]) == (9, 5)
    assert reply["iova_ranges"] == RANGES
    cdev = mode in CDEV_MODES
    assert reply["node"] == ("/dev/vfio/devices/vfio3" if cdev else "/dev/vfio/7")
    assert reply.get("group") == (None if cdev else 7)
    type1 = mode in ("type1", "type1v2", "iommufd-compat")
    assert reply["iova_pgsizes" if type1 else "iova_alignment"] == 0x1000


TYPE1_STEPS = [
    ("VFIO_GET_API_VERSION", 25, "ENOTTY"), ("VFIO_SET_IOMMU", 1, "EPERM"),
    ("VFIO_IOMMU_GET_INFO", 22, "EINVAL"),
]  # fmt: skip
GROUP_STEPS = [
    ("open:/dev/vfio/7", 16, "EBUSY"), ("VFIO_GROUP_SET_CONTAINER", 22, "EINVAL"),
    ("VFIO_GROUP_GET_DEVICE_FD", 5, "EIO"),
]  # fmt: skip
CDEV_STEPS = [
    ("open:/dev/vfio/devices/vfio3", 2, "ENOENT"), ("open:/dev/iommu", 2, "ENOENT"),
    ("VFIO_DEVICE_BIND_IOMMUFD", 1, "EPERM"), ("IOMMU_IOAS_ALLOC", 12, "ENOMEM"),
    ("VFIO_DEVICE_ATTACH_IOMMUFD_PT", 22, "EINVAL"),
    ("IOMMU_IOAS_IOVA_RANGES", 2, "ENOENT"),
]  # fmt: skip
STEPS = {
    "type1v2": [("open:/dev/vfio/vfio", 2, "ENOENT"), *TYPE1_STEPS, *GROUP_STEPS],
    "iommufd-compat": [("open:/dev/iommu", 2, "ENOENT"), *TYPE1_STEPS, *GROUP_STEPS],
    "iommufd-group": [
        ("open:/dev/iommu", 2, "ENOENT"), ("IOMMU_VFIO_IOAS", 19, "ENODEV"),
        ("IOMMU_IOAS_IOVA_RANGES", 2, "ENOENT"), *GROUP_STEPS,
    ],
    "cdev-ioas": CDEV_STEPS,
    "cdev-hwpt": [*CDEV_STEPS, ("IOMMU_HWPT_ALLOC", 95, "EOPNOTSUPP")],
}  # fmt: skip


@pytest.mark.parametrize(
    ("mode", "step", "number", "error"),
    [(mode, *step) for mode, steps in STEPS.items() for step in steps],
)
def test_open_names_step_that_failed(
    program: Path, sysfs: Path, mode: str, step: str, number: int, error: str
) -> None:
    with start(program, sysfs, FAKE_FAIL=f"{step}={number}") as probe:
        for _ in range(2):
            # Nothing stays open: the second time it is the same step.
            with pytest.raises(ProbeError) as caught:
                probe.call("open", bdf=BDF, mode=mode)
            assert (caught.value.op, caught.value.error) == (step, error)


def test_open_without_device_file_fails(program: Path, sysfs: Path) -> None:
    (sysfs / "bus/pci/devices" / BDF / "vfio-dev/vfio3").rmdir()
    with (
        start(program, sysfs) as probe,
        pytest.raises(ProbeError, match="readdir:vfio-dev: ENOENT"),
    ):
        probe.call("open", bdf=BDF, mode="cdev-ioas")


def test_open_of_group_not_viable_fails(program: Path, sysfs: Path) -> None:
    with (
        start(program, sysfs, FAKE_NOT_VIABLE="1") as probe,
        pytest.raises(ProbeError, match="group 7 is not viable"),
    ):
        probe.call("open", bdf=BDF, mode="type1")


def test_open_without_group_fails(program: Path, sysfs: Path) -> None:
    (sysfs / "bus/pci/devices" / BDF / "iommu_group").unlink()
    with (
        start(program, sysfs) as probe,
        pytest.raises(ProbeError, match="readlink:iommu_group: ENOENT"),
    ):
        probe.call("open", bdf=BDF, mode="type1")


def test_close_allows_open_again(any_mode: Probe) -> None:
    with pytest.raises(ProbeError, match=f"EBUSY: {BDF} is open"):
        any_mode.call("open", bdf=BDF, mode="type1")
    any_mode.call("close")
    with pytest.raises(ProbeError, match="no device is open"):
        any_mode.call("close")
    for mode in MODES:
        any_mode.call("open", bdf=BDF, mode=mode)
        any_mode.call("close")


@pytest.mark.parametrize("mode", MODES)
def test_extension_before_and_after_open(program: Path, sysfs: Path, mode: str) -> None:
    with start(program, sysfs) as probe:
        assert probe.call("extension", id="VFIO_TYPE1v2_IOMMU")["value"] == 1
        probe.call("open", bdf=BDF, mode=mode)
        assert probe.call("extension", id="VFIO_DMA_CC_IOMMU")["value"] == 0
        assert probe.call("extension", id="0x1")["value"] == 1


@pytest.mark.parametrize("line", [
    {"command": "close"}, {"command": "reset"}, {"command": "unmap-all"},
    {"command": "engine-info"}, {"command": "bus-master", "on": 1},
    {"command": "region", "index": 0}, {"command": "status", "slot": 0},
    {"command": "irq-enable", "index": "msix"}, {"command": "irq-trigger"},
    {"command": "irq-wait"}, {"command": "irq-disable", "index": "msix"},
    {"command": "config-read", "offset": 0, "size": 4},
    {"command": "bar-read", "bar": 0, "offset": 0, "size": 4},
    {"command": "dma", "op": "read", "iova": 0, "length": 4},
    {"command": "bench-map", "iova": 0, "size": 4096, "count": 1},
    {"command": "attach"}, {"command": "detach"}, {"command": "ioas-alloc"},
    {"command": "hwpt-alloc"}, {"command": "hw-info"},
    {"command": "iommufd-destroy", "id": 1},
], ids=lambda line: line["command"])  # fmt: skip
def test_command_needs_a_device(
    program: Path, sysfs: Path, line: dict[str, Any]
) -> None:
    args = dict(line)
    command = str(args.pop("command"))
    with (
        start(program, sysfs) as probe,
        pytest.raises(ProbeError, match="vfio: ENODEV: no device is open"),
    ):
        probe.call(command, **args)


# --- regions -----------------------------------------------------------------


def test_region_and_config(probe: Probe) -> None:
    assert probe.call("region", index=2)["size"] == 4 << 20
    with pytest.raises(ProbeError, match="VFIO_DEVICE_GET_REGION_INFO: EINVAL"):
        probe.call("region", index=8)
    probe.call("config-write", offset=0x3C, size=1, value=0xAB)
    assert probe.call("config-read", offset=0x3C, size=2)["value"] == 0xAB
    assert probe.call("config-read", offset=4, size=2)["value"] == 4
    probe.call("bus-master", on=0)
    assert probe.call("config-read", offset=4, size=2)["value"] == 0


def test_bar_access(probe: Probe) -> None:
    probe.call("bar-write", bar=2, offset=8, size=8, value=2**64 - 2)
    assert probe.call("bar-read", bar=2, offset=8, size=1)["value"] == 0xFE
    assert probe.call("bar-read", bar=2, offset=12, size=4)["value"] == 2**32 - 1


@pytest.mark.parametrize(("args", "error"), [
    ({"bar": 2, "offset": 4 << 20, "size": 1}, "ERANGE"),
    ({"bar": 2, "offset": 2**64 - 1, "size": 4}, "ERANGE"),
    ({"bar": 1, "offset": 0, "size": 4}, "ERANGE"), ({"bar": 6}, "EINVAL"),
    ({"size": 3}, "EINVAL"), ({"size": 0}, "EINVAL"),
])  # fmt: skip
def test_bad_bar_access_is_refused(
    probe: Probe, args: dict[str, int], error: str
) -> None:
    with pytest.raises(ProbeError) as caught:
        probe.call("bar-read", **{"bar": 2, "offset": 0, "size": 4, **args})
    assert caught.value.error == error


def test_reset_clears_device(probe: Probe) -> None:
    scratch = {"bar": 0, "offset": 0x1C, "size": 4}
    probe.call("bar-write", **scratch, value=0x12345678)
    assert probe.call("bar-read", **scratch)["value"] == 0x12345678
    probe.call("reset")
    assert probe.call("bar-read", **scratch)["value"] == 0


# --- mappings ----------------------------------------------------------------


def test_map_and_unmap(any_mode: Probe) -> None:
    any_mode.call("buf", name="b", size=5000)
    reply = any_mode.call("map", name="b", iova=0x200000, flags="r")
    assert reply["size"] == 8192
    with pytest.raises(ProbeError, match=r"map: (VFIO|IOMMU)_\w+: EEXIST"):
        any_mode.call("map", name="b", iova=0x201000, offset=4096, size=4096)
    assert any_mode.call("unmap", iova=0x200000, size=8192)["unmapped"] == 8192
    assert any_mode.call("unmap-all")["unmapped"] == 65536


def test_unmap_all_of_nothing(any_mode: Probe) -> None:
    any_mode.call("unmap-all")
    assert any_mode.call("unmap-all")["unmapped"] == 0


def test_unmap_of_nothing_is_answered_as_the_interface_does(
    program: Path, sysfs: Path
) -> None:
    with start_ready(program, sysfs, "iommufd-compat") as probe:
        assert probe.call("unmap", iova=0x200000, size=8192)["unmapped"] == 0
    with (
        start_ready(program, sysfs, "cdev-ioas") as probe,
        pytest.raises(ProbeError, match="IOMMU_IOAS_UNMAP: ENOENT"),
    ):
        probe.call("unmap", iova=0x200000, size=8192)


@pytest.mark.parametrize(("mode", "step"), [
    ("type1v2", "VFIO_IOMMU_MAP_DMA"), ("iommufd-compat", "VFIO_IOMMU_MAP_DMA"),
    ("iommufd-group", "IOMMU_IOAS_MAP"), ("cdev-ioas", "IOMMU_IOAS_MAP"),
])  # fmt: skip
def test_map_of_part_that_is_no_page_is_the_kernels_to_refuse(
    program: Path, sysfs: Path, mode: str, step: str
) -> None:
    with start_ready(program, sysfs, mode) as probe:
        with pytest.raises(ProbeError, match=f"map: {step}: EINVAL"):
            probe.call("map", name="a", iova=0x200000, offset=0, size=100)
        with pytest.raises(ProbeError, match=f"bench-map: {step}: EEXIST"):
            probe.call("bench-map", iova=IOVA, size=4096, count=1)


def test_bench_map_leaves_nothing_mapped(any_mode: Probe) -> None:
    reply = any_mode.call("bench-map", iova=0x200000, size=8192, count=5)
    for key in ("map_ns", "unmap_ns"):
        timing = reply[key]
        assert isinstance(timing, dict)
        assert timing["min"] <= timing["mean"] <= timing["max"]
        assert timing["min"] <= timing["median"] <= timing["max"]
    assert any_mode.call("unmap-all")["unmapped"] == 65536


# --- iommufd -----------------------------------------------------------------


def test_dma_in_every_mode(any_mode: Probe) -> None:
    any_mode.call("fill", name="a", seed=9, size=100)
    any_mode.call("dma", op="copy", iova=IOVA, operand=IOVA + 4096, length=100)
    assert any_mode.call("check", name="a", seed=9, offset=4096, size=100)["equal"]


def test_detached_device_reaches_nothing_until_attached(cdev: Probe) -> None:
    cdev.call("detach")
    reply = cdev.call("dma", op="checksum", iova=IOVA, length=16)
    assert reply["status"] == "fault"
    cdev.call("attach")
    assert cdev.call("dma", op="checksum", iova=IOVA, length=16)["status"] == "ok"


def test_attach_moves_device_to_another_ioas_and_back(cdev: Probe) -> None:
    other = cdev.call("ioas-alloc")["ioas"]
    assert isinstance(other, int)
    cdev.call("buf", name="b", size=4096)
    cdev.call("map", name="b", iova=IOVA, ioas=other)
    cdev.call("attach", pt=other)
    cdev.call("dma", op="fill", iova=IOVA, operand=2**64 - 1, length=8)
    assert cdev.call("check", name="b", byte=255, size=8)["equal"] is True
    assert cdev.call("check", name="a", byte=0)["equal"] is True
    with pytest.raises(ProbeError, match="IOMMU_DESTROY: EBUSY"):
        cdev.call("iommufd-destroy", id=other)
    cdev.call("attach")
    cdev.call("dma", op="fill", iova=IOVA, operand=2**64 - 1, length=8)
    assert cdev.call("check", name="a", byte=255, size=8)["equal"] is True
    assert cdev.call("unmap", iova=IOVA, size=4096, ioas=other)["unmapped"] == 4096
    cdev.call("iommufd-destroy", id=other)
    with pytest.raises(ProbeError, match="VFIO_DEVICE_ATTACH_IOMMUFD_PT: ENOENT"):
        cdev.call("attach", pt=other)


def test_page_table_with_features_is_the_kernels_to_refuse(cdev: Probe) -> None:
    assert cdev.call("hw-info")["dirty_tracking"] is False
    assert cdev.call("hwpt-alloc")["hwpt"]
    with pytest.raises(ProbeError, match="IOMMU_HWPT_ALLOC: EOPNOTSUPP"):
        cdev.call("hwpt-alloc", flags=2)


@pytest.mark.parametrize("mode", GROUP_MODES)
def test_only_a_device_file_is_attached(program: Path, sysfs: Path, mode: str) -> None:
    with start_ready(program, sysfs, mode) as probe:
        for command in ("attach", "detach", "ioas-alloc", "hwpt-alloc", "hw-info"):
            with pytest.raises(ProbeError, match=f"mode {mode} binds no device file"):
                probe.call(command)


def test_type1_maps_into_no_ioas(probe: Probe) -> None:
    with pytest.raises(ProbeError, match="mode type1v2 has no IOAS"):
        probe.call("map", name="a", iova=0x200000, ioas=1)


# --- transactions ------------------------------------------------------------


def test_engine_info(probe: Probe) -> None:
    reply = probe.call("engine-info")
    assert (reply["version"], reply["nr_slots"], reply["nr_vectors"]) == (1, 128, 8)


def test_engine_with_wrong_magic_is_refused(program: Path, sysfs: Path) -> None:
    with (
        start_ready(program, sysfs, FAKE_MAGIC="1") as probe,
        pytest.raises(ProbeError, match="engine: ENODEV: magic is 0"),
    ):
        probe.call("dma", op="read", iova=IOVA, length=4)


def test_dma_reads_and_writes(probe: Probe) -> None:
    probe.call("fill", name="a", seed=9, size=5000)
    reply = probe.call("dma", op="read", iova=IOVA, operand=64, length=5000)
    assert (reply["status"], reply["done"]) == ("ok", 5000)
    probe.call("dma", op="write", iova=IOVA + 8192, operand=64, length=5000, slot=127)
    assert (
        probe.call("check", name="a", seed=9, offset=8192, size=5000)["equal"] is True
    )
    assert probe.call("check", name="a", byte=0, offset=13192)["equal"] is True


def test_dma_copy_fill_checksum(probe: Probe) -> None:
    probe.call("fill", name="a", seed=9, size=100)
    probe.call("dma", op="copy", iova=IOVA, operand=IOVA + 4096, length=100)
    assert probe.call("check", name="a", seed=9, offset=4096, size=100)["equal"] is True
    reply = probe.call("dma", op="checksum", iova=IOVA, length=100)
    assert reply["result"] == zlib.crc32(pattern(9, 100))
    probe.call("dma", op="fill", iova=IOVA, operand=0x0807060504030201, length=9)
    assert probe.call("peek", name="a", size=9)["hex"] == "010203040506070801"


def test_dma_fault_is_a_result(probe: Probe) -> None:
    reply = probe.call("dma", op="write", iova=IOVA + 65530, length=16)
    assert reply["status"] == "fault"
    assert (reply["done"], reply["fault_addr"]) == (6, IOVA + 65536)
    assert (reply["fault_reason"], reply["fault_write"]) == ("mapping", True)
    assert probe.call("status", slot=0)["status"] == "fault"


def test_dma_against_permission_is_a_fault(probe: Probe) -> None:
    probe.call("buf", name="b", size=4096)
    probe.call("map", name="b", iova=0x200000, flags="r")
    reply = probe.call("dma", op="write", iova=0x200000, length=16)
    assert (reply["fault_reason"], reply["done"]) == ("permission", 0)


def test_dma_without_bus_master(probe: Probe) -> None:
    probe.call("bus-master", on=0)
    reply = probe.call("dma", op="read", iova=IOVA, length=16)
    assert reply["status"] == "no-bus-master"


@pytest.mark.parametrize("args", [
    {"slot": 128}, {"slot": 2**32}, {"vector": 65536}, {"timeout_ms": 10**7},
])  # fmt: skip
def test_dma_with_bad_numbers_is_refused(probe: Probe, args: dict[str, int]) -> None:
    with pytest.raises(ProbeError, match="dma: parse: EINVAL"):
        probe.call("dma", op="read", iova=IOVA, length=16, **args)


def test_busy_slot_times_out_and_takes_no_more(program: Path, sysfs: Path) -> None:
    with start_ready(program, sysfs, FAKE_STUCK="1") as probe:
        with pytest.raises(ProbeError, match="dma: wait: ETIMEDOUT") as caught:
            probe.call("dma", op="read", iova=IOVA, length=16, timeout_ms=20)
        assert caught.value.reply["status"] == "busy"
        with pytest.raises(ProbeError, match="submit: EBUSY: slot 0 is busy"):
            probe.call("submit", slot=0, op="read", iova=IOVA, length=16)


def test_dma_many(probe: Probe) -> None:
    probe.call("fill", name="a", seed=1)
    many = {"length": 512, "stride": 512, "count": 128}
    reply = probe.call("dma-many", op="read", iova=IOVA, **many)
    assert (reply["nr_ok"], reply["failures"]) == (128, [])
    probe.call("set", name="a", byte=0)
    probe.call("dma-many", op="write", iova=IOVA, **many)
    assert probe.call("check", name="a", seed=1)["equal"] is True


def test_dma_many_names_slots_that_failed(probe: Probe) -> None:
    reply = probe.call(
        "dma-many", op="fill", iova=IOVA + 65536 - 8192, length=4096, count=3,
        first_slot=10, operand=0,
    )  # fmt: skip
    assert reply["nr_ok"] == 2
    assert isinstance(reply["failures"], list)
    [failure] = reply["failures"]
    assert (failure["slot"], failure["fault_addr"]) == (12, IOVA + 65536)


# --- interrupts --------------------------------------------------------------


@pytest.mark.parametrize("index", ["msix", "intx"])
def test_dma_ends_with_interrupt(probe: Probe, index: str) -> None:
    probe.call("irq-enable", index=index, vectors=1)
    for _ in range(3):
        # Three times: INTx fires again only if it was acknowledged and unmasked.
        probe.call("dma", op="read", iova=IOVA, length=16, irq=index, timeout_ms=1000)
    with pytest.raises(ProbeError, match="irq-wait: ETIMEDOUT"):
        probe.call("irq-wait", index=index, timeout_ms=0)


def test_dma_many_share_a_vector(probe: Probe) -> None:
    probe.call("irq-enable", index="msix", vectors=8)
    reply = probe.call(
        "dma-many", op="read", iova=IOVA, length=16, count=128, irq="msix", vector=7,
        timeout_ms=1000,
    )  # fmt: skip
    assert reply["nr_ok"] == 128


def test_lost_interrupt_is_named(program: Path, sysfs: Path) -> None:
    with start_ready(program, sysfs, FAKE_SILENT="1") as probe:
        probe.call("irq-enable", index="msix", vectors=1)
        with pytest.raises(ProbeError, match="dma: interrupt: ETIMEDOUT") as caught:
            probe.call(
                "dma", op="read", iova=IOVA, length=16, irq="msix", timeout_ms=20
            )
        assert caught.value.reply["status"] == "ok"


def test_submit_then_irq_wait_then_wait(probe: Probe) -> None:
    probe.call("irq-enable", index="msix", vectors=2)
    probe.call("submit", slot=3, op="read", iova=IOVA, length=16, irq="msix", vector=1)
    assert probe.call("irq-wait", vector=1)["count"] == 1
    assert probe.call("wait", slot=3)["status"] == "ok"


def test_irq_trigger_counts(probe: Probe) -> None:
    probe.call("irq-enable", index="msix", vectors=3)
    for _ in range(2):
        probe.call("irq-trigger", vector=2)
    reply = probe.call("irq-wait", vector=2)
    assert (reply["count"], reply["total"]) == (2, 2)
    with pytest.raises(ProbeError, match="irq-wait: ETIMEDOUT"):
        probe.call("irq-wait", vector=1, timeout_ms=10)


def test_intx_left_asserted_fires_again_when_unmasked(probe: Probe) -> None:
    probe.call("irq-enable", index="intx")
    probe.call("irq-trigger", index="intx")
    for _ in range(2):
        assert probe.call("irq-wait", index="intx")["count"] == 1
        probe.call("irq-unmask", index="intx")
    assert probe.call("irq-wait", index="intx")["count"] == 1
    probe.call("bar-write", bar=0, offset=0x18, size=4, value=1)
    probe.call("irq-unmask", index="intx")
    with pytest.raises(ProbeError, match="ETIMEDOUT"):
        probe.call("irq-wait", index="intx", timeout_ms=10)


def test_irq_enable_and_disable(probe: Probe) -> None:
    with pytest.raises(ProbeError, match="VFIO_DEVICE_SET_IRQS: EINVAL"):
        probe.call("irq-enable", index="msix", vectors=9)
    probe.call("irq-enable", index="msix", vectors=8)
    with pytest.raises(ProbeError, match="EBUSY: msix is enabled"):
        probe.call("irq-enable", index="msix", vectors=1)
    with pytest.raises(ProbeError, match="VFIO_DEVICE_SET_IRQS: EINVAL"):
        probe.call("irq-mask", index="msix", vector=0)
    probe.call("irq-disable", index="msix")
    with pytest.raises(ProbeError, match="msix vector 0 is not enabled"):
        probe.call("dma", op="read", iova=IOVA, length=16, irq="msix")
    probe.call("irq-enable", index="msix", vectors=1)
