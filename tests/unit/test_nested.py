# SPDX-License-Identifier: GPL-2.0-or-later
"""The guest's own QEMU: its command line, its end, and what it says when it fails."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, cast

import pytest

from viotest.conformance.engine import ID
from viotest.guest.errors import GuestError
from viotest.guest.ssh import ExecResult
from viotest.scenario.model import Mode, Scenario
from viotest.scenario.topology import build_topology
from viotest.suite.judgement import CheckFailed
from viotest.suite.nested import nested_argv, prove_nested, start_nested

if TYPE_CHECKING:
    from collections.abc import Iterator

    from viotest.guest.ssh import LineChannel
    from viotest.suite.context import Context

(ENDPOINT,) = build_topology(Scenario()).endpoints


class _Qemu:
    """A process in the guest with an empty bus, or one that ends at once."""

    def __init__(self, *, ends: bool = False) -> None:
        self._ends = ends
        self.ended = False

    def request(self, line: str, timeout: float) -> str:
        assert timeout
        if self._ends:
            raise GuestError("the command ended with status 1")
        return "OK 0xffffffff" if line.startswith("in") else "OK"

    def wait_for_end(self, timeout: float) -> None:
        assert timeout
        self.ended = True


class _Guest:
    def __init__(self, qemu: _Qemu) -> None:
        self._qemu = qemu
        self.started: list[str] = []
        self.commands: list[str] = []

    @contextlib.contextmanager
    def start_lines(self, command: str) -> Iterator[LineChannel]:
        self.started.append(command)
        yield cast("LineChannel", self._qemu)

    def exec(self, command: str, *, timeout: float) -> ExecResult:
        assert timeout
        self.commands.append(command)
        out = b"vfio 0000:00:10.0: no group\n" if "tail" in command else b""
        return ExecResult(0, out, b"")


def _start(guest: _Guest) -> None:
    context = cast("Context", guest)
    with start_nested(context, ENDPOINT, Mode.TYPE1V2) as qtest:
        prove_nested(qtest)


def test_each_mode_has_its_own_way_into_vfio() -> None:
    group = " ".join(nested_argv(ENDPOINT, Mode.TYPE1V2))
    cdev = " ".join(nested_argv(ENDPOINT, Mode.CDEV_IOAS))
    assert "iommufd" not in group
    assert f"vfio-pci,host={ENDPOINT.bdf},addr=4" in group
    assert "-object iommufd,id=iommufd -device" in cdev
    assert cdev.endswith(",iommufd=iommufd")


def test_qemu_that_ends_is_quoted_and_is_gone() -> None:
    qemu = _Qemu(ends=True)
    guest = _Guest(qemu)
    with pytest.raises(CheckFailed, match="ended with status 1") as caught:
        _start(guest)
    assert "no group" in caught.value.details
    assert ["kill" in command for command in guest.commands] == [False, True]
    assert qemu.ended


def test_machine_without_the_endpoint_fails() -> None:
    qemu = _Qemu()
    guest = _Guest(qemu)
    with pytest.raises(CheckFailed, match="vendor and device") as caught:
        _start(guest)
    assert str(ID) in caught.value.details
    # Nothing is asked of a machine that answers, but that it ends.
    assert len(guest.commands) == 1
    assert qemu.ended
    # The shell's own number is QEMU's, which takes its place.
    (started,) = guest.started
    assert started.startswith("echo $$ >/run/nested.pid; exec env ")
