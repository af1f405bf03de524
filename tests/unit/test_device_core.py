# SPDX-License-Identifier: GPL-2.0-or-later
"""The cffi boundary: every declaration is touched, every error is translated."""

from __future__ import annotations

import errno
import re
from pathlib import Path

import pytest
from viotest_device._core import ffi, lib

from viotest.report import device_log
from viotest_device import core
from viotest_device.config import (
    MODELS,
    DeviceConfig,
    EndpointConfig,
    IommuConfig,
    ResvMem,
)
from viotest_device.core import Core, CoreError
from viotest_device.inject import ACTIONS, REQUESTS, InjectRule

_HEADER = Path(__file__).parents[2] / "device/core/include/viommu.h"
_STRUCTS = re.findall(r"^struct (\w+) \{", _HEADER.read_text(), re.MULTILINE)
_FUNCTIONS = re.findall(
    r"^\w[^;]*?\b(viommu_\w+)\([^;]*\);", _HEADER.read_text(), re.MULTILINE
)


@pytest.mark.parametrize("name", _STRUCTS)
def test_struct_can_be_made(name: str) -> None:
    # A wrong cdef fails only when it is used.
    assert ffi.sizeof(f"struct {name}") > 0
    assert ffi.typeof(f"struct {name}").fields


@pytest.mark.parametrize("name", _FUNCTIONS)
def test_function_is_there(name: str) -> None:
    assert ffi.typeof(getattr(lib, name)).kind == "function"


def test_header_was_parsed() -> None:
    assert len(_STRUCTS) >= 9
    assert len(_FUNCTIONS) >= 13


def test_log_names_agree_with_the_core() -> None:
    kinds = [core.LOG_KINDS[i] for i in range(len(device_log.KINDS))]
    assert tuple(kinds) == device_log.KINDS
    assert core.LOG_KINDS[len(device_log.KINDS)] == "nr-kinds"
    assert tuple(core.COUNTERS.values()) == device_log.COUNTERS


def _config(folder: Path, **changes: object) -> DeviceConfig:
    endpoint = EndpointConfig(
        name="ep0",
        socket=str(folder / "ep0.sock"),
        id=0x80,
        iommu=0,
        resv_mem=(ResvMem(1, 0xFEE00000, 0xFEEFFFFF),),
    )
    values: dict[str, object] = {
        "iommus": (IommuConfig(socket=str(folder / "viommu0.sock")),),
        "endpoints": (endpoint,),
        "monitor": str(folder / "monitor.sock"),
        "log_path": str(folder / "device.bin"),
    }
    return DeviceConfig(**(values | changes))  # type: ignore[arg-type]


def test_core_serves_and_cleans_up(tmp_path: Path) -> None:
    device = Core(_config(tmp_path))
    device.start()
    assert (tmp_path / "ep0.sock").is_socket()
    (row,) = device.query_endpoints()
    assert row["name"] == "ep0"
    assert row["model"] == "dma-engine"
    assert row["domain"] is None
    assert device.query_domains() == []
    assert set(device.counters().values()) == {0}
    device.close()
    device.close()
    assert [path.name for path in tmp_path.iterdir()] == ["device.bin"]


def test_core_that_is_closed_refuses_every_call(tmp_path: Path) -> None:
    device = Core(_config(tmp_path))
    device.close()
    with pytest.raises(CoreError):
        device.query_endpoints()
    with pytest.raises(CoreError):
        device.start()


def test_core_refuses_an_unknown_mutant(tmp_path: Path) -> None:
    with pytest.raises(CoreError) as caught:
        Core(_config(tmp_path, mutants=("no-such-mutant",)))
    assert caught.value.errno == errno.ENOENT


def test_core_refuses_a_log_that_cannot_be_made(tmp_path: Path) -> None:
    with pytest.raises(CoreError) as caught:
        Core(_config(tmp_path, log_path=str(tmp_path / "absent" / "device.bin")))
    assert caught.value.errno == errno.ENOENT


def test_core_refuses_a_socket_that_cannot_be_bound(tmp_path: Path) -> None:
    (tmp_path / "ep0.sock").write_text("in the way")
    device = Core(_config(tmp_path))
    with pytest.raises(CoreError):
        device.start()
    device.close()
    assert (tmp_path / "ep0.sock").read_text() == "in the way"


def test_log_of_a_core_is_read_from_the_file(tmp_path: Path) -> None:
    device = Core(_config(tmp_path))
    log = device_log.DeviceLog(tmp_path / "device.bin")
    assert log.counters() == device.counters()
    assert log.head() == 0
    device.close()


def test_names_of_fault_injection_agree_with_the_core() -> None:
    elements = ffi.typeof("enum viommu_inject_action").elements
    names = [
        elements[i].removeprefix("VIOMMU_INJECT_").lower().replace("_", "-")
        for i in range(len(ACTIONS))
    ]
    assert tuple(names) == ACTIONS
    assert len(ACTIONS) == lib.VIOMMU_INJECT_NR_ACTIONS
    assert REQUESTS[1:] == tuple(core.LOG_KINDS[i] for i in range(1, len(REQUESTS)))


def test_models_agree_with_the_core() -> None:
    elements = ffi.typeof("enum viommu_model").elements
    names = [
        elements[i].removeprefix("VIOMMU_MODEL_").lower().replace("_", "-")
        for i in range(len(MODELS))
    ]
    assert tuple(names) == MODELS
    assert len(MODELS) == lib.VIOMMU_NR_MODELS


def test_core_refuses_an_image_that_cannot_be(tmp_path: Path) -> None:
    endpoint = EndpointConfig(
        "ep0",
        str(tmp_path / "ep0.sock"),
        8,
        model="nvme",
        image=str(tmp_path / "absent.img"),
    )
    with pytest.raises(CoreError, match=r"absent\.img") as caught:
        Core(_config(tmp_path, endpoints=(endpoint,)))
    assert caught.value.errno == errno.ENOENT


@pytest.mark.parametrize("action", ACTIONS)
def test_core_takes_a_rule_of_every_action(tmp_path: Path, action: str) -> None:
    rule = InjectRule(action, endpoint=0x80, after=3, parameter=int(action == "delay"))
    device = Core(_config(tmp_path, inject=(rule,)))
    (row,) = device.inject_list()
    assert row["action"] == action
    assert (row["endpoint"], row["domain"], row["after"]) == (0x80, None, 3)
    assert (row["mutant"], row["hits"]) == (None, 0)
    assert isinstance(row["id"], int)
    device.inject_remove(row["id"])
    assert device.inject_list() == []
    with pytest.raises(CoreError) as caught:
        device.inject_remove(row["id"])
    assert caught.value.errno == errno.ENOENT
    device.close()


def test_mutants_of_the_configuration_are_rules(tmp_path: Path) -> None:
    device = Core(_config(tmp_path, mutants=tuple(core.mutants())))
    rows = device.inject_list()
    assert [row["mutant"] for row in rows] == list(core.mutants())
    device.close()


def test_every_mutant_says_what_must_be_noticed() -> None:
    mutants = core.mutants()
    assert {"ignore-unmap", "ignore-permissions", "translate-off-by-page"} <= set(
        mutants
    )
    assert all(len(notice) > 10 for notice in mutants.values())


def test_mutants_of_endpoints_are_some_of_all() -> None:
    assert core.mutants(of_endpoints=True).items() < core.mutants().items()
    assert set(core.mutants(of_endpoints=True)) == {
        "drop-interrupt",
        "ignore-reset",
        "lose-rare-interrupt",
    }
