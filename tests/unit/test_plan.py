# SPDX-License-Identifier: GPL-2.0-or-later
"""A run before it starts: its command lines and the files that they name."""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
import sys
import tomllib
from pathlib import Path

import pytest

from viotest.campaign.plan import Assets, Plan, device_command
from viotest.provision.kernel import Kernel
from viotest.provision.qemu import Qemu
from viotest.scenario.model import Accel, Iommu, Scenario
from viotest.scenario.options import names_check, parse_settings, raw_from_config
from viotest.scenario.topology import build_topology
from viotest.suite.catalog import SELFTESTS


def make_plan(scenario: Scenario) -> Plan:
    kernel = Kernel(
        spec=scenario.kernel,
        release="6.12.1",
        image=Path("/cache/a kernel/vmlinux"),
        pvh=True,
        modules=None,
        config={},
    )
    qemu = Qemu(("/lib/ld.so", "/bin/qemu"), "11.1.3", "test")
    assets = Assets(qemu, kernel, Path("/cache/initramfs.cpio"))
    return Plan(scenario, build_topology(scenario), assets, Accel.TCG)


def test_argv_text_is_what_a_shell_takes() -> None:
    plan = make_plan(Scenario(append=("a=b c",), qemu_args=("-d", "it's")))
    comment, device, qemu = plan.argv_text().splitlines()
    assert comment.startswith("#")
    assert shlex.split(device) == plan.device_argv()
    assert shlex.split(qemu) == plan.qemu_argv()
    assert plan.qemu_argv()[:2] == ["/lib/ld.so", "/bin/qemu"]
    assert plan.qemu_argv()[-2:] == ["-d", "it's"]


def test_device_is_the_one_installed_beside_us() -> None:
    plan = make_plan(Scenario())
    assert plan.device_argv()[: len(device_command())] == device_command()
    assert plan.device_argv()[-2:] == ["--parent-pid", str(os.getpid())]
    assert Path(device_command()[0]).parent == Path(sys.executable).parent


def test_our_iommu_comes_with_its_table(tmp_path: Path) -> None:
    plan = make_plan(Scenario())
    plan.write(tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"argv.txt", "device.toml", "scenario.json", "viot.bin"}
    assert (tmp_path / "viot.bin").read_bytes()[:4] == b"VIOT"
    argv = plan.qemu_argv()
    assert argv[argv.index("-acpitable") + 1] == "file=viot.bin"
    assert "virtio-iommu" not in " ".join(argv)
    config = tomllib.loads((tmp_path / "device.toml").read_text())
    assert len(config["iommu"]) == len(config["endpoint"]) == 1


def test_iommu_of_qemu_needs_no_table(tmp_path: Path) -> None:
    plan = make_plan(Scenario(iommu=Iommu.QEMU))
    plan.write(tmp_path)
    assert not (tmp_path / "viot.bin").exists()
    assert "-acpitable" not in plan.qemu_argv()
    assert "virtio-iommu-pci" in " ".join(plan.qemu_argv())
    assert "iommu" not in tomllib.loads((tmp_path / "device.toml").read_text())


def test_nothing_in_the_argv_depends_on_the_folder(tmp_path: Path) -> None:
    plan = make_plan(Scenario())
    plan.write(tmp_path)
    assert str(tmp_path) not in (tmp_path / "argv.txt").read_text()


@pytest.mark.parametrize("mutants", [(), ("ignore-unmap", "drop-interrupt")])
def test_scenario_file_repeats_the_run(
    tmp_path: Path, mutants: tuple[str, ...]
) -> None:
    scenario = Scenario(smp=2, mutants=mutants)
    make_plan(scenario).write(tmp_path)
    values = json.loads((tmp_path / "scenario.json").read_text())
    assert parse_settings(raw_from_config(values, "x")).scenario == scenario
    config = tomllib.loads((tmp_path / "device.toml").read_text())
    assert tuple(config["mutants"]) == mutants


@pytest.mark.parametrize(
    ("mem", "accel", "reserved"),
    [
        (3072, Accel.KVM, False),
        (4096, Accel.KVM, True),
        (4096, Accel.TCG, False),
    ],
)
def test_selftests_get_a_huge_page_where_there_is_use_of_it(
    mem: int, accel: Accel, reserved: bool
) -> None:
    plan = dataclasses.replace(make_plan(Scenario(mem=mem)), accel=accel)
    page = "hugepagesz=1G hugepages=1"
    assert page not in plan.argv_text()
    assets = dataclasses.replace(plan.assets, selftests=Path("/cache/selftests"))
    plan = dataclasses.replace(plan, assets=assets)
    assert (page in plan.argv_text()) is reserved


def test_patterns_name_a_check_by_its_parts_too() -> None:
    for pattern in ("selftests", "self*", "selftests[vfio_pci_driver_test]"):
        assert names_check((pattern,), SELFTESTS)
    assert not names_check((), SELFTESTS)
    assert not names_check(("dma-*", "open[type1]"), SELFTESTS)
