# SPDX-License-Identifier: GPL-2.0-or-later
"""QEMU: the host's own where it will do, else Debian's in a folder of the cache.

The main function is :func:`provide_qemu`. Errors: UsageError for a QEMU that was asked
for and cannot be used; UntestableError when none can be fetched.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from viotest.errors import UntestableError, UsageError
from viotest.provision import cache

if TYPE_CHECKING:
    from collections.abc import Mapping

    from viotest.provision.progress import Progress

BINARY = "qemu-system-x86_64"
#: The device that our IOMMU and endpoints are attached with.
CLIENT_DEVICE = "vfio-user-pci"
#: The oldest that is tested; see DESIGN.md 5.
TESTED_SINCE = (11, 1)
SUITE = "trixie-backports"
PACKAGE = "qemu-system-x86"
#: Part of the tree's key; goes up when what it holds changes.
RECIPE = 1
#: Where Debian's QEMU looks for firmware, below the tree.
_DATA = ("usr/share/qemu", "usr/share/seabios", "usr/lib/ipxe/qemu")
_LIBRARIES = "usr/lib/x86_64-linux-gnu"
_LOADER = "usr/lib64/ld-linux-x86-64.so.2"


@dataclass(frozen=True)
class Qemu:
    """A QEMU that can be started."""

    #: How it is started; its options follow.
    argv: tuple[str, ...]
    version: str
    #: ``PATH``, ``--qemu``, or the Debian suite it comes from.
    origin: str


@dataclass(frozen=True)
class Probe:
    """What a QEMU binary says about itself."""

    version: str
    has_client: bool

    @property
    def number(self) -> tuple[int, int]:
        """The first two parts of the version."""
        major, minor, *_ = (*self.version.split("."), "0", "0")
        return int(major), int(minor)


def provide_qemu(spec: str, progress: Progress) -> Qemu:
    """Return a QEMU with the vfio-user client.

    :param spec: ``auto``, or the path of a qemu-system binary.
    :param progress: Where long work is shown and warnings go.
    :raise UsageError: When the named binary cannot be used.
    :raise UntestableError: When Debian's cannot be fetched.
    """
    if spec == "auto":
        return _from_path(progress) or _from_debian(progress)
    found = shutil.which(spec)
    if found is None:
        why = "is not executable" if Path(spec).is_file() else "no such file"
        raise UsageError(f"--qemu {spec}: {why}", hint=_near(spec))
    path = Path(found).absolute()
    probe = _remembered(path)
    if not probe.has_client:
        what = f"QEMU {probe.version} ({spec}) has no {CLIENT_DEVICE}"
        raise UsageError(what, hint="it needs >= 10.1, built with vfio-user")
    _warn_if_untested(probe, path, progress)
    return Qemu((os.fspath(path),), probe.version, "--qemu")


def probe_qemu(argv: tuple[str, ...], name: str) -> Probe:
    """Ask a QEMU for its version and its devices.

    :param argv: How it is started.
    :param name: What to call it in an error.
    :raise UsageError: When it does not run or is no QEMU.
    """
    version = re.search(
        r"QEMU emulator version (\d+\.\d+[.\d]*)", _ask(argv, "--version", name)
    )
    if version is None:
        raise UsageError(f"{name} is not QEMU: --version does not say so")
    devices = _ask((*argv, "-machine", "none", "-device"), "help", name)
    return Probe(version[1].rstrip("."), f'name "{CLIENT_DEVICE}"' in devices)


def _from_path(progress: Progress) -> Qemu | None:
    found = shutil.which(BINARY)
    if found is None:
        return None
    path = Path(found).absolute()
    try:
        probe = _remembered(path)
    except UsageError as error:
        progress.warn(f"not using {path}: {error}")
        return None
    if not probe.has_client:
        return None
    _warn_if_untested(probe, path, progress)
    return Qemu((os.fspath(path),), probe.version, "PATH")


def _from_debian(progress: Progress) -> Qemu:
    entry = _provide_tree(progress)
    return Qemu(tree_argv(entry.path), entry.facts["version"], f"debian:{SUITE}")


def provide_tree(progress: Progress) -> Path:
    """Return the folder of Debian's QEMU, whichever one the host's machine is run by.

    :param progress: Where downloads are shown.
    :raise UntestableError: When it cannot be fetched.
    """
    return _provide_tree(progress).path


def _provide_tree(progress: Progress) -> cache.Entry:
    def build(folder: Path) -> Mapping[str, Any]:
        from viotest.provision.debian_qemu import unpack_debian_qemu

        unpack_debian_qemu(PACKAGE, SUITE, folder, progress)
        probe = probe_qemu(tree_argv(folder), "Debian's QEMU")
        if not probe.has_client:
            what = f"QEMU {probe.version} of Debian {SUITE} has no {CLIENT_DEVICE}"
            raise UntestableError(what)
        return {"version": probe.version}

    key = f"debian-{SUITE}-{RECIPE}"
    return cache.provide("qemu", key, build, progress, what="QEMU")


def tree_argv(tree: Path) -> tuple[str, ...]:
    """Return how to start QEMU from unpacked packages of another Debian release.

    :param tree: The folder that they were unpacked in.
    """
    # Its own loader and libraries: the host's C library may be older.
    loader = [f"{tree}/{_LOADER}", "--library-path", f"{tree}/{_LIBRARIES}"]
    start = [*loader, "--argv0", BINARY, f"{tree}/usr/bin/{BINARY}"]
    firmware = [word for folder in _DATA for word in ("-L", f"{tree}/{folder}")]
    return (*start, *firmware)


def _remembered(path: Path) -> Probe:
    identity = cache.file_identity(path.resolve())
    key = cache.digest_of(identity)
    memo = cache.read_memo("qemu-probes", key)
    match memo:
        case {"version": str(version), "has_client": bool(has_client)}:
            return Probe(version, has_client)
    probe = probe_qemu((os.fspath(path),), os.fspath(path))
    memo = {"version": probe.version, "has_client": probe.has_client}
    cache.write_memo("qemu-probes", key, memo)
    return probe


def _ask(argv: tuple[str, ...], option: str, name: str) -> str:
    command = [*argv, option]
    try:
        result = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=60,
            check=False,
        )
    except OSError as error:
        raise UsageError(f"{name} does not run: {error.strerror}") from error
    except subprocess.TimeoutExpired as error:
        raise UsageError(f"{name} does not answer to {option}") from error
    if result.returncode != 0:
        said = (result.stderr or result.stdout).strip().splitlines()
        hint = said[-1] if said else ""
        raise UsageError(f"{name} {option}: exit {result.returncode}", hint=hint)
    return result.stdout


def _warn_if_untested(probe: Probe, path: Path, progress: Progress) -> None:
    if probe.number < TESTED_SINCE:
        wanted = ".".join(map(str, TESTED_SINCE))
        progress.warn(
            f"QEMU {probe.version} ({path}) is untested: >= {wanted} is tested"
        )


def _near(spec: str) -> str:
    import difflib

    parent = Path(spec).parent
    if not parent.is_dir():
        return f"no folder {parent}"
    there = [path.name for path in parent.iterdir()]
    names = difflib.get_close_matches(Path(spec).name, there, n=1)
    return f"nearest: {parent / names[0]}" if names else "auto fetches one"
