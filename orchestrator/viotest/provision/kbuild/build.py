# SPDX-License-Identifier: GPL-2.0-or-later
"""Build a minimal guest kernel; keep it by what it was made from.

The main function is :func:`build_kernel`. Errors: UsageError for a source that is none
or an option that did not stick; :class:`~viotest.provision.kbuild.make.BuildError`.
"""

from __future__ import annotations

import contextlib
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from viotest.provision import cache
from viotest.provision.kbuild import config
from viotest.provision.kbuild.make import (
    apply_patch,
    read_patch,
    require_tools,
    run_make,
    strip,
    toolchain,
)
from viotest.provision.kbuild.source import Source, find_source
from viotest.provision.kbuild.tree import TREE, keep_tree

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from viotest.provision.progress import Progress

#: Part of the keys of entries; goes up when what they hold changes.
RECIPE = 1
#: The folder of the cache.
KIND = "kernel-build"
#: What an unpacked tree and its objects take.
SPACE = 4 << 30
#: Things made for our own fragments: an estimate until a build has been counted.
NR_MADE = 1750
_COUNT = "kernel-build-count"


@dataclass(frozen=True)
class Recipe:
    """What a kernel is built from."""

    #: As :func:`~viotest.provision.kbuild.source.find_source` takes it.
    source: str
    patches: tuple[Path, ...] = ()
    #: The user's, on top of our own.
    fragments: tuple[Path, ...] = ()


def build_kernel(recipe: Recipe, progress: Progress) -> cache.Entry:
    """Return a kernel's entry of the cache, building it when it is not there.

    :param recipe: What to build.
    :param progress: Where long work is shown.
    :return: ``vmlinux``, ``bzImage``, ``config``, ``lib/modules/RELEASE`` and what
        modules are built with; facts as of a kernel of Debian.
    :raise UsageError: When an input is wrong.
    :raise BuildError: When a patch does not apply or the compiler fails.
    """
    patches = [(path, read_patch(path)) for path in recipe.patches]
    fragments = config.read_fragments(recipe.fragments)
    source = find_source(recipe.source, progress)
    key = cache.digest_of(
        RECIPE,
        source.digest,
        [text for _, text in patches],
        [sorted(fragment.options.items()) for fragment in fragments],
        toolchain(),
    )

    def build(folder: Path) -> Mapping[str, Any]:
        require_tools()
        with unpacked(source) as tree:
            apply_patches(tree, recipe, source)
            return _build(tree, folder, source, fragments, progress)

    what = f"kernel {source.name}"
    return cache.provide(KIND, key, build, progress, what=what)


@contextlib.contextmanager
def unpacked(source: Source) -> Iterator[Path]:
    """Unpack a source for as long as the context lives.

    :param source: The source.
    :raise UsageError: When it is none, or the disk is too small.
    """
    with cache.scratch() as tmp:
        cache.require_space(tmp, SPACE)
        tree = tmp / "linux"
        tree.mkdir()
        source.unpack(tree)
        yield tree


def apply_patches(tree: Path, recipe: Recipe, source: Source) -> None:
    """Apply a recipe's patches, in order.

    :param tree: The source, unpacked.
    :raise BuildError: When one does not apply.
    """
    for path in recipe.patches:
        apply_patch(tree, path, source.spec)


def _build(
    tree: Path,
    folder: Path,
    source: Source,
    fragments: Sequence[config.Fragment],
    progress: Progress,
) -> Mapping[str, Any]:
    from viotest.provision.image import parse_image, write_image

    with progress.step(f"configuring {source.name}"):
        options = configure(tree, fragments)
    _compile(tree, source, progress)
    with progress.step(f"packing {source.name}"):
        data = (tree / "arch/x86/boot/bzImage").read_bytes()
        image = parse_image(data)
        # kexec wants the bzImage also where QEMU starts the vmlinux.
        (folder / "bzImage").write_bytes(data)
        pvh = write_image(image, data, folder)
        shutil.copy(tree / ".config", folder / "config")
        modules = _keep_modules(tree, folder / "lib/modules" / image.release)
        keep_tree(tree, folder / TREE)
    return {
        "release": image.release,
        "image": "vmlinux" if pvh else "bzImage",
        "pvh": pvh,
        "modules": f"lib/modules/{image.release}",
        "config": options,
        "built": modules,
        "source": source.digest,
    }


def configure(tree: Path, fragments: Sequence[config.Fragment]) -> Mapping[str, str]:
    """Write a tree's ``.config`` and return its options.

    :param tree: The kernel's source.
    :param fragments: What comes on top of tinyconfig.
    :raise UsageError: When an option of a fragment did not stick.
    """
    from viotest.provision.image import parse_config

    wanted = tree / ".viotest.config"
    wanted.write_text(config.merged(tree, fragments), encoding="utf-8")
    run_make(tree, ["allnoconfig"], variables={"KCONFIG_ALLCONFIG": wanted.name})
    options = parse_config((tree / ".config").read_text("utf-8"))
    config.require_taken(tree, fragments, options)
    return options


def _compile(tree: Path, source: Source, progress: Progress) -> None:
    remembered = cache.read_memo(_COUNT, "last") or {}
    estimate = int(remembered.get("made", NR_MADE))
    with progress.step(f"building kernel {source.name}") as step:
        nr_made = run_make(
            tree,
            ["bzImage", "modules"],
            # An estimate that is too low must not make the bar claim the end.
            made=lambda nr: step.update(nr, max(estimate, nr + 1)),
        )
    cache.write_memo(_COUNT, "last", {"made": nr_made})


def _keep_modules(tree: Path, target: Path) -> list[str]:
    target.mkdir(parents=True)
    order = (tree / "modules.order").read_text("utf-8").split()
    names = [f"{name.removesuffix('.o').removesuffix('.ko')}.ko" for name in order]
    for name in names:
        copy = target / "kernel" / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(tree / name, copy)
        strip(copy)
    text = "".join(f"kernel/{name}\n" for name in names)
    (target / "modules.order").write_text(text)
    shutil.copy(tree / "modules.builtin", target)
    return names
