# SPDX-License-Identifier: GPL-2.0-or-later
"""Machines made of small real processes instead of QEMU and the device."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from viotest.machine.launch import Launch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_HERE = Path(__file__).parent
# -S -E: start without site-packages, in 15 ms.
_PYTHON = (sys.executable, "-S", "-E")
_CHARDEVS = (
    *("-chardev", "socket,id=mon,path=qmp.sock"),
    *("-chardev", "pipe,id=console,path=console"),
)


@pytest.fixture
def make_launch(tmp_path: Path) -> Callable[..., Launch]:
    """Return a maker of launches of fakes, which take a mode each."""

    # Deeper than a UNIX socket address is long.
    folder = tmp_path.joinpath(*["a-folder-with-a-long-name"] * 5)
    folder.mkdir(parents=True)

    def make(qemu: str = "ok", device: str = "ok", *, timeout: float = 10.0) -> Launch:
        return Launch(
            folder=folder,
            qemu_argv=(*_PYTHON, str(_HERE / "fake_qemu.py"), qemu, *_CHARDEVS),
            device_argv=(*_PYTHON, str(_HERE / "fake_device.py"), device),
            sockets=("ep0.sock",),
            launch_timeout=timeout,
            shutdown_timeout=1.0,
        )

    return make


class Timeline:
    """Keeps what is recorded."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str, Mapping[str, object], int]] = []

    def __call__(
        self, source: str, event: str, data: Mapping[str, object], time_ns: int
    ) -> None:
        self.events.append((source, event, dict(data), time_ns))

    def named(self, source: str, event: str) -> list[Mapping[str, object]]:
        return [e[2] for e in self.events if e[:2] == (source, event)]


@pytest.fixture
def timeline() -> Timeline:
    """Return a recorder that keeps everything."""
    return Timeline()
