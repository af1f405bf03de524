# SPDX-License-Identifier: GPL-2.0-or-later
"""Which libraries a program of unpacked packages loads: :func:`find_libraries`."""

from __future__ import annotations

from pathlib import Path

from viotest.errors import UntestableError
from viotest.provision.elf import Elf


def find_libraries(program: Path, folder: Path) -> dict[str, Path]:
    """Return all that a program is started with, its loader among it, by name.

    :param program: An ELF file.
    :param folder: Where the packages have their libraries.
    :raise UntestableError: When one of them is not there, or is no ELF file.
    """
    elf = Elf(program.read_bytes())
    interpreter = elf.interpreter()
    wanted = elf.needed() + ([Path(interpreter).name] if interpreter else [])
    found: dict[str, Path] = {}
    while wanted:
        name = wanted.pop()
        if name in found:
            continue
        library = found[name] = folder / name
        if not library.is_file():
            what = f"{program.name} needs {name}, which no package has"
            raise UntestableError(what)
        wanted += Elf(library.read_bytes()).needed()
    return found
