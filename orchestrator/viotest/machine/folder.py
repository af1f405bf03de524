# SPDX-License-Identifier: GPL-2.0-or-later
"""A run's folder, reached through a descriptor.

A UNIX socket address holds 108 bytes, a run folder may lie deeper. Children run
with the folder as working directory and use relative names; this process, which
may own several runs at once, goes through ``/proc/self/fd`` instead of chdir.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType


class RunFolder:
    """The folder of one run; owns every socket and FIFO that appears in it.

    :param path: An existing folder.
    :raise OSError: When it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        #: The folder, absolute: the working directory of the children.
        self.path = path.absolute()
        self._fd = os.open(self.path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._held: dict[str, int] = {}

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def listen(self, name: str) -> socket.socket:
        """Return a socket that listens under a name in the folder.

        :param name: The file name.
        :raise OSError: When the name is taken, or cannot be made.
        """
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.bind(self._address(name))
            sock.listen(1)
        except BaseException:
            sock.close()
            raise
        return sock

    def connect(self, name: str) -> socket.socket:
        """Return a socket connected to a name in the folder, or to a held one.

        :param name: The file name.
        :raise OSError: When nothing listens there.
        """
        held = self._held.get(name)
        address = self._address(name) if held is None else f"/proc/self/fd/{held}"
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.connect(address)
        except BaseException:
            sock.close()
            raise
        return sock

    def hold(self, name: str) -> None:
        """Remove a socket's name, but keep the way to connect to it.

        Nothing is left behind then, not even by SIGKILL.

        :param name: The file name of a socket on which another process listens.
        :raise OSError: When there is none.
        """
        assert name not in self._held
        flags = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
        self._held[name] = os.open(name, flags, dir_fd=self._fd)
        self.unlink(name)

    def make_fifo(self, name: str) -> None:
        """Make a FIFO that only our user may open.

        :param name: The file name.
        :raise OSError: When the name is taken, or cannot be made.
        """
        os.mkfifo(name, 0o600, dir_fd=self._fd)

    def open(self, name: str, flags: int) -> int:
        """Open a file of the folder, never through a symbolic link.

        :param name: The file name.
        :param flags: As for ``os.open()``; new files get mode 0600.
        :raise OSError: When it cannot be opened.
        """
        flags |= os.O_CLOEXEC | os.O_NOFOLLOW
        return os.open(name, flags, 0o600, dir_fd=self._fd)

    def unlink(self, name: str) -> None:
        """Remove a name; one that is not there is fine."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self._fd)

    def close(self) -> None:
        """Remove every socket and FIFO of the folder, and let go of it; idempotent."""
        if self._fd < 0:
            return
        try:
            self._sweep()
        finally:
            for fd in (self._fd, *self._held.values()):
                os.close(fd)
            self._held.clear()
            self._fd = -1

    def _address(self, name: str) -> str:
        assert self._fd >= 0, "the folder is closed"
        assert "/" not in name
        return f"/proc/self/fd/{self._fd}/{name}"

    # Children that were killed leave theirs behind, so look instead of
    # keeping a list.
    def _sweep(self) -> None:
        try:
            names = [p.name for p in Path(f"/proc/self/fd/{self._fd}").iterdir()]
        except FileNotFoundError:
            return  # the folder itself was removed
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                status = os.stat(name, dir_fd=self._fd, follow_symlinks=False)
                if stat.S_ISSOCK(status.st_mode) or stat.S_ISFIFO(status.st_mode):
                    os.unlink(name, dir_fd=self._fd)
