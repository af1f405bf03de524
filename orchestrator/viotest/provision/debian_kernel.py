# SPDX-License-Identifier: GPL-2.0-or-later
"""Fetch a kernel from Debian and keep what a guest needs of it."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

from viotest.provision import cache
from viotest.provision.apt import Apt, AptError
from viotest.provision.debs import unpack
from viotest.provision.image import parse_config, parse_image, write_image
from viotest.provision.kernel_options import ALL_MODULES
from viotest.provision.modules import ModuleIndex

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from viotest.provision.apt import AptSession, Deb
    from viotest.provision.progress import Progress


def unpack_debian_kernel(
    meta: str, suite: str, folder: Path, progress: Progress
) -> Mapping[str, Any]:
    """Fill a cache entry with the kernel that a suite has now.

    :param meta: The package that depends on the current kernel.
    :param suite: The suite.
    :param folder: Gets ``vmlinux`` or ``bzImage``, and ``lib/modules/RELEASE``.
    :param progress: Where downloads are shown.
    :return: What :class:`~viotest.provision.kernel.Kernel` needs to know.
    """
    with cache.scratch() as tmp:
        with Apt(progress).session() as apt:
            debs = _kernel_packages(apt, meta, suite)
            packages = apt.fetch(debs, tmp, f"the kernel of Debian {suite}")
        with progress.step(f"unpacking the kernel of Debian {suite}"):
            unpack(packages, tmp / "tree", _is_wanted)
            return {**_keep(tmp / "tree", folder), "version": debs[0].version}


def _kernel_packages(apt: AptSession, meta: str, suite: str) -> list[Deb]:
    (current,) = apt.candidates([meta], suite)
    names = [name for name in apt.depends(current) if name.startswith("linux-image-")]
    if len(names) != 1:
        raise AptError(f"{meta} of {suite} depends on {len(names)} kernels, not on one")
    (image,) = apt.exact(names, current.version)
    # From 7.3 on the package is split, and linux-image-* only depends on the parts.
    release = names[0].removeprefix("linux-image-")
    parts = [f"linux-{part}-{release}" for part in ("binary", "modules", "base")]
    split = [name for name in apt.depends(image) if name in parts]
    return [image, *(apt.exact(split, current.version) if split else [])]


def _is_wanted(name: str) -> bool:
    return name.startswith(("boot/", "usr/lib/modules/"))


def _keep(tree: Path, folder: Path) -> Mapping[str, Any]:
    (modules,) = (tree / "usr/lib/modules").iterdir()
    release = modules.name
    data = _first(modules / "vmlinuz", tree / f"boot/vmlinuz-{release}").read_bytes()
    config = _first(modules / "config", tree / f"boot/config-{release}")
    image = parse_image(data)
    write_image(image, data, folder)
    # kexec wants it also where QEMU starts the vmlinux.
    (folder / "bzImage").write_bytes(data)
    _keep_modules(modules, folder / "lib/modules" / release)
    return {
        "release": release,
        "image": "vmlinux" if image.pvh else "bzImage",
        "pvh": image.pvh,
        "modules": f"lib/modules/{release}",
        "config": parse_config(config.read_text("utf-8", "replace")),
    }


def _keep_modules(source: Path, target: Path) -> None:
    # A thousand more modules would make every look at the entry slower.
    index = ModuleIndex(source)
    target.mkdir(parents=True)
    shutil.copy(source / "modules.builtin", target)
    paths = index.load_order(ALL_MODULES).values()
    names = [path.relative_to(source) for path in paths]
    for name in names:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source / name, target / name)
    text = "".join(
        f"{name.with_suffix('') if name.suffix != '.ko' else name}\n" for name in names
    )
    (target / "modules.order").write_text(text)


def _first(*paths: Path) -> Path:
    for path in paths:
        if path.is_file():
            return path
    raise AptError(f"the kernel package lacks {paths[-1].name}")
