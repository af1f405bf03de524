# SPDX-License-Identifier: GPL-2.0-or-later
"""What the cache holds, and taking away what nobody has used for long.

Each kernel that is tried leaves files in the cache: :func:`contents` tells how many and
how large, :func:`prune` removes those of the past.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from viotest.errors import UsageError
from viotest.provision.cache import (
    MANIFEST,
    USERS_LOCK,
    cache_root,
    scratch,
    translated_errors,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_DAY = 24 * 3600


@dataclass(frozen=True)
class Holding:
    """One entry of the cache."""

    path: Path
    #: Bytes on the disk.
    size: int
    #: Days since it was used, to a day.
    idle: float

    @property
    def kind(self) -> str:
        """What it is: ``kernel``, ``initramfs``, ..."""
        return self.path.parent.name


def contents() -> list[Holding]:
    """Return the cache's entries, those of a kind together, the latest used first."""
    now = time.time()
    found = [
        Holding(
            path=manifest.parent,
            size=_size(manifest.parent),
            idle=(now - manifest.parent.stat().st_mtime) / _DAY,
        )
        for manifest in cache_root().glob(f"*/*/{MANIFEST}")
        if manifest.parent.parent.name != "tmp"
    ]
    return sorted(found, key=lambda holding: (holding.kind, holding.idle))


def prune(days: float) -> list[Holding]:
    """Remove the entries that nobody has used for some days.

    They are built or fetched again when they are wanted.

    :param days: At least one: use is recorded once a day.
    :return: What was removed.
    :raise UsageError: While another process uses the cache.
    :raise CacheError: When it cannot be written.
    """
    assert days >= 1
    with translated_errors(), _without_users():
        old = [holding for holding in contents() if holding.idle > days]
        with scratch() as folder:
            for number, holding in enumerate(old):
                holding.path.rename(folder / str(number))
    return old


@contextlib.contextmanager
def _without_users() -> Iterator[None]:
    folder = cache_root() / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / USERS_LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        what = f"another viotest process uses the cache {cache_root()}"
        raise UsageError(what, hint="try again when it has ended") from error
    finally:
        os.close(descriptor)


def _size(folder: Path) -> int:
    return sum(
        path.lstat().st_blocks * 512 for path in folder.rglob("*") if not path.is_dir()
    )
