# SPDX-License-Identifier: GPL-2.0-or-later
"""The monitor: QMP's wire protocol, so that qemu.qmp and its shell drive us too.

:class:`Monitor` answers commands from a table and broadcasts the records of the
request log as events. It runs in asyncio, on no device thread: however slow a
client is, no request of a guest waits for it.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from viotest_device import core as core_module
from viotest_device.core import Core, CoreError
from viotest_device.inject import RuleError, parse_rule
from viotest_device.qmp_stream import JsonStream, StreamError

if TYPE_CHECKING:
    from viotest_device.core import Record

_log = logging.getLogger(__name__)

#: Record kinds that become an event without being asked for, with its name.
EVENTS = {
    "attach": "ENDPOINT_ATTACHED",
    "detach": "ENDPOINT_DETACHED",
    "fault": "FAULT",
    "fault-dropped": "FAULT_DROPPED",
    "reset": "RESET",
    "client-attached": "CLIENT_ATTACHED",
    "client-gone": "CLIENT_GONE",
    "device-status": "DEVICE_STATUS",
    "bus-master": "BUS_MASTER",
}

#: Bytes that may wait for a client that does not read; then it is dropped.
_MAX_BACKLOG = 4 << 20

Arguments = Mapping[str, object]
Handler = Callable[[Arguments], object]


class CommandError(Exception):
    """A command that cannot be carried out, in QMP's terms.

    :param desc: What is wrong, one sentence.
    :param error_class: ``GenericError`` or ``CommandNotFound``.
    """

    def __init__(self, desc: str, error_class: str = "GenericError") -> None:
        super().__init__(desc)
        self.desc = desc
        self.error_class = error_class


class Monitor:
    """A QMP server over one UNIX socket, for any number of clients.

    :param core: The device to show and to steer.
    :param path: The socket, made by :meth:`start`.
    """

    def __init__(self, core: Core, path: str) -> None:
        self._core = core
        self._path = path
        self._server: asyncio.Server | None = None
        self._clients: dict[asyncio.StreamWriter, bool] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._traced = frozenset(EVENTS)
        self._lost = 0
        self._started = time.monotonic()
        #: Set when a client has asked for the end.
        self.quit = asyncio.Event()
        self._commands: dict[str, Handler] = {
            "query-commands": self.handle_query_commands,
            "query-status": self.handle_query_status,
            "query-version": lambda _: _version(),
            "query-endpoints": lambda _: core.query_endpoints(),
            "query-domains": lambda _: core.query_domains(),
            "query-stats": lambda _: core.counters(),
            "query-mutants": self.handle_query_mutants,
            "set-mutant": self.handle_set_mutant,
            "inject-add": self.handle_inject_add,
            "inject-list": lambda _: core.inject_list(),
            "inject-remove": self.handle_inject_remove,
            "query-trace": lambda _: {"kinds": sorted(self._traced)},
            "set-trace": self.handle_set_trace,
            "quit": self.handle_quit,
        }

    async def start(self) -> None:
        """Listen, and begin to broadcast events.

        :raise OSError: When the socket cannot be bound.
        """
        self._server = await asyncio.start_unix_server(self._accept, self._path)
        fd = self._core.event_fd(self._traced)
        asyncio.get_running_loop().add_reader(fd, self._drain_log, fd)

    async def stop(self) -> None:
        """Disconnect every client and remove the socket."""
        asyncio.get_running_loop().remove_reader(self._core.event_fd(frozenset()))
        if self._server is not None:
            self._server.close()
        for writer in list(self._clients):
            writer.close()
        await asyncio.gather(*self._tasks)
        if os.path.exists(self._path):  # noqa: PTH110 - relative to the run folder
            os.unlink(self._path)  # noqa: PTH108

    # -- commands

    def handle_query_commands(self, _: Arguments) -> object:
        """Every command that is understood."""
        names = ["qmp_capabilities", *self._commands]
        return [{"name": name} for name in sorted(names)]

    def handle_query_status(self, _: Arguments) -> object:
        """Whether the device serves, since when, and what was lost on the way."""
        endpoints = self._core.query_endpoints()
        return {
            "status": "running",
            "pid": os.getpid(),
            "uptime": time.monotonic() - self._started,
            "connected": sum(bool(row["connected"]) for row in endpoints),
            "endpoints": len(endpoints),
            "events-lost": self._lost,
        }

    def handle_query_mutants(self, _: Arguments) -> object:
        """The deliberate defects there are, and what a suite must notice of each."""
        return [
            {"name": name, "notice": notice}
            for name, notice in core_module.mutants().items()
        ]

    def handle_set_mutant(self, arguments: Arguments) -> object:
        """Switch a deliberate defect: ``name``, ``enable``."""
        name = _argument(arguments, "name", str)
        enable = _argument(arguments, "enable", bool)
        try:
            self._core.set_mutant(str(name), bool(enable))
        except CoreError as error:
            known = ", ".join(core_module.mutants())
            raise CommandError(f"no mutant {name!r}; known: {known}") from error
        return {}

    def handle_inject_add(self, arguments: Arguments) -> object:
        """Let something go wrong: the keys of a rule. Returns its ``id``."""
        # QMP's own spelling of a key is taken, too.
        keys = {name.replace("-", "_"): value for name, value in arguments.items()}
        try:
            return {"id": self._core.inject_add(parse_rule(keys))}
        except (RuleError, CoreError) as error:
            raise CommandError(str(error)) from error

    def handle_inject_remove(self, arguments: Arguments) -> object:
        """Take a rule back: ``id``."""
        ident = _argument(arguments, "id", int)
        assert isinstance(ident, int)
        if not 0 < ident < 1 << 32:
            raise CommandError(f"no rule {ident}")
        try:
            self._core.inject_remove(ident)
        except CoreError as error:
            raise CommandError(str(error)) from error
        return {}

    def handle_set_trace(self, arguments: Arguments) -> object:
        """Choose which kinds of log records become events: ``kinds``."""
        kinds = _argument(arguments, "kinds", list)
        known = set(core_module.LOG_KINDS.values()) - {"none", "nr-kinds"}
        assert isinstance(kinds, list)
        for kind in kinds:
            if kind not in known:
                raise CommandError(
                    f"no record kind {kind!r}; known: {', '.join(sorted(known))}"
                )
        self._traced = frozenset(str(kind) for kind in kinds)
        self._core.event_fd(self._traced)
        return {}

    def handle_quit(self, _: Arguments) -> object:
        """End the device."""
        self.quit.set()
        return {}

    # -- events

    def _drain_log(self, fd: int) -> None:
        os.eventfd_read(fd)
        while True:
            records, dropped = self._core.read_log()
            self._lost += dropped
            for record in records:
                if record.kind in self._traced:
                    self._broadcast(_event(record))
            if not records:
                return

    def _broadcast(self, event: Mapping[str, object]) -> None:
        data = _encode(event)
        for writer, negotiated in list(self._clients.items()):
            if not negotiated:
                continue
            if writer.transport.get_write_buffer_size() > _MAX_BACKLOG:
                _log.warning("a monitor client does not read; dropping it")
                writer.transport.abort()
                continue
            writer.write(data)

    # -- one client

    def _accept(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        # Our own task, so that stop() can wait until the last answer is out.
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._clients[writer] = False
        stream = JsonStream()
        try:
            writer.write(_encode({"QMP": {"version": _version(), "capabilities": []}}))
            while data := await reader.read(4096):
                for message in stream.feed(data):
                    writer.write(_encode(self._answer(message, writer)))
                await writer.drain()
        except StreamError as error:
            # As QEMU does: say so, then there is nothing left to agree on.
            writer.write(_encode(_error("GenericError", f"JSON: {error}", None)))
        except ConnectionError as error:
            _log.info("monitor client gone: %s", error)
        finally:
            del self._clients[writer]
            writer.close()

    def _answer(
        self, message: Mapping[str, object], writer: asyncio.StreamWriter
    ) -> Mapping[str, object]:
        ident = message.get("id")
        try:
            result = self._execute(message, writer)
        except CommandError as error:
            return _error(error.error_class, error.desc, ident)
        except Exception as error:  # noqa: BLE001
            # A translation edge: whatever a client sends, it gets an answer.
            _log.exception("%s failed", message.get("execute"))
            return _error("GenericError", f"{type(error).__name__}: {error}", ident)
        answer: dict[str, object] = {"return": result}
        if ident is not None:
            answer["id"] = ident
        return answer

    def _execute(
        self, message: Mapping[str, object], writer: asyncio.StreamWriter
    ) -> object:
        name = message.get("execute")
        arguments = message.get("arguments", {})
        if not isinstance(name, str) or not isinstance(arguments, dict):
            raise CommandError("a command is {'execute': name, 'arguments': {...}}")
        if name == "qmp_capabilities":
            self._clients[writer] = True
            return {}
        if not self._clients[writer]:
            raise CommandError(
                "Expecting capabilities negotiation with 'qmp_capabilities'",
                "CommandNotFound",
            )
        handler = self._commands.get(name)
        if handler is None:
            raise CommandError(
                f"The command {name} has not been found", "CommandNotFound"
            )
        return handler(arguments)


def _argument(arguments: Arguments, name: str, kind: type) -> object:
    value = arguments.get(name)
    if not isinstance(value, kind):
        raise CommandError(f"argument {name!r} must be a {kind.__name__}")
    return value


def _version() -> dict[str, object]:
    # The shape that QMP prescribes; qemu.qmp checks that it is there.
    return {"qemu": {"major": 0, "minor": 1, "micro": 0}, "package": "viotest-device"}


def _event(record: Record) -> dict[str, object]:
    data: dict[str, object] = {
        "kind": record.kind,
        "seq": record.seq,
        "monotonic-ns": record.time_ns,
        "status": record.status,
        "endpoint": record.endpoint,
        "domain": record.domain,
        "flags": record.flags,
        "start": record.start,
        "end": record.end,
        "target": record.target,
        "duration-ns": record.duration_ns,
    }
    now = time.time_ns()
    return {
        "event": EVENTS.get(record.kind, "REQUEST"),
        "data": data,
        "timestamp": {"seconds": now // 10**9, "microseconds": now // 1000 % 10**6},
    }


def _error(error_class: str, desc: str, ident: object) -> dict[str, object]:
    answer: dict[str, object] = {"error": {"class": error_class, "desc": desc}}
    if ident is not None:
        answer["id"] = ident
    return answer


def _encode(message: Mapping[str, object]) -> bytes:
    return json.dumps(message).encode() + b"\r\n"
