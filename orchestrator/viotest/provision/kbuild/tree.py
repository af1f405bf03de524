# SPDX-License-Identifier: GPL-2.0-or-later
"""Keep of a built tree what its modules are built again with.

One archive: tens of thousands of files would take long to write and to look after. It
holds the sources and objects of modules, every header and makefile, and the tools of
the build, so that ``make modules`` in it does what changed and nothing else.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from viotest.provision.kbuild.make import BuildError, first_error, run_tool

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

#: The archive's name in a kernel's entry of the cache.
TREE = "tree.tar.zst"
#: In the archive: the files that the kernel proper was built from, one a line.
BUILTIN_FILES = ".viotest.builtin"
#: Kept whole: what every module is compiled with, and what checks that it is current.
_FOLDERS = ("include", "scripts", "arch/x86")
#: Kept wherever they are, for make to walk through the folders.
_WALKED = re.compile(r"(Makefile|Kbuild|Kconfig).*|.*\.bc")
#: Objects in these folders are never part of a module.
_TOOLS = "tools"
#: Linked into every module, since 6.13.
_COMMON = ".module-common.o"
#: Programs of the build, which make looks after each time.
_HOST_TOOLS = ("scripts/", "arch/x86/tools/")
#: The tools are kept as built: their sources are many, and know absolute paths.
_KEPT_TOOLS = ("tools/objtool/objtool",)
_TOOLS_MAKEFILE = """\
# The tools are kept as they were built.
%::
	@:
"""
_TOP = (
    ".config",
    "Module.symvers",
    "modules.builtin",
    "modules.builtin.modinfo",
    "modules.order",
    "vmlinux.o",
)
_DEPENDENCY = re.compile(r"^(?:source_\S+ := | {2})(?:\$\(wildcard )?([^\s)]+)", re.M)


def keep_tree(tree: Path, archive: Path) -> None:
    """Write the archive.

    :param tree: A tree in which a kernel and its modules have been built. Its tools
        cannot be built any more afterwards.
    :param archive: The file to write.
    :raise BuildError: When it cannot be written.
    """
    modules = module_objects(tree)
    builtin = sorted(builtin_files(tree, modules))
    (tree / BUILTIN_FILES).write_text("".join(f"{name}\n" for name in builtin))
    for name in ("tools/Makefile", "tools/objtool/Makefile"):
        (tree / name).write_text(_TOOLS_MAKEFILE)
    names = sorted({*_kept(tree, modules), BUILTIN_FILES})
    command = ["tar", "-C", os.fspath(tree), "--format=posix", "--zstd"]
    command += ["--null", "--no-recursion", "-T", "-", "-cf", os.fspath(archive)]
    _run(command, "\0".join(names))


def unpack_tree(archive: Path, folder: Path) -> None:
    """Unpack the archive.

    :param archive: What :func:`keep_tree` wrote.
    :param folder: Where to; exists.
    :raise BuildError: When it cannot be unpacked.
    """
    command = ["tar", "-C", os.fspath(folder), "--no-same-owner", "--zstd"]
    _run([*command, "-xf", os.fspath(archive)], "")


def module_objects(tree: Path) -> frozenset[str]:
    """Return the objects that the modules of a built tree are linked from.

    :param tree: The top of the tree.
    """
    objects = {_COMMON}
    for line in (tree / "modules.order").read_text("utf-8").split():
        stem = line.removesuffix(".o").removesuffix(".ko")
        objects |= {f"{stem}.o", f"{stem}.mod.o"}
        objects |= set((tree / f"{stem}.mod").read_text("utf-8").split())
    return frozenset(objects)


def builtin_files(tree: Path, modules: Iterable[str]) -> set[str]:
    """Return the sources and headers that anything but modules was built from.

    A module that is built with another version of them does not fit the kernel.

    :param tree: The top of the tree.
    :param modules: What :func:`module_objects` returns.
    """
    of_modules = frozenset(modules)
    files: set[str] = set()
    for command in tree.rglob(".*.cmd"):
        name = command.relative_to(tree)
        made = name.with_name(name.name[1:].removesuffix(".cmd"))
        if str(made) in of_modules or name.parts[0] in (_TOOLS, "scripts"):
            continue
        for path in _DEPENDENCY.findall(command.read_text("utf-8", "replace")):
            if not path.startswith(("/", "include/config/")):
                files.add(os.path.normpath(path))
    return files


def _kept(tree: Path, modules: frozenset[str]) -> Iterator[str]:
    sources = {Path(name).parent for name in modules - {_COMMON}}
    # drivers/iommu/iommufd includes headers of drivers/iommu.
    around = {parent for folder in sources for parent in folder.parents}
    for name in _TOP:
        if (tree / name).exists():
            yield name
    yield from _KEPT_TOOLS
    for where, names, files in os.walk(tree):
        top = Path(where).relative_to(tree)
        if str(top) in ("tools", "Documentation"):
            names.clear()
        whole = any(top.is_relative_to(folder) for folder in _FOLDERS)
        source = any(top.is_relative_to(folder) for folder in sources)
        for file in files:
            path = str(top / file)
            header = top in around and file.endswith(".h")
            # Constants that make takes from a compiled file, and checks each time.
            constants = file.endswith(".c") and f"{file[:-2]}.s" in files
            walked = header or constants or _WALKED.fullmatch(file)
            if walked or _is_kept(path, modules, whole, source):
                yield path


def _is_kept(path: str, modules: frozenset[str], whole: bool, source: bool) -> bool:
    name = path.rsplit("/", 1)[-1]
    if name.startswith(".") and name.endswith(".cmd"):
        made = path[: -len(name)] + name[1:].removesuffix(".cmd")
        return whole or made in modules or made.endswith((".mod", ".ko", ".s"))
    if name.endswith((".o", ".a")):
        return path in modules or path.startswith(_HOST_TOOLS)
    return whole or source or name.endswith(".s")


def _run(command: list[str], text: str) -> None:
    status, said = run_tool(command, text=text)
    if status != 0:
        raise BuildError(f"cannot keep the built tree: {first_error(said)}")
