# SPDX-License-Identifier: GPL-2.0-or-later
"""Build vfio-probe for this host and talk to it through pipes.

Besides the program itself there is its twin over a simulated VFIO
(guest-images/probe/tests): the commands that need a device run on that one.
"""

from __future__ import annotations

import os
import select
import shutil
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from viotest.provision.progress import SilentProgress
from viotest.provision.uapi import provide_uapi

if TYPE_CHECKING:
    from collections.abc import Iterator

SOURCE = Path(__file__).resolve().parents[2] / "guest-images" / "probe"


def build_probe(folder: Path, target: str) -> Path:
    """Build a target of the probe's Makefile, or skip the test.

    :param folder: Where to.
    :param target: "vfio-probe" or "vfio-probe-fake".
    :return: The program.
    """
    for tool in ("make", "gcc"):
        if not shutil.which(tool):
            pytest.skip(f"{tool} is not installed")
    program = folder / target
    include = provide_uapi(SilentProgress())
    argv = ["make", "-s", "-C", os.fspath(SOURCE), f"BUILD={folder}"]
    argv += [f"UAPI_INCLUDE={include}", str(program)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert not done.returncode, done.stdout + done.stderr
    return program


class PipeTransport:
    """A vfio-probe that runs as a child."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def request(self, line: str, timeout: float) -> str:
        return self.request_bytes(line.encode() + b"\n", timeout)

    def request_bytes(self, line: bytes, timeout: float = 10.0) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(line)
        self._process.stdin.flush()
        ready, _, _ = select.select([self._process.stdout], [], [], timeout)
        assert ready, "no answer"
        return self._process.stdout.readline().decode()


@contextmanager
def start_probe(program: Path, **environ: str) -> Iterator[PipeTransport]:
    """Run a probe; at the end its input is closed, and it has to leave with 0."""
    with subprocess.Popen(
        [program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, **environ},
    ) as process:
        try:
            yield PipeTransport(process)
            process.communicate(timeout=10)
        finally:
            process.kill()
    assert process.returncode == 0
