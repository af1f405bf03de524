# SPDX-License-Identifier: GPL-2.0-or-later
"""Find a kernel's modules and the order to load them in, without depmod or kmod.

Packages carry no ``modules.dep`` (their install script makes it), and hosts need not
have kmod, so dependencies are read from the modules themselves.
"""

from __future__ import annotations

import gzip
import lzma
import subprocess
from typing import TYPE_CHECKING

from viotest.errors import UntestableError
from viotest.provision.elf import Elf

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

#: What may follow ``.ko``.
SUFFIXES = ("", ".xz", ".zst", ".gz")


class ModulesError(UntestableError):
    """A kernel module is missing or damaged."""


def module_name(path: str) -> str:
    """Return the name that the kernel gives to a module.

    :param path: A path, a file name or an alias spelled with dashes.
    """
    return (
        path.rsplit("/", 1)[-1].split(".ko", 1)[0].removesuffix(".o").replace("-", "_")
    )


class ModuleIndex:
    """The modules of one kernel.

    :param folder: ``lib/modules/RELEASE``, or the top of a built kernel tree.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._paths = {module_name(path): path for path in _listed(folder)}
        self._builtin = frozenset(
            module_name(line) for line in _lines(folder / "modules.builtin")
        )

    def find(self, name: str) -> Path | None:
        """Return the file of a module, or None.

        :param name: The module's name, with dashes or underscores.
        """
        listed = self._paths.get(module_name(name))
        if listed is None:
            return None
        # modules.order of a tree lists objects, and packages compress their modules.
        stem = self.folder / listed.removesuffix(".o").split(".ko", 1)[0]
        for suffix in SUFFIXES:
            path = stem.with_name(f"{stem.name}.ko{suffix}")
            if path.is_file():
                return path
        return None

    def is_builtin(self, name: str) -> bool:
        """Tell whether the kernel itself contains the module."""
        return module_name(name) in self._builtin

    def load_order(self, names: Iterable[str]) -> dict[str, Path]:
        """Return the modules to load, each after those it depends on.

        :param names: The modules wanted; those that are not there are left out.
        :return: Files by module name, in order.
        :raise ModulesError: When a dependency is nowhere or a file is damaged.
        """
        order: dict[str, Path] = {}
        for name in names:
            if self.find(name) is not None:
                self._add(module_name(name), order, ())
        return order

    def _add(self, name: str, order: dict[str, Path], above: tuple[str, ...]) -> None:
        if name in order or self.is_builtin(name):
            return
        if name in above:
            raise ModulesError(f"kernel modules depend on each other: {name}")
        path = self.find(name)
        if path is None:
            raise ModulesError(f"no kernel module {name} in {self.folder}")
        for dependency in dependencies(read_module(path)):
            self._add(dependency, order, (*above, name))
        order[name] = path


def read_module(path: Path) -> bytes:
    """Return a module's ELF file, decompressed.

    :param path: A ``.ko``, ``.ko.xz``, ``.ko.zst`` or ``.ko.gz`` file.
    :raise ModulesError: When it cannot be read.
    """
    try:
        data = path.read_bytes()
        if path.suffix == ".xz":
            return lzma.decompress(data)
        if path.suffix == ".gz":
            return gzip.decompress(data)
        if path.suffix == ".zst":
            command = ["zstd", "-dc"]
            return subprocess.run(
                command, input=data, capture_output=True, check=True
            ).stdout
    except (OSError, EOFError, lzma.LZMAError, subprocess.CalledProcessError) as error:
        raise ModulesError(f"cannot read the module {path}: {error}") from error
    return data


def modinfo(module: bytes, key: str) -> str | None:
    """Return a value of a module's ``.modinfo``, or None.

    :param module: The ELF file.
    :param key: ``depends``, ``vermagic``, ...
    """
    for item in (Elf(module).section(".modinfo") or b"").split(b"\0"):
        name, _, value = item.partition(b"=")
        if name == key.encode():
            return value.decode("utf-8", "replace")
    return None


def dependencies(module: bytes) -> list[str]:
    """Return the names of the modules that a module depends on.

    :param module: The ELF file.
    """
    depends = modinfo(module, "depends") or ""
    return [module_name(name) for name in depends.split(",") if name]


def with_dependencies(modules: Mapping[str, bytes], names: Iterable[str]) -> list[str]:
    """Return modules, each after those of the others that it depends on.

    :param modules: ELF files by module name, among them every dependency that is not
        built in.
    :param names: The modules wanted; those that are not there are left out.
    """
    order: dict[str, None] = {}
    for name in names:
        if name in modules and name not in order:
            below = dependencies(modules[name])
            order |= dict.fromkeys(with_dependencies(modules, below))
            order[name] = None
    return list(order)


def _listed(folder: Path) -> Iterator[str]:
    # modules.dep, where depmod made it, also knows modules added later.
    if (folder / "modules.dep").is_file():
        for line in _lines(folder / "modules.dep"):
            yield line.split(":", 1)[0]
    elif (folder / "modules.order").is_file():
        yield from _lines(folder / "modules.order")
    else:
        for path in sorted(folder.rglob("*.ko*")):
            yield str(path.relative_to(folder))


def _lines(path: Path) -> list[str]:
    return path.read_text("utf-8", "replace").splitlines() if path.is_file() else []
