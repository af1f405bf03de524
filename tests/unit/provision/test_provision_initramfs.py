# SPDX-License-Identifier: GPL-2.0-or-later
"""The guest's image: reproducible, cached, and made without a network."""

from __future__ import annotations

import dataclasses
import os
from typing import TYPE_CHECKING

import pytest

from viotest.errors import UsageError
from viotest.provision import cache as caching
from viotest.provision import userland
from viotest.provision.initramfs import provide_initramfs
from viotest.provision.kernel import Kernel
from viotest.provision.kernel_options import GUEST_MODULES

from .conftest import RELEASE, make_module, write_modules

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from viotest.provision.progress import SilentProgress


def make_kernel(folder: Path, release: str = RELEASE, *, leave_out: str = "") -> Kernel:
    modules = {
        f"{name}.ko": make_module(release=release)
        for name in GUEST_MODULES
        if name != leave_out
    }
    path = write_modules(folder / release, modules)
    return Kernel("file", RELEASE, folder / "vmlinux", True, path, {})


@pytest.fixture
def offline(
    cache: Path, progress: SilentProgress, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """Put programs into the cache, then take every tool of the host away."""

    def programs(folder: Path) -> Mapping[str, object]:
        for name in ("bin/busybox", "bin/dropbear", "lib/libc.so.6"):
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(name)
        return {}

    def probe(folder: Path) -> Mapping[str, object]:
        (folder / "vfio-probe").write_text("probe")
        return {}

    key = f"debian-{userland.SUITE}-{userland.RECIPE}"
    caching.provide("userland", key, programs, progress, what="programs")
    caching.provide("probe", userland.probe_key(), probe, progress, what="probe")
    monkeypatch.setenv("PATH", "/nowhere")
    return cache


@pytest.mark.usefixtures("offline")
def test_image_holds_modules_in_order(tmp_path: Path, progress: SilentProgress) -> None:
    data = provide_initramfs(make_kernel(tmp_path), progress).read_bytes()
    listed = "".join(f"{name}\n" for name in GUEST_MODULES)
    assert listed.encode() in data
    assert b"viotest/modules.d/virtio_iommu.ko\0" in data
    assert b"ifconfig eth0 10.0.2.15 netmask 255.255.255.0 up" in data
    assert b"{{" not in data
    assert str(tmp_path).encode() not in data


def test_image_is_the_same_in_another_cache(
    offline: Path, tmp_path: Path, progress: SilentProgress
) -> None:
    kernel = make_kernel(tmp_path)
    first = provide_initramfs(kernel, progress)
    data = first.read_bytes()
    first.unlink()
    assert provide_initramfs(kernel, progress).read_bytes() == data
    assert first.is_relative_to(offline)


@pytest.mark.usefixtures("offline")
def test_warm_image_is_not_built_again(
    tmp_path: Path, progress: SilentProgress
) -> None:
    kernel = make_kernel(tmp_path)
    first = provide_initramfs(kernel, progress)
    before = first.stat()
    second = provide_initramfs(kernel, progress)
    assert (second, second.stat().st_ino) == (first, before.st_ino)
    assert progress.messages == []


@pytest.mark.usefixtures("offline")
def test_rebuilt_module_makes_a_new_image(
    tmp_path: Path, progress: SilentProgress
) -> None:
    kernel = make_kernel(tmp_path)
    first = provide_initramfs(kernel, progress)
    assert kernel.modules is not None
    module = kernel.modules / "kernel/virtio_iommu.ko"
    module.write_bytes(make_module() + b"changed")
    os.utime(module, ns=(1, 1))
    second = provide_initramfs(kernel, progress)
    assert second != first
    assert b"changed" in second.read_bytes()


@pytest.mark.usefixtures("offline")
def test_replaced_module_is_packed(tmp_path: Path, progress: SilentProgress) -> None:
    kernel = make_kernel(tmp_path)
    mutant = tmp_path / "mutant.ko"
    mutant.write_bytes(make_module() + b"a mutant")
    plain = provide_initramfs(kernel, progress)
    replaced = provide_initramfs(
        kernel, progress, replace_modules={"virtio_iommu": mutant}
    )
    assert b"a mutant" in replaced.read_bytes()
    assert b"a mutant" not in plain.read_bytes()


@pytest.mark.usefixtures("offline")
def test_extra_modules_are_held_and_not_loaded(
    tmp_path: Path, progress: SilentProgress
) -> None:
    kernel = make_kernel(tmp_path)
    plain = provide_initramfs(kernel, progress).read_bytes()
    assert b"viotest/modules.d/ioatdma.ko\0" not in plain
    extra = {"dca": "", "ioatdma": "dca,vfio-pci", "pvpanic-pci": ""}
    assert kernel.modules is not None
    for name, depends in extra.items():
        (kernel.modules / f"kernel/{name}.ko").write_bytes(make_module(depends))
    order = [*GUEST_MODULES, *extra]
    text = "".join(f"kernel/{name}.ko\n" for name in order)
    (kernel.modules / "modules.order").write_text(text)
    # What is remembered of a kernel's modules is of those that it had.
    folder = kernel.modules.rename(tmp_path / "more")
    other = dataclasses.replace(kernel, modules=folder)
    data = provide_initramfs(other, progress).read_bytes()
    loaded = "".join(f"{name}\n" for name in (*GUEST_MODULES, "pvpanic_pci"))
    assert loaded.encode() in data
    assert b"ioatdma dca vfio_pci\n" in data
    assert b"pvpanic_pci\nioatdma" not in data
    assert b"pvpanic_pci\ndca" not in data
    for name in ("dca", "ioatdma"):
        assert f"viotest/modules.d/{name}.ko\0".encode() in data
    assert b"bin/load-module\0" in data


@pytest.mark.usefixtures("offline")
def test_module_of_another_kernel_is_refused(
    tmp_path: Path, progress: SilentProgress
) -> None:
    with pytest.raises(UsageError, match=f"is for 5.0-other, the kernel is {RELEASE}"):
        provide_initramfs(make_kernel(tmp_path, "5.0-other"), progress)


@pytest.mark.usefixtures("offline")
def test_missing_module_is_named(tmp_path: Path, progress: SilentProgress) -> None:
    kernel = make_kernel(tmp_path, leave_out="vfio_pci")
    with pytest.raises(UsageError, match="has no module vfio_pci"):
        provide_initramfs(kernel, progress)


@pytest.mark.usefixtures("offline")
def test_unknown_module_cannot_be_replaced(
    tmp_path: Path, progress: SilentProgress
) -> None:
    with pytest.raises(UsageError, match="no module nosuch to replace"):
        provide_initramfs(
            make_kernel(tmp_path),
            progress,
            replace_modules={"nosuch": tmp_path / "nosuch.ko"},
        )
