# SPDX-License-Identifier: GPL-2.0-or-later
"""The folder that a run owns: checked before anything starts, made when it does."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING

from viotest.errors import UsageError
from viotest.scenario.model import Scenario

if TYPE_CHECKING:
    from collections.abc import Iterator

#: What a run writes at the most, beside the initramfs and the device's log (bytes).
_ROOM = 92 << 20
#: A record of the device's log.
_RECORD_SIZE = 64
#: What QEMU and the device need beside the guest's memory (MiB).
_OVERHEAD_MEM = 160


def check_out(out: Path | None, *, log_records: int = Scenario.log_records) -> None:
    """Refuse a run folder that could not be made; makes nothing.

    :param out: The folder that the user named; None: the default place.
    :param log_records: How many records the device's log is to keep.
    :raise UsageError: When it is there and not empty, its parent cannot be written,
        or the disk is too full.
    """
    path = out or default_parent()
    if out is not None and out.is_symlink():
        raise UsageError(f"--out {out}: is a symbolic link", hint="name its target")
    if out is not None and out.exists():
        if not out.is_dir():
            raise UsageError(f"--out {out}: is not a folder")
        if out.stat().st_uid != os.geteuid():
            raise UsageError(f"--out {out}: belongs to another user")
        if any(out.iterdir()):
            raise UsageError(f"--out {out}: is not empty", hint="name a new folder")
    existing = path
    while not existing.exists():
        existing = existing.parent
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise UsageError(f"--out {path}: {existing} cannot be written")
    free = shutil.disk_usage(existing).free
    needed = _ROOM + log_records * _RECORD_SIZE
    if free < needed:
        raise UsageError(
            f"--out {path}: too little disk: {free >> 20} MiB free",
            hint=f"a run needs {needed >> 20} MiB",
        )


def check_memory(scenario: Scenario, *, guests: int = 1) -> None:
    """Refuse guests that this host has not the memory for.

    :param guests: How many there are at once.
    :raise UsageError: When there is too little.
    """
    available = _available_mem()
    needed = guests * (scenario.mem + _OVERHEAD_MEM)
    if available is not None and needed > available:
        raise UsageError(
            f"--mem {scenario.mem}: too little memory: {available} MiB available",
            hint=f"a run needs {needed} MiB; --mem {max(available // 2, 192)} would do",
        )


def _available_mem() -> int | None:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) >> 10
    return None


def default_parent() -> Path:
    """Where runs go when the user names no folder."""
    return Path.cwd() / "viotest-runs"


def make_folder(out: Path | None, *, parent: Path | None = None) -> Path:
    """Make the run folder, mode 0700, and return its absolute path.

    :param out: The folder that the user named; None: a new one, called after the time.
    :param parent: Where that goes; default: where runs go.
    :raise UsageError: When it cannot be made.
    """
    try:
        if out is not None:
            out.mkdir(mode=0o700, parents=True, exist_ok=True)
            out.chmod(0o700)
            return out
        parent = parent or default_parent()
        parent.mkdir(parents=True, exist_ok=True)
        stamp = time.strftime("%Y%m%d-%H%M%S")
        for i in range(1000):
            folder = parent / (f"{stamp}-{i}" if i else stamp)
            try:
                folder.mkdir(mode=0o700)
            except FileExistsError:
                continue  # another run began in this second
            return folder
    except OSError as error:
        raise UsageError(f"--out {out}: {error.strerror}") from error
    raise UsageError(f"{parent}: a thousand runs in one second")


@contextlib.contextmanager
def kept_if_interrupted(folder: Path) -> Iterator[None]:
    """Let an interrupt say where what was recorded until then is.

    :param folder: The run folder, made.
    :raise KeyboardInterrupt: When one passes; its text is for the user.
    """
    try:
        yield
    except KeyboardInterrupt as interrupt:
        where = f"what was recorded until then is in {shown_path(folder)}"
        raise KeyboardInterrupt(where) from interrupt


def shown_path(path: Path) -> str:
    """Return a path as short as it can be typed from here."""
    with contextlib.suppress(ValueError):
        return os.fspath(path.relative_to(Path.cwd()))
    return os.fspath(path)
