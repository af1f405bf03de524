# SPDX-License-Identifier: GPL-2.0-or-later
"""Guest kernels: from Debian, built from source, from a file, or from a built tree.

The main function is :func:`provide_kernel`. Errors: UsageError for a kernel that is
not there or lacks an option; :class:`~viotest.provision.apt.AptError` for a download.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from viotest.errors import UsageError
from viotest.provision import cache
from viotest.provision.kernel_options import ALL_MODULES, missing_options

if TYPE_CHECKING:
    from collections.abc import Mapping

    from viotest.provision.modules import ModuleIndex
    from viotest.provision.progress import Progress

#: Kernels by name, and the suite that each comes from.
DEBIAN_KERNELS = {
    "debian:trixie": "trixie",
    "debian:trixie-backports": "trixie-backports",
    "debian:bookworm-backports": "bookworm-backports",
}
#: What marks the name of a kernel that was built from source.
BUILD = "build:"
#: Part of the keys of entries; goes up when what an entry holds changes.
RECIPE = 1
_META_PACKAGE = "linux-image-cloud-amd64"


@dataclass(frozen=True)
class Kernel:
    """A kernel that a guest can boot."""

    #: What the user asked for.
    spec: str
    release: str
    #: What QEMU gets: an ELF vmlinux where PVH can start it, else a bzImage.
    image: Path
    #: The image is started by PVH.
    pvh: bool
    #: ``lib/modules/RELEASE`` or a built tree; None: all drivers are built in.
    modules: Path | None
    #: Options by name with their values, ``n`` when not set; empty: unknown.
    config: Mapping[str, str]
    #: The bzImage, which is what kexec takes; None if there is none.
    bzimage: Path | None = None


def provide_kernel(spec: str, modules: str | None, progress: Progress) -> Kernel:
    """Return a kernel, fetching or unpacking what the cache does not have.

    :param spec: ``debian:SUITE``, ``build:NAME``, or the path of a bzImage, a vmlinux
        or a built tree.
    :param modules: ``lib/modules/RELEASE`` for a kernel given as a file.
    :param progress: Where long work is shown.
    :raise UsageError: When there is no such kernel, or it lacks what a guest needs.
    :raise UntestableError: When a package cannot be fetched.
    """
    suite = DEBIAN_KERNELS.get(spec)
    if suite is None and not spec.startswith(BUILD):
        kernel = _local_kernel(spec, modules, progress)
    elif modules is not None:
        what = f"--modules {modules} goes with a kernel file, not with {spec}"
        raise UsageError(what)
    elif suite is not None:
        kernel = _debian_kernel(spec, suite, progress)
    else:
        kernel = _built_kernel(spec, progress)
    missing = missing_options(kernel.config, kernel.release)
    if missing:
        names = ", ".join(option.name for option in missing)
        hint = f"{missing[0].name}: {missing[0].reason}; see docs/kernel-options.md"
        raise UsageError(f"kernel {spec} ({kernel.release}) lacks {names}", hint=hint)
    return kernel


def find_debian_kernel(spec: str) -> cache.Entry | None:
    """Return the entry of a kernel of Debian if the cache has it, else None.

    :param spec: One of :data:`DEBIAN_KERNELS`.
    """
    return cache.find("kernel", _debian_key(DEBIAN_KERNELS[spec]))


def _debian_key(suite: str) -> str:
    return f"debian-{suite}-{cache.digest_of(RECIPE, ALL_MODULES, 'bzImage')}"


def _debian_kernel(spec: str, suite: str, progress: Progress) -> Kernel:
    def build(folder: Path) -> Mapping[str, Any]:
        from viotest.provision.debian_kernel import unpack_debian_kernel

        return unpack_debian_kernel(_META_PACKAGE, suite, folder, progress)

    key = _debian_key(suite)
    entry = cache.provide("kernel", key, build, progress, what=f"kernel {spec}")
    return _kernel_of(spec, entry)


def _built_kernel(spec: str, progress: Progress) -> Kernel:
    from viotest.provision.kbuild.names import provide_named

    return _kernel_of(spec, provide_named(spec.removeprefix(BUILD), progress))


def _kernel_of(spec: str, entry: cache.Entry) -> Kernel:
    facts = entry.facts
    bzimage = entry.path / "bzImage"
    return Kernel(
        spec=spec,
        release=facts["release"],
        image=entry.path / facts["image"],
        pvh=facts["pvh"],
        modules=entry.path / facts["modules"],
        config=facts["config"],
        bzimage=bzimage if bzimage.is_file() else None,
    )


def _local_kernel(spec: str, modules: str | None, progress: Progress) -> Kernel:
    path = Path(spec)
    if not path.exists():
        raise _no_such_kernel(spec)
    tree = path if path.is_dir() else None
    image = tree / "arch/x86/boot/bzImage" if tree else path
    if not image.is_file():
        what = f"{spec} is no built kernel tree: no arch/x86/boot/bzImage in it"
        raise UsageError(what, hint="run make there first")
    entry = _inspected(image, progress)
    release = entry.facts["release"]
    kernel = Kernel(
        spec=spec,
        release=release,
        # What cannot be improved is used where it is.
        image=entry.path / "vmlinux" if entry.facts["unpacked"] else image,
        pvh=entry.facts["pvh"],
        modules=_find_modules(image, tree, modules, release),
        config=_find_config(image, tree, release) or entry.facts["config"],
        bzimage=image if _is_bzimage(image) else None,
    )
    _require_driver(kernel, builtin=entry.facts["virtio_iommu"])
    return kernel


def _is_bzimage(path: Path) -> bool:
    # The magic number of the boot protocol's header (Documentation/arch/x86/boot.rst).
    with path.open("rb") as file:
        file.seek(0x202)
        return file.read(4) == b"HdrS"


def _inspected(path: Path, progress: Progress) -> cache.Entry:
    def build(folder: Path) -> Mapping[str, Any]:
        from viotest.provision.image import (
            ImageError,
            embedded_config,
            parse_image,
            write_image,
        )

        with progress.step(f"unpacking {path.name}"):
            data = path.read_bytes()
            try:
                image = parse_image(data)
                unpacked = write_image(image, data, folder)
            except ImageError as error:
                raise UsageError(f"{path}: {error.what}", hint=error.hint) from error
        return {
            "release": image.release,
            "pvh": image.pvh,
            "unpacked": unpacked,
            "config": embedded_config(image.vmlinux),
            "virtio_iommu": b"\0virtio_iommu\0" in image.vmlinux,
        }

    try:
        identity = cache.file_identity(path.resolve())
        with path.open("rb"):
            pass
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    key = f"file-{cache.digest_of(RECIPE, identity)}"
    return cache.provide("kernel", key, build, progress, what=f"kernel {path.name}")


def _find_modules(
    image: Path, tree: Path | None, modules: str | None, release: str
) -> Path | None:
    if modules is not None:
        folder = Path(modules)
        if not folder.is_dir():
            raise UsageError(f"--modules {modules}: no such folder")
        return folder
    if tree is not None:
        return tree if (tree / "modules.order").is_file() else None
    # /boot/vmlinuz-RELEASE has its modules in /lib, also in an unpacked package.
    system = image.absolute().parent.parent
    for folder in (system / "lib/modules", system / "usr/lib/modules"):
        if image.name.endswith(release) and (folder / release).is_dir():
            return folder / release
    return None


def _find_config(image: Path, tree: Path | None, release: str) -> Mapping[str, str]:
    from viotest.provision.image import parse_config

    path = tree / ".config" if tree else image.with_name(f"config-{release}")
    if tree is None and not image.name.endswith(release):
        return {}
    return parse_config(path.read_text("utf-8", "replace")) if path.is_file() else {}


def _require_driver(kernel: Kernel, *, builtin: bool) -> None:
    # Without a configuration the driver itself is the evidence.
    value = kernel.config.get("CONFIG_VIRTIO_IOMMU")
    if value == "n" or value == "y" or (value is None and builtin):
        return
    index = _module_index(kernel.modules)
    if index is not None and index.find("virtio_iommu") is not None:
        return
    if index is not None and index.is_builtin("virtio_iommu"):
        return
    what = f"kernel {kernel.spec} ({kernel.release}) comes without CONFIG_VIRTIO_IOMMU"
    where = (
        f"nor among the modules in {kernel.modules}"
        if kernel.modules
        else ("and there are no modules: give --modules DIR")
    )
    raise UsageError(what, hint=f"its driver is not built in, {where}")


def _module_index(folder: Path | None) -> ModuleIndex | None:
    from viotest.provision.modules import ModuleIndex

    return ModuleIndex(folder) if folder else None


def _no_such_kernel(spec: str) -> UsageError:
    # Imported late, like all that only an error or a build needs.
    import difflib

    if "/" in spec or spec.startswith("."):
        names = _siblings(Path(spec))
        close = difflib.get_close_matches(Path(spec).name, names, n=1)
        hint = f"nearest: {Path(spec).parent / close[0]}" if close else ""
        return UsageError(f"no kernel {spec}: no such file", hint=hint)
    nearest = difflib.get_close_matches(spec, DEBIAN_KERNELS, n=1, cutoff=0.0)[0]
    hint = f"nearest: {nearest}; or the path of a bzImage, a vmlinux or a built tree"
    return UsageError(f"unknown kernel {spec!r}", hint=hint)


def _siblings(path: Path) -> list[str]:
    parent = path.parent
    return [other.name for other in parent.iterdir()] if parent.is_dir() else []
