# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernels as files and trees: what is taken, and what is refused with which words."""

from __future__ import annotations

import gzip
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from viotest.errors import UsageError
from viotest.provision import kernel_options
from viotest.provision.kernel import DEBIAN_KERNELS, Kernel, provide_kernel
from viotest.provision.kernel_options import (
    GUEST_MODULES,
    MODE_OPTIONS,
    REQUIRED_OPTIONS,
    USEFUL_OPTIONS,
    Option,
    missing_options,
)
from viotest.provision.progress import SilentProgress
from viotest.suite.modes import NEEDS

from .conftest import (
    RELEASE,
    gzipped_kernel,
    make_bzimage,
    make_module,
    make_vmlinux,
    write_modules,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

CONFIG = {option.name: "y" for option in REQUIRED_OPTIONS}
BUILTIN_DRIVER = b"\0virtio_iommu\0"

pytestmark = pytest.mark.usefixtures("cache")


def get(spec: str | Path, modules: Path | None = None) -> Kernel:
    folder = str(modules) if modules else None
    return provide_kernel(str(spec), folder, SilentProgress())


def config_text(changes: Mapping[str, str]) -> str:
    options = {**CONFIG, **changes}
    return "".join(f"{name}={value}\n" for name, value in options.items())


def driver_modules(folder: Path) -> Path:
    modules = {f"{name}.ko": make_module() for name in GUEST_MODULES}
    return write_modules(folder, modules)


def test_bzimage_with_modules_is_unpacked_for_pvh(tmp_path: Path) -> None:
    image = tmp_path / "bzImage"
    image.write_bytes(gzipped_kernel())
    modules = driver_modules(tmp_path / "modules")
    kernel = get(image, modules)
    assert (kernel.release, kernel.pvh, kernel.modules) == (RELEASE, True, modules)
    assert kernel.image.read_bytes() == make_vmlinux()
    assert get(image, modules) == kernel


def test_bzimage_without_pvh_is_used_as_it_is(tmp_path: Path) -> None:
    image = tmp_path / "bzImage"
    image.write_bytes(gzipped_kernel(pvh=False))
    kernel = get(image, driver_modules(tmp_path / "modules"))
    assert (kernel.image, kernel.pvh) == (image, False)


def test_changed_kernel_is_looked_at_again(tmp_path: Path) -> None:
    image = tmp_path / "vmlinux"
    image.write_bytes(make_vmlinux(extra=BUILTIN_DRIVER))
    assert get(image).image == image
    image.write_bytes(b"no kernel any more")
    with pytest.raises(UsageError, match="not a kernel"):
        get(image)


def test_installed_kernel_finds_its_modules_and_config(tmp_path: Path) -> None:
    boot = tmp_path / "boot"
    boot.mkdir()
    (boot / f"vmlinuz-{RELEASE}").write_bytes(gzipped_kernel())
    (boot / f"config-{RELEASE}").write_text(config_text({}))
    modules = driver_modules(tmp_path / "lib/modules" / RELEASE)
    kernel = get(boot / f"vmlinuz-{RELEASE}")
    assert kernel.modules == modules
    assert kernel.config["CONFIG_VFIO_PCI"] == "y"


def test_built_tree_brings_everything(tmp_path: Path) -> None:
    boot = tmp_path / "arch/x86/boot"
    boot.mkdir(parents=True)
    (boot / "bzImage").write_bytes(gzipped_kernel())
    (tmp_path / ".config").write_text(config_text({"CONFIG_VIRTIO_IOMMU": "m"}))
    (tmp_path / "drivers").mkdir()
    (tmp_path / "drivers/virtio-iommu.ko").write_bytes(make_module())
    (tmp_path / "modules.order").write_text("drivers/virtio-iommu.o\n")
    kernel = get(tmp_path)
    assert kernel.modules == tmp_path
    assert kernel.config["CONFIG_VIRTIO_IOMMU"] == "m"


@pytest.mark.parametrize("value", ["n", None])
def test_kernel_without_the_driver_names_the_option(
    tmp_path: Path, value: str | None
) -> None:
    image = tmp_path / f"vmlinuz-{RELEASE}"
    image.write_bytes(gzipped_kernel())
    if value:
        (tmp_path / f"config-{RELEASE}").write_text(
            "# CONFIG_VIRTIO_IOMMU is not set\n"
        )
    with pytest.raises(UsageError, match="CONFIG_VIRTIO_IOMMU"):
        get(image)


def test_modules_without_the_driver_name_the_option(tmp_path: Path) -> None:
    image = tmp_path / "bzImage"
    image.write_bytes(gzipped_kernel())
    modules = write_modules(tmp_path / "modules", {"vfio.ko": make_module()})
    with pytest.raises(UsageError, match=r"CONFIG_VIRTIO_IOMMU.*nor among"):
        get(image, modules)


def test_embedded_config_is_checked(tmp_path: Path) -> None:
    packed = gzip.compress(config_text({"CONFIG_VFIO_PCI": "n"}).encode(), mtime=0)
    vmlinux = make_vmlinux(extra=b"IKCFG_ST" + packed + b"IKCFG_ED" + BUILTIN_DRIVER)
    image = tmp_path / "bzImage"
    image.write_bytes(make_bzimage(gzip.compress(vmlinux)))
    with pytest.raises(UsageError, match="lacks CONFIG_VFIO_PCI"):
        get(image)


@pytest.mark.parametrize(
    ("spec", "nearest"),
    [
        ("debian:trixy", "debian:trixie"),
        ("debian:bookworm", "debian:bookworm-backports"),
        ("latest", "debian:"),
    ],
)
def test_unknown_kernel_names_the_nearest(spec: str, nearest: str) -> None:
    with pytest.raises(
        UsageError, match=f"unknown kernel '{spec}'.*nearest: {nearest}"
    ):
        get(spec)


def test_missing_file_names_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "bzImage").touch()
    with pytest.raises(UsageError, match=r"no such file \(nearest: .*/bzImage\)"):
        get(tmp_path / "bzimage")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"#!/bin/sh\n", "not a kernel"),
        (b"", "not a kernel"),
        (make_vmlinux(pvh=False), "without a PVH note.*CONFIG_PVH"),
    ],
)
def test_file_that_cannot_boot_is_refused(
    tmp_path: Path, data: bytes, reason: str
) -> None:
    (tmp_path / "file").write_bytes(data)
    with pytest.raises(UsageError, match=f"{tmp_path}/file: .*{reason}"):
        get(tmp_path / "file")


def test_folder_that_is_no_tree_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no arch/x86/boot/bzImage"):
        get(tmp_path)


def test_modules_option_must_fit(tmp_path: Path) -> None:
    (tmp_path / "bzImage").write_bytes(gzipped_kernel())
    with pytest.raises(UsageError, match="no such folder"):
        get(tmp_path / "bzImage", tmp_path / "absent")
    with pytest.raises(UsageError, match="not with debian:trixie"):
        get("debian:trixie", tmp_path)


def test_options_that_older_kernels_do_not_have(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    new = Option("CONFIG_NEW", "news", (6, 6))
    monkeypatch.setattr(kernel_options, "REQUIRED_OPTIONS", (*REQUIRED_OPTIONS, new))
    assert missing_options(CONFIG, "6.1.0") == []
    assert missing_options(CONFIG, "6.12.1") == [new]
    assert missing_options({}, "6.12.1") == []


def test_kernel_without_a_mode_is_no_kernel_to_refuse() -> None:
    config = CONFIG | {option.name: "n" for option in MODE_OPTIONS}
    assert missing_options(config, "6.12.1") == []


def test_every_need_of_a_mode_is_in_the_table() -> None:
    needed = {o for needs in NEEDS.values() for need in needs for o in need.options}
    assert needed == {option.name for option in MODE_OPTIONS}


def test_page_and_tuple_say_the_same() -> None:
    page = Path(__file__).parents[3] / "docs/kernel-options.md"
    rows = re.findall(
        r"^\| `(CONFIG_\w+)` \| (.+?) \|$", page.read_text(), re.MULTILINE
    )
    options = (*REQUIRED_OPTIONS, *MODE_OPTIONS, *USEFUL_OPTIONS)
    since = {
        o.name: f" (since {o.since[0]}.{o.since[1]})" for o in options if any(o.since)
    }
    assert rows == [(o.name, o.reason + since.get(o.name, "")) for o in options]
    for spec in DEBIAN_KERNELS:
        assert f"`{spec}`" in page.read_text()
