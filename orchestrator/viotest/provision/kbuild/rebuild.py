# SPDX-License-Identifier: GPL-2.0-or-later
"""Build the modules of a built kernel again, with a patch: those that it touches.

The main function is :func:`rebuild_modules`. Errors: UsageError for a patch to what is
no module; :class:`~viotest.provision.kbuild.make.BuildError`.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

from viotest.errors import UsageError
from viotest.provision import cache
from viotest.provision.kbuild.make import (
    apply_patch,
    patched_files,
    read_patch,
    require_tools,
    run_make,
    strip,
)
from viotest.provision.kbuild.tree import BUILTIN_FILES, TREE, unpack_tree
from viotest.provision.modules import module_name

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from viotest.provision.progress import Progress

#: Part of the keys of entries; goes up when what they hold changes.
RECIPE = 1


def rebuild_modules(
    kernel: cache.Entry, what: str, patch: Path, progress: Progress
) -> list[Path]:
    """Return the modules that a patch changes, built with it.

    :param kernel: The entry of a kernel that was built from source.
    :param what: The kernel, for a person.
    :param patch: Applied with ``patch -p1``; must apply without fuzz.
    :param progress: Where long work is shown.
    :return: Files called as the kernel calls the modules: ``virtio_iommu.ko``.
    :raise UsageError: When the patch cannot be read, or is to more than modules.
    :raise BuildError: When it does not apply, does not build, or changes nothing.
    """
    changes = read_patch(patch)

    def build(folder: Path) -> Mapping[str, Any]:
        require_tools()
        step = progress.step(f"building modules of {what} with {patch.name}")
        with cache.scratch() as tmp, step:
            unpack_tree(kernel.path / TREE, tmp)
            _require_modules_only(tmp, patched_files(changes), what, patch)
            apply_patch(tmp, patch, what)
            run_make(tmp, ["modules"])
            original = kernel.path / kernel.facts["modules"] / "kernel"
            built = _keep_changed(tmp, original, kernel.facts["built"], folder)
        if not built:
            hint = "does it change more than comments?"
            raise UsageError(f"{patch.name} changes no module of {what}", hint=hint)
        return {"patch": patch.name, "modules": built}

    key = cache.digest_of("built", RECIPE, kernel.path.name, changes)
    entry = cache.provide("module", key, build, progress, what=f"modules of {what}")
    return [entry.path / name for name in entry.facts["modules"]]


def _require_modules_only(
    tree: Path, files: Sequence[str], what: str, patch: Path
) -> None:
    if not files:
        raise UsageError(f"{patch.name} is no patch: it names no file")
    builtin = set((tree / BUILTIN_FILES).read_text("utf-8").splitlines())
    for name in files:
        if name in builtin:
            where = f"{name}, which is part of the kernel proper"
        elif not (tree / name).parent.is_dir():
            where = f"{name}, which is part of no module of {what}"
        else:
            continue
        hint = "viotest kernel build --patch builds the whole kernel with it"
        raise UsageError(f"{patch.name} touches {where}", hint=hint)


def _keep_changed(
    tree: Path, original: Path, names: Sequence[str], folder: Path
) -> list[str]:
    kept = []
    for name in names:
        strip(tree / name)
        if (tree / name).read_bytes() != (original / name).read_bytes():
            target = f"{module_name(name)}.ko"
            shutil.copy(tree / name, folder / target)
            kept.append(target)
    return kept
