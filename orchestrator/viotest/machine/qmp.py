# SPDX-License-Identifier: GPL-2.0-or-later
"""Monitors: QEMU's and the device's, which speak one protocol.

:class:`MonitorLoop` owns the asyncio side in one thread; :class:`Monitor` is what
the rest of viotest sees, plain blocking calls. Only
:class:`~viotest.machine.errors.MonitorError` leaves this module.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from typing import TYPE_CHECKING, TypeVar

from qemu.qmp import EventListener, ExecuteError, QMPClient, QMPError, Runstate

from viotest.machine.errors import MonitorError
from viotest.machine.latch import Latch, wait_readable
from viotest.machine.record import ignore

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Coroutine, Iterable, Mapping

    from qemu.qmp.message import Message

    from viotest.machine.record import Recorder

_LOG = logging.getLogger(__name__)
_T = TypeVar("_T")

# What a peer can make asyncio and qemu.qmp raise; ValueError is a line above
# the reader's limit.
_PEER_ERRORS = (QMPError, OSError, EOFError, ValueError)


class MonitorLoop:
    """The event loop of all monitors of a run, in a thread of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="viotest-monitor", daemon=True
        )
        self._thread.start()

    def run(
        self,
        coroutine: Coroutine[object, object, _T],
        *,
        timeout: float,
        abort: Iterable[int] = (),
    ) -> _T:
        """Run a coroutine in the loop, and wait for it.

        :param coroutine: What to run.
        :param timeout: Seconds.
        :param abort: Descriptors that end the waiting when readable.
        :return: What the coroutine returns; what it raises is raised here.
        :raise TimeoutError: When the time is over.
        :raise ConnectionAbortedError: When an abort descriptor is ready.
        """
        done = Latch()
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        future.add_done_callback(lambda _: done.set())
        try:
            ready = wait_readable([done.fileno(), *abort], timeout)
            if not ready:
                raise TimeoutError
            if done.fileno() not in ready:
                raise ConnectionAbortedError("given up")
            return future.result()
        finally:
            # Without effect on one that is done; Ctrl-C comes here too.
            future.cancel()
            done.close()

    def close(self) -> None:
        """Cancel what still runs, and end the thread; idempotent."""
        if self._loop.is_closed():
            return
        if self._thread.is_alive():
            asyncio.run_coroutine_threadsafe(_cancel_all(), self._loop).result()
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
        self._loop.close()


async def _cancel_all() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


class Monitor:
    """One connection that speaks QMP, used by blocking calls.

    :param name: The source of its events in the record: "qmp", "device".
    :param loop: Where it runs.
    :param record: Takes every event.
    :param on_event: Takes name and data of every event, in the loop's thread.
    """

    def __init__(
        self,
        name: str,
        loop: MonitorLoop,
        *,
        record: Recorder = ignore,
        on_event: Callable[[str, Mapping[str, object]], None] | None = None,
    ) -> None:
        self._name = name
        self._loop = loop
        self._record = record
        self._on_event = on_event
        self._client = QMPClient(name)
        self._connected = False
        self._follower: asyncio.Task[None] | None = None
        #: Set when the peer is gone.
        self.closed = Latch()

    def connect(
        self, sock: socket.socket, *, timeout: float, abort: Iterable[int] = ()
    ) -> None:
        """Begin a session; may be called once.

        :param sock: A connected socket; it is the monitor's from now on.
        :param timeout: Seconds.
        :param abort: Descriptors that end the waiting when readable.
        :raise MonitorError: When there is no session; the monitor is then closed.
        """
        try:
            sock.setblocking(False)
            self._loop.run(self._connect(sock), timeout=timeout, abort=abort)
        except TimeoutError as err:
            what = f"{self._name} monitor: no session within {timeout:.3g} s"
            raise MonitorError(what) from err
        except _PEER_ERRORS as err:
            raise MonitorError(f"{self._name} monitor: {_reason(err)}") from err
        self._connected = True

    def execute(
        self,
        command: str,
        arguments: Mapping[str, object] | None = None,
        *,
        timeout: float,
        abort: Iterable[int] = (),
    ) -> object:
        """Execute a command.

        :param command: Its name.
        :param arguments: Its arguments.
        :param timeout: Seconds.
        :param abort: Descriptors that end the waiting when readable.
        :return: The member "return" of the answer.
        :raise MonitorError: When the peer refuses, is gone, or does not answer.
        """
        try:
            call = self._client.execute(command, arguments)
            return self._loop.run(call, timeout=timeout, abort=abort)
        except ExecuteError as err:
            raise MonitorError(
                f"{self._name} monitor: {command}: {err}",
                command=command,
                error_class=err.error_class,
            ) from err
        except TimeoutError as err:
            what = f"{self._name} monitor: {command}: no answer within {timeout:.3g} s"
            raise MonitorError(what, command=command) from err
        except _PEER_ERRORS as err:
            what = f"{self._name} monitor: {command}: {_reason(err)}"
            raise MonitorError(what, command=command) from err

    def close(self) -> None:
        """End the session; idempotent, and harmless when the peer is gone."""
        if self._connected:
            self._connected = False
            try:
                self._loop.run(self._disconnect(), timeout=1.0)
            except _PEER_ERRORS as err:
                # The loop's close() cancels whatever is left.
                _LOG.debug("%s monitor: close: %s", self._name, _reason(err))
        self.closed.set()
        self.closed.close()

    async def _connect(self, sock: socket.socket) -> None:
        # A filter that takes nothing: an EventListener otherwise keeps every
        # event for its history, without limit, and hands it on a task later.
        self._client.register_listener(EventListener(event_filter=self._take))
        try:
            await self._client.connect(sock)
        except BaseException:
            # Here, not in connect(): the loop may still use it after a timeout.
            sock.close()
            raise
        self._follower = asyncio.create_task(self._follow())

    # Notices the end of the session.
    async def _follow(self) -> None:
        try:
            while self._client.runstate is Runstate.RUNNING:
                await self._client.runstate_changed()
        finally:
            self.closed.set()

    async def _disconnect(self) -> None:
        try:
            # Raises what ended the session, when it ended by itself.
            await self._client.disconnect()
        finally:
            if self._follower is not None:
                self._follower.cancel()

    def _take(self, message: Message) -> bool:
        time_ns = time.monotonic_ns()
        name = str(message.get("event"))
        data = message.get("data")
        if not isinstance(data, dict):
            data = {}
        self._record(self._name, name, data, time_ns)
        if self._on_event is not None:
            self._on_event(name, data)
        return False


def _reason(err: BaseException) -> str:
    cause = getattr(err, "exc", err)
    if isinstance(cause, EOFError):
        return "the connection was closed"
    return " ".join(str(err).split()) or type(err).__name__
