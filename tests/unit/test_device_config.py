# SPDX-License-Identifier: GPL-2.0-or-later
"""The device's configuration file: what it says, and what it may not say."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from viotest.machine.argv import device_config
from viotest.scenario.model import EndpointSpec, Iommu, Place, Scenario
from viotest.scenario.topology import build_topology
from viotest_device.config import ConfigError, ResvMem, parse_config, read_config
from viotest_device.inject import InjectRule

if TYPE_CHECKING:
    from pathlib import Path

_GOOD = """
mutants = ["ignore-unmap"]
[log]
path = "device.bin"
[monitor]
socket = "monitor.sock"
[[iommu]]
socket = "viommu0.sock"
[[endpoint]]
name = "ep0"
socket = "ep0.sock"
id = 0x80
iommu = 0
resv_mem = [{ type = "msi", start = 0xfee00000, end = 0xfeefffff }]
"""


def test_config_is_read() -> None:
    config = parse_config(_GOOD)
    assert config.mutants == ("ignore-unmap",)
    assert config.iommus[0].socket == "viommu0.sock"
    endpoint = config.endpoints[0]
    assert (endpoint.id, endpoint.iommu) == (0x80, 0)
    assert endpoint.resv_mem == (ResvMem(1, 0xFEE00000, 0xFEEFFFFF),)
    assert (endpoint.model, endpoint.image) == ("dma-engine", None)


def test_nvme_endpoint_has_an_image() -> None:
    text = _GOOD + 'model = "nvme"\nimage = "disk.img"\nread_only = true\n'
    (endpoint,) = parse_config(text).endpoints
    assert endpoint.model == "nvme"
    assert endpoint.image == "disk.img"
    assert endpoint.read_only


@pytest.mark.parametrize(
    ("old", "new", "where"),
    [
        ("id = 0x80", "id = -1", "endpoint[0].id"),
        ("id = 0x80", "id = true", "endpoint[0].id"),
        ("id = 0x80", "", "endpoint[0].id"),
        ("iommu = 0", "iommu = 1", "endpoint[0].iommu"),
        ("id = 0x80", "id = 0x80\nrequester = -1", "endpoint[0].requester"),
        ('socket = "ep0.sock"\nid = 0x80\niommu = 0', "id = 0", "endpoint[0].socket"),
        ('type = "msi"', 'type = "dma"', "endpoint[0].resv_mem[0].type"),
        ("end = 0xfeefffff", "end = 0", "endpoint[0].resv_mem[0].end"),
        ('name = "ep0"', f'name = "{"x" * 32}"', "endpoint[0].name"),
        ("id = 0x80", 'id = 1\nmodel = "nic"', "endpoint[0].model"),
        ("id = 0x80", 'id = 1\nmodel = "nvme"', "endpoint[0].image"),
        (
            "id = 0x80",
            'id = 1\nmodel = "nvme"\nimage = "a.img"\nno_msix = true',
            "endpoint[0].no_msix",
        ),
        ("id = 0x80", 'id = 1\nimage = "a.img"', "endpoint[0].image"),
        ("id = 0x80", "id = 1\nread_only = true", "endpoint[0].read_only"),
        ("id = 0x80", "id = 1\nread_only = 1", "endpoint[0].read_only"),
        ('path = "device.bin"', "path = 3", "log.path"),
        ('path = "device.bin"', 'pfad = "x"', "log.pfad"),
        ('["ignore-unmap"]', "[1]", "mutants"),
        ("[monitor]", "[monitr]", "monitor"),
    ],
)
def test_config_names_the_wrong_key(old: str, new: str, where: str) -> None:
    assert old in _GOOD
    with pytest.raises(ConfigError) as caught:
        parse_config(_GOOD.replace(old, new))
    assert caught.value.where == where


@pytest.mark.parametrize(
    ("text", "us", "vcpus"),
    [
        ("", 20, None),
        ("[polling]\nvcpus = 2\n", 20, 2),
        ("[polling]\nvcpus = 1\nus = 0\n", 0, 1),
    ],
)
def test_config_of_polling(text: str, us: int, vcpus: int | None) -> None:
    config = parse_config(_GOOD + text)
    assert (config.poll_us, config.vcpus) == (us, vcpus)


def test_config_refuses_to_poll_for_long() -> None:
    with pytest.raises(ConfigError, match=r"polling\.us: 101 is outside"):
        parse_config(f"{_GOOD}[polling]\nus = 101\n")


def test_config_with_rules_of_fault_injection() -> None:
    tables = """
[[inject]]
action = "delay"
request = "unmap"
domain = 3
after = 2
count = 1
delay_us = 500
[[inject]]
action = "status"
status = "nomem"
[[inject]]
action = "off-by-page"
endpoint = 0x80
"""
    assert parse_config(_GOOD + tables).inject == (
        InjectRule("delay", "unmap", None, 3, 2, 1, 500),
        InjectRule("status", parameter=8),
        InjectRule("off-by-page", endpoint=0x80),
    )


@pytest.mark.parametrize(
    ("rule", "key"),
    [
        ('request = "map"', "action"),
        ('action = "explode"', "action"),
        ('action = "drop"\nrequest = "remap"', "request"),
        ('action = "off-by-page"\nrequest = "map"', "request"),
        ('action = "drop"\nendpoint = -1', "endpoint"),
        ('action = "drop"\ncount = true', "count"),
        ('action = "drop"\nstatus = 3', "status"),
        ('action = "status"', "status"),
        ('action = "status"\nstatus = 256', "status"),
        ('action = "status"\nstatus = "fine"', "status"),
        ('action = "delay"\ndelay_us = 0', "delay_us"),
        ('action = "drop"\ntwice = 1', "twice"),
    ],
)
def test_config_names_the_wrong_key_of_a_rule(rule: str, key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(f"{_GOOD}[[inject]]\n{rule}\n")
    assert caught.value.where == f"inject[0].{key}"


def test_config_that_serves_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="neither"):
        parse_config('[monitor]\nsocket = "m"\n')


def test_config_that_is_no_toml_is_refused() -> None:
    with pytest.raises(ConfigError, match="not TOML"):
        parse_config("= nonsense")


def test_config_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_config(tmp_path / "absent.toml")


@pytest.mark.parametrize("iommu", list(Iommu))
def test_config_that_viotest_writes_is_understood(iommu: Iommu) -> None:
    specs = (EndpointSpec(), EndpointSpec(), EndpointSpec(place=Place.BRIDGE))
    scenario = Scenario(iommu=iommu, endpoints=specs, mutants=("ignore-unmap",))
    topology = build_topology(scenario)
    config = parse_config(device_config(scenario, topology))
    served = [(e.id, e.requester) for e in config.endpoints if e.socket]
    alias = 0x100 if iommu is Iommu.VIOTEST else 0
    assert served == [(0x80, 0), (0x88, 0), (0x108, alias)]
    ids = [e.id for e in config.endpoints if not e.socket]
    assert ids == ([0x78, 0x100] if iommu is Iommu.VIOTEST else [])
    behind = 0 if iommu is Iommu.VIOTEST else None
    assert {e.iommu for e in config.endpoints} == {behind}
    assert len(config.iommus) == len(topology.iommus)
    assert config.vcpus == scenario.smp
