# SPDX-License-Identifier: GPL-2.0-or-later
"""Rebuild kernel drivers with a patch: a kernel mutant in seconds.

:func:`build_modules` takes a kernel that viotest built, whose modules are all at hand,
or one of Debian: then it compiles ``virtio-iommu`` out of tree against the
distribution's headers, as a drop-in for the module of the same kernel.
Errors: :class:`~viotest.provision.kbuild.make.BuildError`.
"""

from __future__ import annotations

import shutil
import tarfile
from typing import TYPE_CHECKING, Any

from viotest.errors import UsageError
from viotest.provision import cache
from viotest.provision.kbuild.make import (
    BuildError,
    apply_patch,
    first_error,
    read_patch,
    run_tool,
    strip,
)
from viotest.provision.kernel import BUILD, DEBIAN_KERNELS, provide_kernel

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from viotest.provision.apt import AptSession, Deb
    from viotest.provision.progress import Progress

#: The driver that is rebuilt, and what of its folder it needs.
MODULE = "virtio-iommu"
FOLDER = "drivers/iommu"
#: Part of the keys of entries; goes up when what they hold changes.
RECIPE = 1
#: Headers of other architectures and of hardware descriptions: half of all files.
_LEFT_OUT = ("/arch/", "/include/dt-bindings/")


def build_modules(kernel_spec: str, patch: Path, progress: Progress) -> list[Path]:
    """Return the modules of a kernel that a patch touches, rebuilt with it.

    :param kernel_spec: ``build:NAME``, or a kernel of Debian whose compiler this host
        has: ``debian:bookworm-backports`` on Debian 12.
    :param patch: Applied with ``patch -p1``; must apply without fuzz.
    :param progress: Where long work is shown.
    :return: Files called as the kernel calls the modules: ``virtio_iommu.ko``.
    :raise UsageError: When the kernel is another, or the patch cannot be read.
    :raise BuildError: When the patch does not apply or a module does not build.
    """
    if not kernel_spec.startswith(BUILD):
        return [_build_debian_module(kernel_spec, patch, progress)]
    from viotest.provision.kbuild.names import provide_named
    from viotest.provision.kbuild.rebuild import rebuild_modules

    kernel = provide_named(kernel_spec.removeprefix(BUILD), progress)
    return rebuild_modules(kernel, kernel_spec, patch, progress)


def _build_debian_module(kernel_spec: str, patch: Path, progress: Progress) -> Path:
    suite = DEBIAN_KERNELS.get(kernel_spec)
    if suite is None:
        what = f"modules are rebuilt for build:NAME and Debian's, not for {kernel_spec}"
        hint = f"known: {', '.join(DEBIAN_KERNELS)}; viotest kernel build makes others"
        raise UsageError(what, hint=hint)
    changes = read_patch(patch)
    release = provide_kernel(kernel_spec, None, progress).release

    def build(folder: Path) -> Mapping[str, Any]:
        kit = _provide_kit(release, suite, progress)
        with progress.step(f"building {MODULE} with {patch.name}"):
            with cache.scratch() as tmp:
                _build(kit, release, patch, tmp)
                shutil.copy(tmp / "module" / f"{MODULE}.ko", folder / "virtio_iommu.ko")
            _check_vermagic(folder / "virtio_iommu.ko", release)
        return {"patch": patch.name, "release": release}

    key = cache.digest_of(RECIPE, release, changes)
    entry = cache.provide("module", key, build, progress, what=f"module {MODULE}")
    return entry.path / "virtio_iommu.ko"


def _provide_kit(release: str, suite: str, progress: Progress) -> Path:
    # One archive, because ten thousand small files would take long to flush.
    def build(folder: Path) -> Mapping[str, Any]:
        from viotest.provision.apt import Apt
        from viotest.provision.debs import unpack

        with cache.scratch() as tmp:
            with Apt(progress).session() as apt:
                debs = _kit_packages(apt, release, suite)
                packages = apt.fetch(debs, tmp, f"headers and source of {release}")
            with progress.step(f"unpacking headers and source of {release}"):
                unpack(packages, tmp / "kit", _is_wanted)
                _keep_driver(tmp / "kit")
                _run(["tar", "-C", f"{tmp}/kit", "-cf", f"{folder}/kit.tar", "."])
        return {deb.name: deb.version for deb in debs}

    key = f"{release}-{RECIPE}"
    entry = cache.provide(
        "module-kit", key, build, progress, what=f"headers of {release}"
    )
    return entry.path / "kit.tar"


def _kit_packages(apt: AptSession, release: str, suite: str) -> list[Deb]:
    (headers,) = apt.candidates([f"linux-headers-{release}"], suite)
    needed = [
        name
        for name in apt.depends(headers)
        if name.startswith(("linux-headers-", "linux-kbuild-"))
    ]
    source = f"linux-source-{'.'.join(release.split('.')[:2])}"
    return [headers, *apt.exact([*needed, source], headers.version)]


def _is_wanted(name: str) -> bool:
    if name.startswith("usr/src/linux-headers-"):
        ours = "/arch/x86/" in name
        return ours or not any(part in name for part in _LEFT_OUT)
    return name.startswith(("usr/lib/linux-kbuild-", "usr/src/linux-source-"))


def _keep_driver(kit: Path) -> None:
    (archive,) = (kit / "usr/src").glob("linux-source-*.tar.xz")
    target = kit / "module" / FOLDER
    target.mkdir(parents=True)
    with tarfile.open(archive, "r|xz") as source:
        for member in source:
            folder, _, name = member.name.partition("/")[2].rpartition("/")
            if folder == FOLDER and (name.endswith(".h") or name == f"{MODULE}.c"):
                file = source.extractfile(member)
                assert file is not None
                (target / name).write_bytes(file.read())
            elif (target / f"{MODULE}.c").exists() and not folder.startswith(FOLDER):
                # Folders are together: the rest of the kernel need not be unpacked.
                break
    archive.unlink()


def _build(kit: Path, release: str, patch: Path, tmp: Path) -> None:
    _run(["tar", "-C", f"{tmp}", "-xf", f"{kit}"])
    module = tmp / "module"
    apply_patch(module, patch, f"{MODULE} of {release}")
    for path in (module / FOLDER).iterdir():
        path.rename(module / path.name)
    (module / "Kbuild").write_text(f"obj-m := {MODULE}.o\n")
    headers = tmp / "usr/src" / f"linux-headers-{release}"
    # The packages expect to be in /usr/src.
    makefile = headers / "Makefile"
    makefile.write_text(makefile.read_text().replace("/usr/src/", f"{tmp}/usr/src/"))
    make = ["make", "-s", "-C", f"{headers}", f"M={module}"]
    # Type information needs a tool that hosts seldom have, and nothing reads it here.
    _run([*make, "CONFIG_DEBUG_INFO_BTF_MODULES=", "modules"])
    strip(module / f"{MODULE}.ko")


def _check_vermagic(path: Path, release: str) -> None:
    from viotest.provision.modules import modinfo, read_module

    vermagic = modinfo(read_module(path), "vermagic") or "nothing"
    if vermagic.split(" ", 1)[0] != release:
        raise BuildError(f"the module is for {vermagic}, not for {release}")


def _run(command: Sequence[str]) -> None:
    status, said = run_tool(command)
    if status != 0:
        raise BuildError(f"{command[0]} failed for a module: {first_error(said)}")
