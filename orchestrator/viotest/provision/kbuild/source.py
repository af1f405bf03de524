# SPDX-License-Identifier: GPL-2.0-or-later
"""Where a kernel's source comes from: Debian, a tarball, or a tree.

The main function is :func:`find_source`. Errors: UsageError for what is no kernel
source; :class:`~viotest.provision.apt.AptError` for a download.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from viotest.errors import UntestableError, UsageError
from viotest.provision import cache
from viotest.provision.kbuild.make import first_error, run_tool

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from viotest.provision.apt import AptSession, Deb
    from viotest.provision.progress import Progress

#: Sources that need no package name, and the package that each is.
PROVIDED = {
    "linux-7.3": "linux-source-7.3",
    "linux-6.12": "linux-source-6.12",
}
#: What the name of a package begins with where a source is wanted.
DEBIAN = "debian:"
#: Part of the keys of entries; goes up when what they hold changes.
RECIPE = 1
_PACKAGE = re.compile(r"linux-source-\d+\.\d+")
#: What makes a folder a kernel tree.
_LANDMARKS = ("Makefile", "Kbuild", "Kconfig", "scripts")
#: What a build leaves behind; `make mrproper` removes the rest from the copy.
_PRODUCTS = (".o", ".ko", ".a", ".cmd", ".mod", ".order")


class SourceError(UntestableError):
    """A kernel's source could not be read or unpacked."""


@dataclass(frozen=True)
class Source:
    """A kernel's source, not unpacked yet."""

    #: What the user asked for.
    spec: str
    #: Tells the content.
    digest: str
    #: Writes the tree into an empty folder.
    unpack: Callable[[Path], None]

    @property
    def name(self) -> str:
        """What a kernel built of it is called unless the user says otherwise."""
        return source_name(self.spec)


def find_source(spec: str, progress: Progress) -> Source:
    """Return a kernel's source, fetching what the cache does not have.

    :param spec: ``linux-7.3``, ``debian:linux-source-VERSION``, or the path of a
        tarball or of a tree.
    :param progress: Where long work is shown.
    :raise UsageError: When there is no such source.
    :raise UntestableError: When it cannot be fetched or read.
    """
    if spec in PROVIDED:
        return _debian_source(spec, PROVIDED[spec], progress)
    if spec.startswith(DEBIAN):
        package = spec.removeprefix(DEBIAN)
        if not _PACKAGE.fullmatch(package):
            what = f"{package!r} is no package of kernel source"
            raise UsageError(what, hint="as in debian:linux-source-6.12")
        return _debian_source(spec, package, progress)
    path = Path(spec)
    if path.is_dir():
        return _tree_source(spec, path, progress)
    if path.is_file():
        return _tarball_source(spec, path, progress)
    known = ", ".join((*PROVIDED, f"{DEBIAN}linux-source-VERSION"))
    hint = f"known: {known}; or the path of a tarball or a kernel tree"
    raise UsageError(f"no kernel source {spec}", hint=hint)


def source_name(spec: str) -> str:
    """Return what a kernel built of a source is called unless the user says.

    :param spec: As :func:`find_source` takes it.
    """
    if spec in PROVIDED:
        return spec
    if spec.startswith(DEBIAN):
        return spec.removeprefix(DEBIAN).replace("-source", "")
    path = Path(spec)
    if path.is_dir():
        return path.resolve().name
    return re.sub(r"\.(tar(\.\w+)?|t[gx]z)$", "", path.name)


def require_tree(tree: Path, spec: str) -> None:
    """Require that a folder is the top of a kernel tree.

    :param tree: The folder.
    :param spec: What the user called it.
    :raise UsageError: When it is not; says what is missing.
    """
    for name in _LANDMARKS:
        if not (tree / name).exists():
            what = f"{spec} is no kernel source: no {name} at its top"
            raise UsageError(what, hint="wanted: the top folder of a Linux tree")
    head = (tree / "Makefile").read_text("utf-8", "replace")[:2000]
    if not re.search(r"^VERSION = \d+$", head, re.MULTILINE):
        raise UsageError(f"{spec} is no kernel source: its Makefile has no VERSION")


# -- Debian


def _debian_source(spec: str, package: str, progress: Progress) -> Source:
    def build(folder: Path) -> Mapping[str, Any]:
        from viotest.provision.apt import Apt
        from viotest.provision.debs import unpack

        with cache.scratch() as tmp:
            with Apt(progress).session() as apt:
                deb = _find_package(apt, package)
                files = apt.fetch([deb], tmp, f"{package} {deb.version}")
            with progress.step(f"unpacking {package}"):
                unpack(files, tmp / "tree", lambda name: name.startswith("usr/src/"))
                (archive,) = (tmp / "tree/usr/src").glob("linux-source-*.tar.*")
                archive.rename(folder / archive.name)
        digest = _sha256(folder / archive.name)
        return {"version": deb.version, "archive": archive.name, "sha256": digest}

    key = f"{package}-{RECIPE}"
    entry = cache.provide("kernel-source", key, build, progress, what=package)
    archive = entry.path / entry.facts["archive"]
    return Source(spec, entry.facts["sha256"], _untar(archive, spec, progress))


def _find_package(apt: AptSession, package: str) -> Deb:
    from viotest.provision.apt import SUITES, AptError

    for suite in SUITES:
        try:
            return apt.candidates([package], suite)[0]
        except AptError as error:
            last = error
    raise last


# -- tarballs


def _tarball_source(spec: str, path: Path, progress: Progress) -> Source:
    try:
        identity = cache.file_identity(path.resolve())
        key = cache.digest_of(RECIPE, identity)
        digest = (cache.read_memo("kernel-tarball", key) or {}).get("sha256")
        if digest is None:
            digest = _sha256(path)
            cache.write_memo("kernel-tarball", key, {"sha256": digest})
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    return Source(spec, str(digest), _untar(path, spec, progress))


def _untar(archive: Path, spec: str, progress: Progress) -> Callable[[Path], None]:
    def unpack(folder: Path) -> None:
        # GNU tar finds the compression by itself, and refuses names that leave the
        # folder.
        command = ["tar", "-C", os.fspath(folder), "--no-same-owner"]
        command += ["--strip-components=1", "-xf", os.fspath(archive.absolute())]
        with progress.step(f"unpacking {archive.name}"):
            status, said = run_tool(command)
        if status != 0:
            what = f"{spec} is no tarball of kernel source: {first_error(said)}"
            raise UsageError(what)
        require_tree(folder, spec)

    return unpack


# -- trees


def _tree_source(spec: str, path: Path, progress: Progress) -> Source:
    require_tree(path, spec)
    with progress.step(f"reading {path}"):
        files = _tree_files(path)
        digest = _tree_digest(path, files)

    def unpack(folder: Path) -> None:
        with progress.step(f"copying {path}") as step:
            for nr, name in enumerate(files):
                target = folder / name
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(path / name, target, follow_symlinks=False)
                if nr % 500 == 0:
                    step.update(nr, len(files))

    return Source(spec, digest, unpack)


def _tree_files(path: Path) -> list[str]:
    # git knows what is source and what was built, down to the last generated header.
    command = ["git", "-C", os.fspath(path), "ls-files", "-z", "-co"]
    command += ["--exclude-standard"]
    if (path / ".git").exists() and shutil.which("git"):
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, check=False
        )
        if done.returncode == 0:
            names = sorted({os.fsdecode(name) for name in done.stdout.split(b"\0")})
            # A file may be deleted and not yet committed.
            return [name for name in names if name and os.path.lexists(path / name)]
    found = []
    for where, folders, names in os.walk(path):
        folders[:] = sorted(set(folders) - {".git"})
        top = Path(where).relative_to(path)
        found += [str(top / name) for name in names if not name.endswith(_PRODUCTS)]
    return sorted(found)


def _tree_digest(path: Path, files: list[str]) -> str:
    state = hashlib.sha256()
    for name in files:
        file = path / name
        try:
            is_link = file.is_symlink()
            data = os.fsencode(file.readlink()) if is_link else file.read_bytes()
            executable = file.lstat().st_mode & 0o100
        except OSError as error:
            raise SourceError(f"cannot read {file}: {error.strerror}") from error
        head = f"{name}\0{is_link}{executable}{len(data)}\0"
        state.update(head.encode("utf-8", "surrogateescape") + data)
    return state.hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
