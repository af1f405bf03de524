# SPDX-License-Identifier: GPL-2.0-or-later
"""The life of a process that has a monitor: :class:`ProcessOwner`."""

from __future__ import annotations

import abc
import contextlib
import enum
import logging
import time
from typing import TYPE_CHECKING, Self

from viotest.machine.errors import (
    AbnormalShutdownError,
    LaunchError,
    MachineError,
    MonitorError,
)
from viotest.machine.latch import wait_readable

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType

    from viotest.machine.process import Process
    from viotest.machine.qmp import Monitor

_LOG = logging.getLogger(__name__)

# Between the end of a connection and that of the process behind it.
_EXIT_GRACE = 0.3


class State(enum.Enum):
    """Where a process is in its life."""

    #: Not launched yet, or over.
    IDLE = "idle"
    LAUNCHING = "launching"
    RUNNING = "running"
    STOPPING = "stopping"


class ProcessOwner(abc.ABC):
    """Launches one process and makes sure that it ends.

    As a context manager it shuts the process down, or kills it without asking
    when an exception passes, so that the exception is not masked.

    :param process: The process, not launched.
    :param monitor: Its monitor, not connected.
    """

    #: How long the process may take to end when it leaves the context.
    SHUTDOWN_TIMEOUT = 10.0

    def __init__(self, process: Process, monitor: Monitor) -> None:
        #: The process.
        self.process = process
        #: Its monitor; connected while the state is RUNNING.
        self.monitor = monitor
        self._state = State.IDLE
        self._resources = contextlib.ExitStack()

    @property
    def state(self) -> State:
        """Where the process is in its life."""
        return self._state

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if exc_type is None:
            self.shutdown(timeout=self.SHUTDOWN_TIMEOUT)
        else:
            self.kill()

    def launch(self, *, timeout: float, abort: Iterable[int] = ()) -> None:
        """Start the process, and wait until its monitor answers.

        :param timeout: Seconds.
        :param abort: Descriptors that end the attempt when readable.
        :raise LaunchError: When it does not come up; everything is undone then.
        """
        assert self._state is State.IDLE
        self._set_state(State.LAUNCHING)
        try:
            self._resources.callback(self.monitor.close)
            self._launch(time.monotonic() + timeout, tuple(abort))
        except BaseException as err:
            failure = self._launch_error(err)
            self._release()
            if failure is None:
                raise
            raise failure from err
        self._set_state(State.RUNNING)

    def shutdown(self, *, timeout: float) -> None:
        """Ask the process to end, and wait until it has; idempotent.

        :param timeout: Seconds; then it is killed.
        :raise AbnormalShutdownError: When it had to be killed, or ended badly.
        """
        if self._state is not State.RUNNING:
            return
        self._set_state(State.STOPPING)
        try:
            # One that ended before is somebody else's news: the watch's.
            if self.process.alive:
                self._ask_and_wait(time.monotonic() + timeout, timeout)
        finally:
            self._release()

    def kill(self) -> None:
        """End the process without asking; idempotent."""
        if self._state is not State.IDLE:
            self._set_state(State.STOPPING)
            self._release()

    @abc.abstractmethod
    def _launch(self, deadline: float, abort: tuple[int, ...]) -> None:
        """Start the process and connect the monitor."""

    def _ask_and_wait(self, deadline: float, timeout: float) -> None:
        name = self.process.name
        try:
            self.monitor.execute("quit", timeout=timeout)
        except MonitorError as err:
            # Ending is a fine answer to "quit"; whether it did is seen below.
            _LOG.debug("%s: %s", name, err)
        try:
            returncode = self.process.wait(deadline - time.monotonic())
        except MachineError as err:
            self.process.kill()
            what = f"{name} did not end within {timeout:g} s of being asked to"
            raise AbnormalShutdownError(what) from err
        if returncode:
            what = f"{name} {self.process.status} when asked to end"
            raise AbnormalShutdownError(what)

    # The process knows better than the connection to it what went wrong.
    def _launch_error(self, err: BaseException) -> LaunchError | None:
        if isinstance(err, LaunchError) or not isinstance(err, MachineError | OSError):
            return None
        what = f"{self.process.name}: {err}"
        if self.process.alive:
            wait_readable([self.process.pidfd], _EXIT_GRACE)
        if self.process.returncode is not None:
            what = f"{self.process.name} {self.process.status} while starting"
        return LaunchError(
            what,
            argv=self.process.argv,
            status=self.process.status,
            output=self.process.log_tail(),
        )

    def _release(self) -> None:
        try:
            # First of all: its end closes the connections, and the console can
            # be read to its last byte.
            self.process.close()
        finally:
            self._resources.close()
            self._set_state(State.IDLE)

    def _set_state(self, state: State) -> None:
        _LOG.debug("%s: %s -> %s", self.process.name, self._state.name, state.name)
        self._state = state
