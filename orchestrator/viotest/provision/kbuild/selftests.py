# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel's own VFIO selftests, of the source that a kernel was built from.

Static programs: a guest has the libraries of nobody. The main functions are
:func:`provide_selftests` and :func:`selftest_files`.
Errors: :class:`~viotest.provision.kbuild.make.BuildError`.
"""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING, Any

from viotest.errors import UsageError
from viotest.provision import cache
from viotest.provision.kbuild.build import apply_patches, unpacked
from viotest.provision.kbuild.make import (
    BuildError,
    has_header,
    read_patch,
    require_tools,
    run_make,
    strip,
)
from viotest.provision.kbuild.names import find_recipe
from viotest.provision.kbuild.source import find_source
from viotest.provision.kernel import BUILD

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from viotest.provision.progress import Progress

#: Where a kernel's source has them; not before Linux 6.18.
FOLDER = "tools/testing/selftests/vfio"
#: Where a guest has them.
GUEST_FOLDER = "selftests/vfio"
#: Part of the keys of entries; goes up when what they hold changes.
RECIPE = 1


def provide_selftests(kernel_spec: str, progress: Progress) -> Path | None:
    """Return a folder with the selftests of a kernel, building them when needed.

    :param kernel_spec: ``build:NAME``: other kernels come without their source.
    :param progress: Where long work is shown.
    :return: Programs, each called as its source; None when this kernel has none.
    :raise UsageError: When the kernel was not built by viotest.
    :raise BuildError: When they do not build.
    """
    if not kernel_spec.startswith(BUILD):
        what = f"the VFIO selftests need a kernel's source: {kernel_spec} has none here"
        raise UsageError(what, hint="give --kernel build:linux-7.3")
    recipe = find_recipe(kernel_spec.removeprefix(BUILD))
    source = find_source(recipe.source, progress)
    patches = [read_patch(path) for path in recipe.patches]

    def build(folder: Path) -> Mapping[str, Any]:
        require_tools()
        with unpacked(source) as tree:
            apply_patches(tree, recipe, source)
            if not (tree / FOLDER).is_dir():
                return {"programs": []}
            with progress.step(f"building the VFIO selftests of {source.name}"):
                return {"programs": _build(tree, folder)}

    key = cache.digest_of(RECIPE, source.digest, patches)
    what = f"VFIO selftests of {source.name}"
    entry = cache.provide("selftests", key, build, progress, what=what)
    return entry.path if entry.facts["programs"] else None


def selftest_files(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Return the selftests as a guest's files, to append to its image on demand.

    :param folder: What :func:`provide_selftests` returned.
    :return: For :func:`~viotest.provision.cpio.overlay_cpio`.
    """
    programs = [path for path in folder.iterdir() if not path.name.startswith(".")]
    return {
        f"{GUEST_FOLDER}/{path.name}": (0o755, path.read_bytes())
        for path in sorted(programs)
    }


def _build(tree: Path, folder: Path) -> list[str]:
    if not has_header("uuid/uuid.h"):
        what = "the VFIO selftests need uuid-dev"
        raise BuildError(what, hint="sudo apt-get install uuid-dev")
    run_make(tree, ["headers"])
    output = tree / "viotest-selftests"
    output.mkdir()
    includes = f"KHDR_INCLUDES=-isystem {tree}/usr/include"
    # What the folder's makefile adds itself does not reach a variable given here.
    flags = "LDFLAGS=-static -pthread"
    run_make(tree, ["-C", FOLDER, includes, flags, f"OUTPUT={output}"])
    programs = []
    for path in sorted(output.iterdir()):
        if path.is_file() and not path.suffix and os.access(path, os.X_OK):
            strip(path)
            shutil.copy(path, folder / path.name)
            programs.append(path.name)
    return programs
