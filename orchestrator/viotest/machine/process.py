# SPDX-License-Identifier: GPL-2.0-or-later
"""One child process: :class:`Process`.

Raises :class:`~viotest.machine.errors.LaunchError` and
:class:`~viotest.machine.errors.MachineError`; no OSError leaves this module.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import functools
import logging
import os
import shlex
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from viotest.machine.errors import LaunchError, MachineError
from viotest.machine.latch import wait_readable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from viotest.machine.folder import RunFolder

_LOG = logging.getLogger(__name__)

#: A killed process that is not gone after this hangs in the kernel.
_KILL_TIMEOUT = 10.0
_TAIL_SIZE = 8192


class Process:
    """A child that lives no longer than its owner.

    It runs in a session of its own: Ctrl-C goes to the orchestrator alone,
    which then ends its children in the right order.

    :param name: What people call it, as in "QEMU".
    :param argv: How to start it.
    :param folder: Its working directory.
    :param log: The file in the folder that takes stderr, and stdout unless piped.
    :param pipe_stdout: Keep stdout as a pipe, :attr:`stdout`.
    """

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        *,
        folder: RunFolder,
        log: str,
        pipe_stdout: bool = False,
    ) -> None:
        #: What people call it.
        self.name = name
        #: How it is started.
        self.argv = tuple(argv)
        self._folder = folder
        self._log = log
        self._pipe_stdout = pipe_stdout
        self._popen: subprocess.Popen[bytes] | None = None
        self._pidfd = -1

    def launch(self) -> None:
        """Start it.

        :raise LaunchError: When it cannot be executed.
        """
        assert self._popen is None, f"{self.name} was launched before"
        try:
            log = self._folder.open(
                self._log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND
            )
            try:
                self._popen = self._spawn(log)
            finally:
                os.close(log)
            self._pidfd = os.pidfd_open(self._popen.pid)
        except OSError as err:
            self.close()
            raise LaunchError(
                f"{self.name} cannot be started: {err.strerror}: {self.argv[0]}",
                argv=self.argv,
                status="did not start",
                output="",
            ) from err
        except BaseException:
            self.close()
            raise
        _LOG.debug("%s: pid %d: %s", self.name, self.pid, shlex.join(self.argv))

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def pidfd(self) -> int:
        """A descriptor that is readable once the process has ended."""
        assert self._pidfd >= 0, f"{self.name} is not running"
        return self._pidfd

    @property
    def stdout(self) -> int:
        """The reading end of its stdout."""
        pipe = self._process.stdout
        assert pipe is not None
        return pipe.fileno()

    @property
    def returncode(self) -> int | None:
        """Its exit status, minus the signal that killed it, or None."""
        return None if self._popen is None else self._popen.poll()

    @property
    def alive(self) -> bool:
        """Whether it was launched and has not ended."""
        return self._popen is not None and self._popen.poll() is None

    @property
    def status(self) -> str:
        """How it ended, in words: "was killed by SIGSEGV"."""
        if self._popen is None:
            return "did not start"
        returncode = self._popen.poll()
        if returncode is None:
            return "is running"
        return status_text(returncode)

    def state(self) -> str:
        """Return the kernel's state letter, "T" when stopped; empty when gone."""
        try:
            line = Path(f"/proc/{self.pid}/stat").read_bytes()
        except OSError:
            return ""
        # The name, in parentheses, may hold anything, parentheses too.
        fields = line.rpartition(b")")[2].split()
        return fields[0].decode("ascii", "replace") if fields else ""

    def log_tail(self) -> str:
        """Return the end of what it printed; empty when that cannot be read."""
        try:
            fd = self._folder.open(self._log, os.O_RDONLY)
        except OSError:
            return ""
        with os.fdopen(fd, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _TAIL_SIZE))
            return file.read(_TAIL_SIZE).decode("utf-8", "replace")

    def wait(self, timeout: float) -> int:
        """Wait for its end.

        :param timeout: Seconds.
        :return: As :attr:`returncode`.
        :raise MachineError: When it is still running.
        """
        process = self._process
        # A closed process has ended, and has no descriptor to wait for.
        if self._pidfd >= 0 and not wait_readable([self._pidfd], timeout):
            raise MachineError(f"{self.name} is still running after {timeout:g} s")
        return process.wait()

    def kill(self) -> None:
        """Kill it and wait for its end; harmless when it is gone.

        :raise MachineError: When the kernel cannot get rid of it.
        """
        if self.alive:
            self._process.kill()
            # A stopped process dies of SIGKILL too.
            self.wait(_KILL_TIMEOUT)

    def close(self) -> None:
        """Kill it and release everything; idempotent."""
        try:
            if self._popen is not None:
                self.kill()
        finally:
            if self._popen is not None and self._popen.stdout is not None:
                self._popen.stdout.close()
            if self._pidfd >= 0:
                os.close(self._pidfd)
                self._pidfd = -1

    @property
    def _process(self) -> subprocess.Popen[bytes]:
        assert self._popen is not None, f"{self.name} was not launched"
        return self._popen

    # Children ask the kernel to end them with their parent (pdeathsig), and
    # that fires when the *thread* that forked exits. So every child is forked
    # by one thread that lives as long as this process.
    def _spawn(self, log: int) -> subprocess.Popen[bytes]:
        future = _spawner().submit(
            subprocess.Popen,
            self.argv,
            cwd=self._folder.path,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if self._pipe_stdout else log,
            stderr=log,
            start_new_session=True,
        )
        try:
            return future.result()
        except BaseException:
            # Ctrl-C while the child starts: it must not be forgotten.
            if not future.cancel():
                future.add_done_callback(_discard)
            raise


def status_text(returncode: int) -> str:
    """Put an exit status in words.

    :param returncode: As of ``subprocess``: minus the signal when killed.
    """
    if returncode >= 0:
        return f"exited with status {returncode}"
    try:
        name = signal.Signals(-returncode).name
    except ValueError:
        name = f"signal {-returncode}"
    return f"was killed by {name}"


@functools.cache
def _spawner() -> concurrent.futures.ThreadPoolExecutor:
    return concurrent.futures.ThreadPoolExecutor(1, "viotest-spawn")


def _discard(future: concurrent.futures.Future[subprocess.Popen[bytes]]) -> None:
    with contextlib.suppress(OSError):
        if future.exception() is None:
            process = future.result()
            process.kill()
            process.wait()
