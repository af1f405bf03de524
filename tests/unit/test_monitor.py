# SPDX-License-Identifier: GPL-2.0-or-later
"""The device's monitor, driven by the same client that drives QEMU's."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import pytest
from qemu.qmp import EventListener, QMPClient
from qemu.qmp.error import QMPError
from qemu.qmp.qmp_client import ExecuteError

from viotest_device.config import DeviceConfig, EndpointConfig, IommuConfig
from viotest_device.core import Core, mutants
from viotest_device.monitor import Monitor

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@contextlib.asynccontextmanager
async def _monitor(folder: Path) -> AsyncIterator[Monitor]:
    path = str(folder / "monitor.sock")
    endpoint = EndpointConfig("ep0", str(folder / "ep0.sock"), 0x80, iommu=0)
    iommu = IommuConfig(str(folder / "viommu0.sock"))
    core = Core(DeviceConfig((iommu,), (endpoint,), path))
    core.start()
    monitor = Monitor(core, path)
    await monitor.start()
    try:
        yield monitor
    finally:
        await monitor.stop()
        core.close()


@contextlib.asynccontextmanager
async def _client(folder: Path) -> AsyncIterator[QMPClient]:
    client = QMPClient("test")
    await client.connect(str(folder / "monitor.sock"))
    try:
        yield client
    finally:
        await client.disconnect()


async def _rows(client: QMPClient, command: str) -> list[dict[str, Any]]:
    rows = await client.execute(command)
    assert isinstance(rows, list)
    return rows


def test_monitor_answers_every_query(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with _monitor(tmp_path), _client(tmp_path) as client:
            names = {row["name"] for row in await _rows(client, "query-commands")}
            for name in names:
                if name.startswith("query-"):
                    assert await client.execute(name) is not None
            status = await client.execute("query-status")
            assert isinstance(status, dict)
            assert status["status"] == "running"
            (endpoint,) = await _rows(client, "query-endpoints")
            assert endpoint["id"] == 0x80

    asyncio.run(scenario())


def test_monitor_lists_the_devices_own_mutants(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with _monitor(tmp_path), _client(tmp_path) as client:
            rows = await _rows(client, "query-mutants")
            assert {row["name"]: row["notice"] for row in rows} == mutants()
            arguments = {"name": "ignore-unmap", "enable": True}
            assert await client.execute("set-mutant", arguments) == {}

    asyncio.run(scenario())


def test_monitor_adds_lists_and_removes_rules(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with _monitor(tmp_path), _client(tmp_path) as client:
            rule = {"action": "delay", "request": "map", "delay-us": 7, "count": 2}
            added = await client.execute("inject-add", rule)
            assert isinstance(added, dict)
            (row,) = await _rows(client, "inject-list")
            assert row["id"] == added["id"]
            assert (row["action"], row["request"]) == ("delay", "map")
            assert (row["parameter"], row["count"], row["domain"]) == (7, 2, None)
            assert await client.execute("inject-remove", added) == {}
            assert await _rows(client, "inject-list") == []

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("command", "arguments", "text"),
    [
        ("inject-add", {}, "action: is missing"),
        ("inject-add", {"action": "explode"}, "off-by-page"),
        ("inject-add", {"action": "drop", "delay-us": 1}, "delay_us: is not for"),
        ("inject-remove", {"id": 1}, "No such file"),
        ("inject-remove", {"id": -1}, "no rule -1"),
        ("inject-remove", {}, "id"),
        ("no-such-command", {}, "has not been found"),
        ("set-mutant", {"name": "no-such", "enable": True}, "ignore-unmap"),
        ("set-mutant", {"name": "ignore-unmap"}, "enable"),
        ("set-trace", {"kinds": ["no-such"]}, "client-gone"),
        ("set-trace", {}, "kinds"),
    ],
)
def test_monitor_refuses(
    tmp_path: Path, command: str, arguments: dict[str, object], text: str
) -> None:
    async def scenario() -> None:
        async with _monitor(tmp_path), _client(tmp_path) as client:
            with pytest.raises(ExecuteError, match=text):
                await client.execute(command, arguments)
            assert await client.execute("query-status")

    asyncio.run(scenario())


async def _next_event(listener: EventListener) -> tuple[str, int]:
    event = await asyncio.wait_for(listener.get(), 5)
    data = event["data"]
    assert isinstance(data, dict)
    return str(event["event"]), int(data["endpoint"])


def test_monitor_broadcasts_a_client_of_the_endpoint(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with _monitor(tmp_path), _client(tmp_path) as client:
            await client.execute("query-status")
            with client.listener() as listener:
                _, writer = await asyncio.open_unix_connection(tmp_path / "ep0.sock")
                names = [await _next_event(listener)]
                writer.close()
                while names[-1] != ("CLIENT_GONE", 0x80):
                    names.append(await _next_event(listener))
                assert names[0] == ("CLIENT_ATTACHED", 0x80)

    asyncio.run(scenario())


def test_monitor_quit_ends_the_device(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with _monitor(tmp_path) as monitor, _client(tmp_path) as client:
            await client.execute("quit")
            await asyncio.wait_for(monitor.quit.wait(), 5)

    asyncio.run(scenario())


def test_monitor_survives_garbage(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with _monitor(tmp_path):
            path = tmp_path / "monitor.sock"
            reader, writer = await asyncio.open_unix_connection(path)
            writer.write(b"garbage\n")
            answer = await asyncio.wait_for(reader.read(), 5)
            assert b"GenericError" in answer
            writer.close()
            async with _client(tmp_path) as client:
                assert await client.execute("query-status")

    asyncio.run(scenario())


def test_monitor_demands_negotiation(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with _monitor(tmp_path):
            path = tmp_path / "monitor.sock"
            reader, writer = await asyncio.open_unix_connection(path)
            await reader.readline()
            writer.write(b'{"execute": "query-status"}')
            answer = await asyncio.wait_for(reader.readline(), 5)
            assert b"CommandNotFound" in answer
            writer.close()

    asyncio.run(scenario())


def test_monitor_socket_is_gone_afterwards(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with _monitor(tmp_path), _client(tmp_path):
            assert (tmp_path / "monitor.sock").is_socket()
        with pytest.raises((OSError, QMPError)):
            async with _client(tmp_path):
                pass

    asyncio.run(scenario())
    assert not (tmp_path / "monitor.sock").exists()
