# SPDX-License-Identifier: GPL-2.0-or-later
"""Run the programs that build a kernel: what they need, and what they say.

Main functions: :func:`run_tool`, :func:`run_make`, :func:`apply_patch`.
Errors: :class:`~viotest.provision.kbuild.make.BuildError`.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from typing import TYPE_CHECKING

from viotest.errors import UntestableError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

#: Programs that a build calls, and the package that has each.
TOOLS = {
    "gcc": "gcc",
    "ld": "binutils",
    "make": "make",
    "flex": "flex",
    "bison": "bison",
    "bc": "bc",
    "patch": "patch",
    "tar": "tar",
    "zstd": "zstd",
}
#: objtool, which every x86_64 kernel is built with, needs this header.
_LIBELF = "gelf.h"
#: One thing made: ``  CC [M]  drivers/vfio/vfio_main.o``.
_MADE = re.compile(r"  [A-Z]\S* ")
#: The same kernel, whenever and wherever it is built.
_ENVIRONMENT = {
    "KBUILD_BUILD_TIMESTAMP": "Thu Jan  1 00:00:00 UTC 1970",
    "KBUILD_BUILD_USER": "viotest",
    "KBUILD_BUILD_HOST": "viotest",
    "KBUILD_BUILD_VERSION": "1",
    # Set, though empty: a tree's place in git is not part of its release.
    "LOCALVERSION": "",
}


class BuildError(UntestableError):
    """A kernel or a module could not be built."""


def run_tool(
    command: Sequence[str], *, cwd: Path | None = None, text: str = ""
) -> tuple[int, list[str]]:
    """Run a program that says little.

    :param command: Its argv.
    :param cwd: Where to run it.
    :param text: Its input.
    :return: Its exit status, and the lines that it said.
    :raise BuildError: When there is no such program.
    """
    try:
        done = subprocess.run(
            command,
            cwd=cwd,
            env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"},
            input=text,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="surrogateescape",
            check=False,
        )
    except FileNotFoundError as error:
        hint = f"install the package that has {command[0]}"
        raise BuildError(f"{command[0]} is needed for a build", hint=hint) from error
    lines = (line.strip() for line in done.stdout.splitlines())
    return done.returncode, [line for line in lines if line]


def require_tools() -> None:
    """Require what a kernel build needs of the host.

    :raise BuildError: When something is missing; names the packages.
    """
    missing = [package for tool, package in TOOLS.items() if not shutil.which(tool)]
    if "gcc" not in missing and not has_header(_LIBELF):
        missing.append("libelf-dev")
    if missing:
        hint = f"sudo apt-get install {' '.join(missing)}"
        raise BuildError(f"a kernel build needs {', '.join(missing)}", hint=hint)


def has_header(name: str) -> bool:
    """Tell whether the host's compiler finds a header.

    :param name: As in an ``#include``.
    """
    command = ["gcc", "-E", "-include", name, "-x", "c", os.devnull, "-o", os.devnull]
    return run_tool(command)[0] == 0


def toolchain() -> tuple[str, str]:
    """Return what compiler and linker say of themselves; empty when not there."""
    return _version("gcc"), _version("ld")


def run_make(
    tree: Path,
    targets: Sequence[str],
    *,
    variables: Mapping[str, str] | None = None,
    made: Callable[[int], None] | None = None,
) -> int:
    """Run ``make`` in a kernel tree, on all CPUs.

    :param tree: The top of the tree.
    :param targets: What to make.
    :param variables: More of the environment.
    :param made: Told how many things have been made, each time.
    :return: How many things were made.
    :raise BuildError: When it fails; quotes the first error.
    """
    jobs = len(os.sched_getaffinity(0))
    command = ["make", f"-j{jobs}", "ARCH=x86_64", *_compiler()]
    environment = _environment(tree, variables or {})
    nr_made = 0
    said: list[str] = []
    # A session of its own: compilers must end with us, not only make.
    with subprocess.Popen(
        [*command, *targets],
        cwd=tree,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                if _MADE.match(line):
                    nr_made += 1
                    if made is not None:
                        made(nr_made)
                elif line.strip():
                    said.append(line.strip())
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    if process.returncode != 0:
        raise BuildError(f"make {' '.join(targets)}: {first_error(said)}")
    return nr_made


def read_patch(path: Path) -> bytes:
    """Return a patch's content.

    :raise UsageError: When it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        what = f"cannot read the patch {path}: {error.strerror}"
        raise UsageError(what) from error


def apply_patch(tree: Path, patch: Path, what: str) -> None:
    """Apply a patch to a tree, without fuzz.

    :param tree: Where ``-p1`` starts.
    :param patch: The patch.
    :param what: What the tree is, for a person.
    :raise BuildError: When it does not apply; the tree is of no use then.
    """
    command = ["patch", "-p1", "--batch", "--forward", "--fuzz=0"]
    command += ["--no-backup-if-mismatch", "-r", "-", "-i", os.fspath(patch.absolute())]
    status, said = run_tool(command, cwd=tree)
    if status != 0:
        why = _refusal(said)
        raise BuildError(f"{patch.name} does not apply to {what}: {why}")


def strip(module: Path) -> None:
    """Remove what only a debugger reads from a module.

    :param module: The file, changed in place.
    :raise BuildError: When it is no module.
    """
    status, said = run_tool(["strip", "--strip-debug", os.fspath(module)])
    if status != 0:
        raise BuildError(f"cannot strip {module.name}: {first_error(said)}")


def patched_files(changes: bytes) -> list[str]:
    """Return the files that a patch touches, as ``-p1`` names them.

    :param changes: The patch.
    """
    text = changes.decode("utf-8", "surrogateescape")
    # A hunk may hold either line, but not one after the other.
    heads = re.findall(r"^--- ([^\t\n]+).*\n\+\+\+ ([^\t\n]+)", text, re.MULTILINE)
    names = (name for head in heads for name in head if name != "/dev/null")
    stripped = (name.partition("/")[2] for name in names)
    return sorted({name for name in stripped if name})


def first_error(lines: Sequence[str]) -> str:
    """Return the line that says why a build failed.

    :param lines: What it said.
    """
    for sign in (r"\berror\b", r"\*\*\*|\bundefined\b|not found", r"Error \d"):
        for line in lines:
            if re.search(sign, line):
                return line
    return lines[-1] if lines else "it said nothing"


def _refusal(lines: Sequence[str]) -> str:
    file = ""
    for line in lines:
        if line.startswith("patching file "):
            file = line.removeprefix("patching file ")
        elif "FAILED" in line or "can't find" in line or "previously applied" in line:
            return f"{file}: {line}" if file and "--" not in line else line
    return lines[-1] if lines else "patch said nothing"


def _environment(tree: Path, variables: Mapping[str, str]) -> dict[str, str]:
    kept = ("PATH", "HOME", "CCACHE_DIR", "TMPDIR")
    environment = {name: os.environ[name] for name in kept if name in os.environ}
    # Scratch folders have a new name each time, which ccache must not see.
    environment |= {"LC_ALL": "C", "CCACHE_BASEDIR": os.fspath(tree)}
    return environment | _ENVIRONMENT | dict(variables)


def _compiler() -> list[str]:
    if not shutil.which("ccache"):
        return []
    return ["CC=ccache gcc", "HOSTCC=ccache gcc"]


def _version(tool: str) -> str:
    if not shutil.which(tool):
        return ""
    return (run_tool([tool, "--version"])[1] or [""])[0]
