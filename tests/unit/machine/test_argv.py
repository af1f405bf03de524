# SPDX-License-Identifier: GPL-2.0-or-later
"""QEMU's argv, the kernel command line and the device's configuration."""

from __future__ import annotations

import dataclasses
import itertools
import json
import tomllib
from typing import Any

import pytest

from viotest.errors import UsageError
from viotest.machine.arch import ARCHES, find_arch, require_arch
from viotest.machine.argv import (
    device_argv,
    device_config,
    kernel_cmdline,
    qemu_argv,
    vfio_user_sockets,
)
from viotest.scenario.model import (
    Accel,
    EndpointModel,
    EndpointSpec,
    Iommu,
    Place,
    Scenario,
)
from viotest.scenario.topology import build_topology

TWO = (EndpointSpec(),) * 2


def argv_of(scenario: Scenario, **changes: Any) -> list[str]:
    options: dict[str, Any] = {
        "qemu": ("qemu-system-x86_64",),
        "kernel": "/cache/vmlinux",
        "initrd": "initrd.img",
        "accel": Accel.TCG,
        "viot": "viot.bin" if scenario.iommu is Iommu.VIOTEST else None,
        "cmdline": "console=ttyS0",
    }
    return qemu_argv(scenario, build_topology(scenario), **options | changes)


def values(argv: list[str], option: str) -> list[str]:
    return [value for name, value in itertools.pairwise(argv) if name == option]


def devices(argv: list[str], driver: str) -> list[dict[str, Any]]:
    parsed = [json.loads(v) for v in values(argv, "-device") if v.startswith("{")]
    return [device for device in parsed if device["driver"] == driver]


def test_argv_is_a_function_of_its_arguments() -> None:
    assert argv_of(Scenario()) == argv_of(Scenario())


def test_argv_viotest_has_no_iommu_of_qemu() -> None:
    argv = argv_of(Scenario(endpoints=TWO))
    assert not [part for part in argv if "virtio-iommu" in part or "intel" in part]
    functions = devices(argv, "vfio-user-pci")
    places = [(f["id"], f["bus"], f["addr"]) for f in functions]
    assert places == [
        ("viommu0", "pcie.0", "01.0"),
        ("ep0", "pcie.0", "10.0"),
        ("ep1", "pcie.0", "11.0"),
    ]
    assert functions[0]["socket"] == {"type": "unix", "path": "viommu0.sock"}
    assert values(argv, "-acpitable") == ["file=viot.bin"]


def test_argv_qemu_iommu_comes_before_endpoints() -> None:
    argv = argv_of(Scenario(iommu=Iommu.QEMU))
    iommu = argv.index("virtio-iommu-pci,bus=pcie.0,addr=01.0,granule=4k")
    endpoint = next(i for i, part in enumerate(argv) if "vfio-user-pci" in part)
    assert iommu < endpoint
    assert len(devices(argv, "vfio-user-pci")) == 1
    assert values(argv, "-acpitable") == []


def test_argv_plugs_endpoints_into_their_bridges() -> None:
    specs = (
        EndpointSpec(place=Place.BRIDGE),
        EndpointSpec(place=Place.PORT),
        EndpointSpec(place=Place.PORT),
        EndpointSpec(place=Place.BRIDGE),
    )
    argv = argv_of(Scenario(endpoints=specs))
    bridges = [v for v in values(argv, "-device") if v.startswith("pcie-")]
    assert bridges == [
        "pcie-root-port,id=port0,bus=pcie.0,addr=06.0,chassis=1,slot=1",
        "pcie-root-port,id=port1,bus=pcie.0,addr=07.0,chassis=2,slot=2",
        "pcie-pci-bridge,id=bridge0,bus=pcie.0,addr=0f.0",
    ]
    functions = devices(argv, "vfio-user-pci")[1:]
    assert [(f["id"], f["bus"], f["addr"]) for f in functions] == [
        ("ep0", "bridge0", "01.0"),
        ("ep1", "port0", "00.0"),
        ("ep2", "port1", "00.0"),
        ("ep3", "bridge0", "02.0"),
    ]


def test_argv_of_two_iommus_has_both_functions() -> None:
    specs = (EndpointSpec(), EndpointSpec(iommu=1))
    functions = devices(argv_of(Scenario(endpoints=specs)), "vfio-user-pci")
    assert [(f["id"], f["addr"]) for f in functions[:2]] == [
        ("viommu0", "01.0"),
        ("viommu1", "03.0"),
    ]


def test_argv_of_qemus_own_endpoints() -> None:
    specs = (
        EndpointSpec(EndpointModel.QEMU_EDU),
        EndpointSpec(EndpointModel.QEMU_NVME),
        EndpointSpec(EndpointModel.QEMU_IGB, Place.PORT),
    )
    scenario = Scenario(iommu=Iommu.QEMU, endpoints=specs)
    argv = argv_of(scenario)
    assert devices(argv, "vfio-user-pci") == []
    assert values(argv, "-drive") == ["if=none,id=ep1-disk,format=raw,file=ep1.img"]
    assert [v for v in values(argv, "-device") if "id=ep" in v] == [
        "edu,id=ep0,bus=pcie.0,addr=10.0,dma_mask=0xffffffffffffffff",
        "nvme,id=ep1,bus=pcie.0,addr=11.0,drive=ep1-disk,serial=viotest-ep1",
        "igb,id=ep2,bus=port0,addr=00.0,romfile=",
    ]
    assert vfio_user_sockets(build_topology(scenario)) == ()


def test_argv_memory_is_shared_and_consistent() -> None:
    argv = argv_of(Scenario(mem=768))
    assert values(argv, "-m") == ["768M"]
    assert values(argv, "-object") == ["memory-backend-memfd,id=ram,size=768M,share=on"]
    assert "memory-backend=ram" in values(argv, "-machine")[0].split(",")


@pytest.mark.parametrize(("accel", "cpu"), [(Accel.TCG, "max"), (Accel.KVM, "host")])
def test_argv_accel(accel: Accel, cpu: str) -> None:
    argv = argv_of(Scenario(), accel=accel)
    assert values(argv, "-accel") == [accel.value]
    assert values(argv, "-cpu")[0].split(",")[0] == cpu


def test_argv_user_arguments_come_last() -> None:
    argv = argv_of(Scenario(qemu_args=("-trace", "vfio_user*")))
    assert argv[-2:] == ["-trace", "vfio_user*"]


def test_argv_holds_only_relative_sockets() -> None:
    argv = argv_of(Scenario())
    assert values(argv, "-chardev") == [
        "socket,id=mon,path=qmp.sock",
        "pipe,id=console,path=console",
    ]
    assert "hostfwd=unix:/proc/self/cwd/ssh.sock-:22" in values(argv, "-netdev")[0]


def test_argv_on_a_bus_that_is_not_there() -> None:
    scenario = Scenario()
    topology = dataclasses.replace(build_topology(scenario), nic_bdf="0000:01:00.0")
    with pytest.raises(UsageError, match="there is no such bus"):
        qemu_argv(
            scenario,
            topology,
            qemu=["q"],
            kernel="k",
            initrd="i",
            accel=Accel.TCG,
            viot=None,
            cmdline="",
        )


def test_argv_unknown_arch() -> None:
    with pytest.raises(UsageError, match="'vax'"):
        require_arch("vax")
    assert find_arch("vax") is None


def test_cmdline_user_arguments_come_last() -> None:
    scenario = Scenario(append=("iommu.strict=0", "quiet"))
    cmdline = kernel_cmdline(scenario, ARCHES["x86_64"]).split()
    assert cmdline[0] == "console=ttyS0"
    assert cmdline.index("iommu.strict=1") < cmdline.index("iommu.strict=0")
    assert cmdline[-1] == "quiet"


def test_device_argv() -> None:
    assert device_argv(["python", "-m", "x"], parent_pid=7) == [
        *("python", "-m", "x", "serve", "device.toml", "--parent-pid", "7")
    ]


def config_of(scenario: Scenario) -> dict[str, Any]:
    return tomllib.loads(device_config(scenario, build_topology(scenario)))


def test_device_config_viotest() -> None:
    config = config_of(Scenario(endpoints=TWO, mutants=("ignore-unmap",)))
    window = {"type": "msi", "start": 0xFEE00000, "end": 0xFEEFFFFF}
    assert config["mutants"] == ["ignore-unmap"]
    assert config["log"] == {"path": "device.bin", "records": 262144}
    assert config_of(Scenario(log_records=4096))["log"]["records"] == 4096
    assert config["monitor"] == {"socket": "device-monitor.sock"}
    assert config["iommu"] == [{"name": "viommu0", "socket": "viommu0.sock"}]
    assert config["endpoint"] == [
        {
            "name": f"ep{i}",
            "socket": f"ep{i}.sock",
            "id": (16 + i) << 3,
            "iommu": 0,
            "resv_mem": [window],
        }
        for i in range(2)
    ]


def test_device_config_qemu_iommu() -> None:
    config = config_of(Scenario(iommu=Iommu.QEMU))
    assert "iommu" not in config
    assert config["endpoint"] == [{"name": "ep0", "socket": "ep0.sock", "id": 128}]


def test_device_config_behind_a_bridge_names_its_requester() -> None:
    specs = (EndpointSpec(place=Place.BRIDGE), EndpointSpec(iommu=1))
    rows = config_of(Scenario(endpoints=specs))["endpoint"]
    found = [
        (row["name"], row.get("socket"), row["id"], row.get("requester"), row["iommu"])
        for row in rows
    ]
    assert found == [
        ("bridge0", None, 0x78, None, 0),
        ("bridge0.alias", None, 0x100, None, 0),
        ("ep0", "ep0.sock", 0x108, 0x100, 0),
        ("ep1", "ep1.sock", 0x80, None, 1),
    ]


def test_device_config_of_what_may_be_unplugged_has_no_msix() -> None:
    specs = (EndpointSpec(place=Place.HOTPLUG), EndpointSpec(place=Place.PORT))
    rows = config_of(Scenario(endpoints=specs))["endpoint"]
    assert [row.get("no_msix", False) for row in rows] == [True, False]


def test_device_config_behind_qemus_iommu_has_no_aliases() -> None:
    specs = (EndpointSpec(place=Place.BRIDGE),)
    config = config_of(Scenario(iommu=Iommu.QEMU, endpoints=specs))
    assert config["endpoint"] == [{"name": "ep0", "socket": "ep0.sock", "id": 0x108}]


def test_device_config_of_models() -> None:
    specs = (EndpointSpec(EndpointModel.IOAT), EndpointSpec(EndpointModel.NVME))
    rows = config_of(Scenario(endpoints=specs))["endpoint"]
    assert [(row["model"], row.get("image")) for row in rows] == [
        ("ioat", None),
        ("nvme", "ep1.img"),
    ]


def test_device_config_hostile_mutant() -> None:
    name = 'a"]\n[[iommu]]\\\x7f\u202e\U0001f600'
    assert config_of(Scenario(mutants=(name,)))["mutants"] == [name]


def test_vfio_user_sockets() -> None:
    topology = build_topology(Scenario(endpoints=TWO))
    assert vfio_user_sockets(topology) == ("viommu0.sock", "ep0.sock", "ep1.sock")
