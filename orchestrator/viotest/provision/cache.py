# SPDX-License-Identifier: GPL-2.0-or-later
"""The cache on disk: entries that are complete or absent, shared by processes.

An entry is a folder ``<root>/<kind>/<key>``. It is built in a scratch folder beside,
flushed, and renamed into place, so a crash at any time leaves no half entry. One
process builds while others wait on a lock. A manifest tells a damaged entry, which is
rebuilt. Memos are small JSON answers about files outside of the cache.

The time of an entry's folder is that of its last use, to a day. Whoever looked for one
holds :data:`USERS_LOCK`, shared, until the process ends: :mod:`viotest.provision.prune`
takes nothing away from anybody.

Errors: :class:`CacheError`; :class:`~viotest.errors.UsageError` for too little disk.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from viotest.errors import UntestableError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from viotest.provision.progress import Progress

MANIFEST = ".manifest.json"
#: Below ``locks``.
USERS_LOCK = ".users"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+~-]*")
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_DENIED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR})
#: Seconds. More often is of no use, and each is a write.
_USE_RECORDED_EVERY = 24 * 3600


class CacheError(UntestableError):
    """The cache cannot be read or written."""


@dataclass(frozen=True)
class Entry:
    """A complete entry: its folder, and what its builder said about it."""

    path: Path
    facts: Mapping[str, Any]


def cache_root() -> Path:
    """Return the cache's folder, which need not exist yet.

    :return: ``$VIOTEST_CACHE``, ``$XDG_CACHE_HOME/viotest`` or ``~/.cache/viotest``.
    :raise CacheError: When none of them is known.
    """
    if own := os.environ.get("VIOTEST_CACHE"):
        return Path(own).absolute()
    xdg = os.environ.get("XDG_CACHE_HOME", "")
    if xdg.startswith("/"):
        return Path(xdg, "viotest")
    try:
        return Path.home() / ".cache" / "viotest"
    except RuntimeError as error:
        raise CacheError("no home folder", hint="set VIOTEST_CACHE") from error


def require_space(path: Path, size: int) -> None:
    """Require free disk space before something large is written.

    :param path: A file or folder on the disk; need not exist.
    :param size: Bytes needed.
    :raise UsageError: When fewer bytes are free.
    """
    there = path.absolute()
    while not there.exists():
        there = there.parent
    stat = os.statvfs(there)
    free = stat.f_bavail * stat.f_frsize
    if free < size:
        what = f"too little disk: {_mib(free)} free at {path}, {_mib(size)} needed"
        raise UsageError(what, hint="free some, or set VIOTEST_CACHE")


def digest_of(*parts: object) -> str:
    """Return a short stable key for a sequence of values.

    :param parts: Values whose ``repr`` identifies them; bytes are taken as they are.
    :return: 24 hexadecimal digits.
    """
    state = hashlib.sha256()
    for part in parts:
        data = part if isinstance(part, bytes) else repr(part).encode()
        state.update(b"%d:" % len(data) + data)
    return state.hexdigest()[:24]


def file_identity(path: Path) -> list[object]:
    """Return what tells that a file outside of the cache has changed.

    :param path: An existing file.
    :return: Its name, size and times; JSON keeps the value.
    :raise OSError: When the file cannot be looked at.
    """
    stat = path.stat()
    return [os.fspath(path), stat.st_size, stat.st_mtime_ns, stat.st_ino]


def provide(
    kind: str,
    key: str,
    build: Callable[[Path], Mapping[str, Any]],
    progress: Progress,
    *,
    what: str,
) -> Entry:
    """Return an entry, building it when it is absent or damaged.

    :param kind: Folder of the cache.
    :param key: Name of the entry, made of what its content follows from.
    :param build: Fills an empty folder and returns facts that JSON can keep.
    :param progress: Told when another process is waited for.
    :param what: What the entry is, for a person.
    :return: The entry. Its files may be used until the process ends.
    :raise CacheError: When the cache is full or cannot be written.
    """
    path = cache_root() / _checked(kind) / _checked(key)
    _USERS.join(cache_root())
    entry = _load(path)
    if entry is not None:
        return entry
    with translated_errors(), lock(f"{kind}-{key}", progress, what=what):
        # Whoever held the lock may have built what we want.
        return _load(path) or _build(path, build)


def find(kind: str, key: str) -> Entry | None:
    """Return an entry that is there and whole, or None.

    :param kind: Folder of the cache.
    :param key: Name of the entry.
    """
    _USERS.join(cache_root())
    return _load(cache_root() / _checked(kind) / _checked(key))


class _Users:
    """This process's share of the users' lock of one cache."""

    def __init__(self) -> None:
        self._root: Path | None = None
        self._descriptor = -1

    def join(self, root: Path) -> None:
        """Hold a share until the process ends, or uses another cache."""
        if self._root == root:
            return
        if self._root is not None:
            os.close(self._descriptor)
            self._root = None
        # A cache that we cannot write is not ours to tidy; what is not there yet, a
        # later look joins.
        with contextlib.suppress(OSError):
            path = root / "locks" / USERS_LOCK
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
            self._root = root
            fcntl.flock(self._descriptor, fcntl.LOCK_SH)


_USERS = _Users()


@contextlib.contextmanager
def lock(name: str, progress: Progress, *, what: str) -> Iterator[None]:
    """Hold a lock against other processes that use this cache.

    :param name: The lock's name.
    :param progress: Told when the lock is taken by someone else.
    :param what: What the lock is for, for a person.
    """
    folder = cache_root() / "locks"
    with translated_errors():
        folder.mkdir(parents=True, exist_ok=True)
        # Lock files stay: removing one while another process opens it breaks the lock.
        descriptor = os.open(
            folder / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
        )
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress.note(f"waiting for another viotest process: {what}")
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """Make a folder in the cache that is gone afterwards, also after a crash.

    The folder's own lock tells whether its maker is alive: process ids do not, because
    containers may share a cache.
    """
    parent = cache_root() / "tmp"
    parent.mkdir(parents=True, exist_ok=True)
    gate = os.open(parent / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(gate, fcntl.LOCK_EX)
        _sweep(parent)
        path = parent / os.urandom(8).hex()
        path.mkdir(mode=0o700)
        alive = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        fcntl.flock(alive, fcntl.LOCK_EX)
    finally:
        os.close(gate)
    try:
        yield path
    finally:
        _remove(path)
        os.close(alive)


def read_memo(kind: str, key: str) -> Mapping[str, Any] | None:
    """Return a remembered answer, or None when there is none that can be read."""
    path = cache_root() / _checked(kind) / f"{_checked(key)}.json"
    try:
        memo = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return memo if isinstance(memo, dict) else None


def memos(kind: str) -> dict[str, Mapping[str, Any]]:
    """Return every answer of a kind that can be read, by name.

    :param kind: Folder of the cache.
    """
    names = [path.stem for path in (cache_root() / _checked(kind)).glob("*.json")]
    found = ((name, read_memo(kind, name)) for name in sorted(names))
    return {name: memo for name, memo in found if memo is not None}


def write_memo(kind: str, key: str, memo: Mapping[str, Any]) -> None:
    """Remember an answer.

    :param kind: Folder of the cache.
    :param key: Name of the memo.
    :param memo: What JSON can keep.
    :raise CacheError: When the cache is full or cannot be written.
    """
    path = cache_root() / _checked(kind) / f"{_checked(key)}.json"
    with translated_errors(), scratch() as folder:
        draft = folder / "memo"
        draft.write_text(json.dumps(memo), encoding="utf-8")
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.rename(path)


@contextlib.contextmanager
def translated_errors() -> Iterator[None]:
    """Turn a full or unwritable cache into a :class:`CacheError`."""
    try:
        yield
    except OSError as error:
        root = cache_root()
        if error.errno in _FULL:
            hint = "free some, or set VIOTEST_CACHE"
            raise CacheError(f"the disk of {root} is full", hint=hint) from error
        if error.errno in _DENIED and str(error.filename).startswith(os.fspath(root)):
            what = f"cannot write the cache {root}: {error.strerror}"
            raise CacheError(what, hint="set VIOTEST_CACHE") from error
        raise


def _mib(size: int) -> str:
    return f"{size >> 20} MiB"


def _checked(name: str) -> str:
    assert _NAME.fullmatch(name), name
    return name


def _build(path: Path, build: Callable[[Path], Mapping[str, Any]]) -> Entry:
    with scratch() as folder:
        draft = folder / "entry"
        draft.mkdir()
        facts = dict(build(draft))
        files = {os.path.relpath(file, draft): _record(file) for file in _files(draft)}
        text = json.dumps({"files": files, "facts": facts}, sort_keys=True)
        (draft / MANIFEST).write_text(text, encoding="utf-8")
        _flush([*_files(draft), draft])
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            path.rename(folder / "damaged")
        draft.rename(path)
        _flush([path.parent])
    return Entry(path, facts)


def _record(path: Path) -> list[object]:
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns, _sha256(path)]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _files(folder: Path) -> Iterator[Path]:
    for where, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            path = Path(where, name)
            if not path.is_symlink():
                yield path


def _flush(paths: Iterable[Path]) -> None:
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _load(path: Path) -> Entry | None:
    # Anything unexpected in the manifest means damage, whatever its shape.
    try:
        manifest = json.loads((path / MANIFEST).read_bytes())
        whole = all(
            _intact(path, name, *record) for name, record in manifest["files"].items()
        )
        facts = dict(manifest["facts"])
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
    if not whole:
        return None
    _record_use(path)
    return Entry(path, facts)


def _record_use(path: Path) -> None:
    # Not in a cache that is only read.
    with contextlib.suppress(OSError):
        if time.time() - path.stat().st_mtime > _USE_RECORDED_EVERY:
            os.utime(path)


def _intact(folder: Path, name: str, size: int, mtime_ns: int, digest: str) -> bool:
    path = f"{folder}/{name}"
    stat = os.lstat(path)
    if stat.st_size != size:
        return False
    if stat.st_mtime_ns == mtime_ns:
        return True
    if _sha256(Path(path)) != digest:
        return False
    # A copied cache: put the time back so that the next look is cheap. Where that is
    # not allowed the look stays slow, and right.
    with contextlib.suppress(PermissionError):
        os.utime(path, ns=(mtime_ns, mtime_ns))
    return True


def _sweep(parent: Path) -> None:
    # Called under the gate lock, so a folder without a lock has no living maker.
    for path in parent.iterdir():
        if not path.is_dir():
            continue
        # Its maker may be removing it right now.
        with contextlib.suppress(BlockingIOError, FileNotFoundError):
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _remove(path)
            finally:
                os.close(descriptor)


def _remove(path: Path) -> None:
    # Imported late: it drags in the compression modules.
    import shutil

    shutil.rmtree(path)
