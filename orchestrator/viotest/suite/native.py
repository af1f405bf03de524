# SPDX-License-Identifier: GPL-2.0-or-later
"""Endpoints in the hands of the guest's own drivers: nvme, ioatdma with dmatest.

The main class is :class:`NativeDriver`; what a driver's device then does is asked of
the guest by shell commands (:class:`Shell`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from viotest.guest.probe import ProbeError
from viotest.suite.judgement import CheckFailed, refused

if TYPE_CHECKING:
    from viotest.scenario.model import EndpointFunction
    from viotest.suite.context import Context

# dmatest_func() of drivers/dma/dmatest.c, since 3.19.
_SUMMARY = re.compile(r"dmatest: (\S+): summary (\d+) tests, (\d+) failures")
# What load-module says of a module that the guest does not have, and the shell of a
# load-module that it does not have.
_NO_SUCH_MODULE = (2, 127)


class Shell:
    """Shell commands in the guest.

    :param context: The guest.
    """

    def __init__(self, context: Context) -> None:
        self._context = context

    def run(self, command: str, *, timeout: float = 30.0) -> str:
        """Run a command that must succeed, and return what it prints.

        :raise CheckFailed: When it does not.
        """
        result = self._context.exec(command, timeout=timeout)
        if result.status != 0:
            said = (result.err or result.out).decode(errors="replace").strip()
            raise CheckFailed(
                f"a command in the guest failed: {command}",
                expected="exit status 0",
                seen=f"exit status {result.status}: {said[-500:]}",
                step="the guest's dmesg is in timeline.jsonl",
            )
        return result.out.decode(errors="replace")

    def has_module(self, name: str) -> bool:
        """Load a module if the guest has it, and say whether it is there.

        :raise CheckFailed: When the guest has it, and it cannot be loaded.
        """
        result = self._context.exec(f"load-module {name}", timeout=30.0)
        if result.status not in (0, *_NO_SUCH_MODULE):
            raise CheckFailed(
                f"the module {name} cannot be loaded",
                seen=result.err.decode(errors="replace").strip(),
            )
        return result.status == 0


class NativeDriver:
    """A driver of the guest's kernel, and one endpoint for it.

    :param context: The guest.
    :param endpoint: The endpoint.
    :param name: The driver, as in ``/sys/bus/pci/drivers``.
    :param module: Its module.
    """

    def __init__(
        self, context: Context, endpoint: EndpointFunction, name: str, module: str
    ) -> None:
        self.endpoint = endpoint
        self.name = name
        self._module = module
        self._probe = context.probe()
        self._shell = Shell(context)
        self._device = f"/sys/bus/pci/devices/{endpoint.bdf}"

    def available(self) -> bool:
        """Return whether the kernel has the driver; loads it if it is a module."""
        drivers = self._probe.call("list", path="/sys/bus/pci/drivers")["names"]
        assert isinstance(drivers, list)
        return self.name in drivers or self._shell.has_module(self._module)

    def bind(self) -> None:
        """Give the endpoint to the driver.

        :raise CheckFailed: When the driver refuses it.
        """
        try:
            self._probe.call("bind", bdf=self.endpoint.bdf, driver=self.name)
        except ProbeError as error:
            raise refused(error, f"bind to {self.name}") from error

    def unbind(self) -> None:
        """Take the endpoint from whatever driver it has."""
        self._probe.call("unbind", bdf=self.endpoint.bdf)

    def wait_for(self, pattern: str, *, timeout: float = 10.0) -> list[str]:
        """Wait until the driver has made what it makes of the endpoint.

        :param pattern: A shell pattern below the endpoint's folder in sysfs.
        :return: The names of the last part, sorted.
        :raise CheckFailed: When nothing matches within ``timeout``.
        """
        # A driver may probe asynchronously, and sysfs tells of nothing new.
        command = (
            f"cd {self._device}; n=0; until ls -d {pattern} 2>/dev/null;"
            f" do n=$((n+1)); [ $n -gt {int(timeout * 20)} ] && exit 1;"
            " sleep 0.05; done"
        )
        try:
            found = self._shell.run(command, timeout=timeout + 30)
        except CheckFailed as failure:
            raise CheckFailed(
                f"{self.name} made no {pattern} of {self.endpoint.bdf}",
                cause="its initialisation failed; the guest's dmesg is in"
                " timeline.jsonl",
            ) from failure
        return sorted(path.rsplit("/", 1)[-1] for path in found.split())


@dataclass(frozen=True)
class DmatestSummary:
    """What dmatest says of one thread at its end."""

    thread: str
    tests: int
    failures: int


def run_dmatest(
    shell: Shell, channels: list[str], *, iterations: int
) -> list[DmatestSummary]:
    """Let dmatest copy and compare on channels, and return its summaries.

    :param shell: The guest, with dmatest loaded.
    :param channels: As in ``/sys/class/dma``.
    :param iterations: Copies of random length and offset on each channel.
    """
    settings = {
        "timeout": 10000,
        "iterations": iterations,
        "threads_per_chan": 1,
        "test_buf_size": 65536,
    }
    steps = [f"echo {value} >{name}" for name, value in settings.items()]
    # One thread is added for each channel that is written.
    steps += [f"echo {channel} >channel" for channel in channels]
    # Reading "wait" blocks until all threads have ended.
    steps += ["echo 1 >run", "cat wait >/dev/null", "dmesg"]
    command = "cd /sys/module/dmatest/parameters && " + " && ".join(steps)
    return parse_dmatest(shell.run(command, timeout=90))


def parse_dmatest(dmesg: str) -> list[DmatestSummary]:
    """Return dmatest's summaries in a kernel log, oldest first."""
    return [
        DmatestSummary(found[1], int(found[2]), int(found[3]))
        for found in _SUMMARY.finditer(dmesg)
    ]
