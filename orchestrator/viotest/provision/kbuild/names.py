# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernels that were built, by name: what ``--kernel build:NAME`` looks up.

A name stands for the kernel last built under it. The provided names need no build
command: they are built when first used, and again when their recipe changes.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from viotest.errors import UsageError
from viotest.provision import cache
from viotest.provision.kbuild.source import PROVIDED, source_name
from viotest.provision.kernel import BUILD

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from viotest.provision.kbuild.build import Recipe
    from viotest.provision.progress import Progress


#: The folder of the cache.
KIND = "kernel-name"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+~-]{0,99}")


@dataclass(frozen=True)
class Named:
    """A name and what is known of its kernel."""

    name: str
    source: str
    #: None: not built yet, or no longer in the cache.
    release: str | None


def build_named(recipe: Recipe, name: str | None, progress: Progress) -> str:
    """Build a kernel and remember it by a name.

    :param recipe: What to build.
    :param name: The name; None: one made from the recipe.
    :param progress: Where long work is shown.
    :return: The name.
    :raise ViotestError: As :func:`~viotest.provision.kbuild.build.build_kernel`.
    """
    from viotest.provision.kbuild.build import build_kernel

    name = _checked(_default_name(recipe) if name is None else name)
    if name in PROVIDED and name != _default_name(recipe):
        what = f"--name {name}: is the name of a kernel that viotest provides"
        raise UsageError(what, hint="choose another")
    entry = build_kernel(recipe, progress)
    _remember(name, recipe, entry)
    return name


def provide_named(name: str, progress: Progress) -> cache.Entry:
    """Return the entry of a named kernel, building it when it is not there.

    :param name: Without the prefix.
    :param progress: Where long work is shown.
    :raise UsageError: When no kernel has that name.
    :raise ViotestError: As :func:`~viotest.provision.kbuild.build.build_kernel`.
    """
    from viotest.provision.kbuild.build import KIND as BUILDS
    from viotest.provision.kbuild.build import build_kernel

    recipe = find_recipe(name)
    key = _recalled(name).get("key")
    if name not in PROVIDED and key is not None:
        found = cache.find(BUILDS, key)
        if found is not None:
            return found
    entry = build_kernel(recipe, progress)
    if entry.path.name != key:
        _remember(name, recipe, entry)
    return entry


def find_recipe(name: str) -> Recipe:
    """Return what a named kernel is built from.

    :param name: Without the prefix.
    :raise UsageError: When no kernel has that name.
    """
    from viotest.provision.kbuild.build import Recipe

    if name in PROVIDED:
        return Recipe(name)
    memo = _recalled(name)
    if not memo:
        raise _unknown(name)
    patches, fragments = memo["patches"], memo["fragments"]
    return Recipe(
        memo["source"], tuple(map(Path, patches)), tuple(map(Path, fragments))
    )


def list_named() -> list[Named]:
    """Return the provided names and those that were built, in order."""
    from viotest.provision.kbuild.build import KIND as BUILDS

    memos = {name: {"source": name} for name in PROVIDED} | cache.memos(KIND)
    rows = []
    for name, memo in sorted(memos.items()):
        entry = cache.find(BUILDS, memo["key"]) if "key" in memo else None
        release = entry.facts["release"] if entry else None
        rows.append(Named(name, memo["source"], release))
    return rows


def _default_name(recipe: Recipe) -> str:
    changes = [path.stem for path in (*recipe.patches, *recipe.fragments)]
    name = "+".join((source_name(recipe.source), *changes))
    return re.sub(r"[^A-Za-z0-9._+~-]", "-", name)


def _remember(name: str, recipe: Recipe, entry: cache.Entry) -> None:
    source = recipe.source
    memo = {
        "key": entry.path.name,
        "source": str(Path(source).absolute()) if Path(source).exists() else source,
        "patches": [str(path.absolute()) for path in recipe.patches],
        "fragments": [str(path.absolute()) for path in recipe.fragments],
    }
    cache.write_memo(KIND, name, memo)


def _recalled(name: str) -> Mapping[str, Any]:
    memo = cache.read_memo(KIND, name) if _NAME.fullmatch(name) else None
    return memo if memo is not None else {}


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        what = f"--name {name}: a name is letters, digits and . _ + ~ -"
        raise UsageError(what)
    return name


def _unknown(name: str) -> UsageError:
    known = [row.name for row in list_named()]
    nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
    hint = f"nearest: {BUILD}{nearest}; viotest kernel list shows all, or build it"
    return UsageError(f"no kernel {BUILD}{name} has been built", hint=hint)
