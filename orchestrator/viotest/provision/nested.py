# SPDX-License-Identifier: GPL-2.0-or-later
"""A QEMU for the guest itself: what it needs of Debian's, and nothing else.

The main functions are :func:`nested_files`, for the host, and :func:`nested_start`,
for the guest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from viotest.provision.libraries import find_libraries
from viotest.provision.qemu import BINARY

if TYPE_CHECKING:
    from pathlib import Path

#: Where a guest has it.
FOLDER = "nested"
#: MiB that a guest needs for it: it is 90 of them, twice while the kernel unpacks its
#: image, and the inner machine's memory is pinned.
MEM = 512
_LIBRARIES = "usr/lib/x86_64-linux-gnu"
_LOADER = "ld-linux-x86-64.so.2"
#: The accelerator that runs no CPU is a module.
_MODULE = "qemu/accel-qtest.so"
#: A PC is not made without them, whether or not its CPU ever runs.
_FIRMWARE = ("usr/share/seabios/bios-256k.bin", "usr/share/qemu/kvmvapic.bin")


def nested_files(tree: Path) -> dict[str, tuple[int, bytes]]:
    """Return QEMU as a guest's files, to append to its image on demand.

    Its loader and libraries come with it: the guest has a few others of its own.

    :param tree: What :func:`~viotest.provision.qemu.provide_tree` returned.
    :return: For :func:`~viotest.provision.cpio.overlay_cpio`.
    :raise UntestableError: When a part is missing.
    """
    program = tree / "usr/bin" / BINARY
    libraries = find_libraries(program, tree / _LIBRARIES)
    module = tree / _LIBRARIES / _MODULE
    libraries |= find_libraries(module, tree / _LIBRARIES)
    files = {f"{FOLDER}/lib/{name}": path for name, path in libraries.items()}
    files[f"{FOLDER}/lib/{_MODULE}"] = module
    files[f"{FOLDER}/{BINARY}"] = program
    for name in _FIRMWARE:
        path = tree / name
        files[f"{FOLDER}/share/{path.name}"] = path
    return {name: (0o755, path.read_bytes()) for name, path in files.items()}


def nested_start() -> list[str]:
    """Return how a guest starts its QEMU; options follow."""
    libraries = f"/{FOLDER}/lib"
    # It looks for modules beside its executable, which to it is the loader.
    # fmt: off
    return [
        "env", f"QEMU_MODULE_DIR={libraries}/qemu",
        f"{libraries}/{_LOADER}", "--library-path", libraries, "--argv0", BINARY,
        f"/{FOLDER}/{BINARY}",
        "-L", f"/{FOLDER}/share",
    ]
    # fmt: on
