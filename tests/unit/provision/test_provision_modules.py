# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernel modules: found in every form, loaded after what they depend on."""

from __future__ import annotations

import gzip
import lzma
from typing import TYPE_CHECKING

import pytest

from viotest.provision.modules import (
    ModuleIndex,
    ModulesError,
    modinfo,
    module_name,
    read_module,
)

from .conftest import RELEASE, make_module, write_modules

if TYPE_CHECKING:
    from pathlib import Path


def test_order_follows_dependencies(tmp_path: Path) -> None:
    modules = {
        "virtio-net.ko.xz": lzma.compress(make_module("net_failover,core")),
        "net_failover.ko.gz": gzip.compress(make_module("failover")),
        "failover.ko": make_module(),
        "virtio-iommu.ko": make_module(),
    }
    builtin = "kernel/drivers/core.ko\n"
    index = ModuleIndex(write_modules(tmp_path / RELEASE, modules, builtin))
    wanted = ("virtio_iommu", "virtio_net", "core", "absent")
    order = index.load_order(wanted)
    assert list(order) == ["virtio_iommu", "failover", "net_failover", "virtio_net"]
    assert modinfo(read_module(order["virtio_net"]), "vermagic") == (
        f"{RELEASE} SMP preempt mod_unload "
    )


def test_missing_dependency_is_named(tmp_path: Path) -> None:
    folder = write_modules(tmp_path, {"a.ko": make_module("b")})
    with pytest.raises(ModulesError, match="no kernel module b"):
        ModuleIndex(folder).load_order(["a"])


def test_dependency_cycle_is_an_error(tmp_path: Path) -> None:
    modules = {"a.ko": make_module("b"), "b.ko": make_module("a")}
    folder = write_modules(tmp_path, modules)
    with pytest.raises(ModulesError, match="depend on each other"):
        ModuleIndex(folder).load_order(["a"])


@pytest.mark.parametrize("name", ["a.ko.xz", "a.ko.gz", "a.ko"])
def test_damaged_module_is_an_error(tmp_path: Path, name: str) -> None:
    folder = write_modules(tmp_path, {name: b"broken"})
    with pytest.raises(Exception, match=r"cannot read the module|not a 64-bit"):
        ModuleIndex(folder).load_order(["a"])


def test_built_tree_lists_objects(tmp_path: Path) -> None:
    (tmp_path / "drivers/iommu").mkdir(parents=True)
    (tmp_path / "drivers/iommu/virtio-iommu.ko").write_bytes(make_module())
    (tmp_path / "modules.order").write_text("drivers/iommu/virtio-iommu.o\n")
    assert list(ModuleIndex(tmp_path).load_order(["virtio-iommu"])) == ["virtio_iommu"]


def test_installed_folder_with_dep_or_nothing(tmp_path: Path) -> None:
    (tmp_path / "extra").mkdir()
    (tmp_path / "extra/a.ko").write_bytes(make_module())
    assert ModuleIndex(tmp_path).find("a") == tmp_path / "extra/a.ko"
    (tmp_path / "modules.dep").write_text("extra/a.ko: extra/b.ko\n")
    assert ModuleIndex(tmp_path).find("a") == tmp_path / "extra/a.ko"
    assert ModuleIndex(tmp_path).find("b") is None


def test_module_name_is_the_kernels() -> None:
    assert module_name("kernel/drivers/iommu/virtio-iommu.ko.xz") == "virtio_iommu"
