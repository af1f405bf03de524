# SPDX-License-Identifier: GPL-2.0-or-later
"""A run before it starts: every asset is there, every command line is known."""

from __future__ import annotations

import json
import os
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from viotest.firmware.viot import viot_table
from viotest.machine import argv, names
from viotest.machine.arch import require_arch
from viotest.scenario.model import Accel
from viotest.scenario.options import scenario_config

if TYPE_CHECKING:
    from viotest.provision.kernel import Kernel
    from viotest.provision.qemu import Qemu
    from viotest.scenario.model import Scenario, Topology

#: The base initramfs and this run's keys, joined.
INITRD = "initrd.cpio"
#: MiB of a guest that has a page of 1 GiB to spare: with 3072 each one is touched by
#: the initramfs, by ACPI tables or by the kernel itself.
_HUGE_MEM = 4096
ARGV_TEXT = "argv.txt"
#: The size of a disk that an endpoint has.
IMAGE_SIZE = 64 << 20
SCENARIO_FILE = "scenario.json"


@dataclass(frozen=True)
class Assets:
    """What a guest is made of; all of it lies in the cache or where the user said."""

    qemu: Qemu
    kernel: Kernel
    initramfs: Path
    #: The kernel's VFIO selftests, if a check asks for them and it has any.
    selftests: Path | None = None
    #: The folder of the QEMU that the guest itself is to run, if a check asks for it.
    nested: Path | None = None


@dataclass(frozen=True)
class Plan:
    """One guest, ready to be started in any folder."""

    scenario: Scenario
    topology: Topology
    assets: Assets
    accel: Accel

    def qemu_argv(self) -> list[str]:
        """Return QEMU's argv; file names are relative to the run folder."""
        arch = require_arch(self.scenario.arch)
        return argv.qemu_argv(
            self.scenario,
            self.topology,
            qemu=self.assets.qemu.argv,
            kernel=os.fspath(self.assets.kernel.image),
            initrd=INITRD,
            accel=self.accel,
            viot=names.VIOT_TABLE if self.topology.iommus else None,
            cmdline=f"{argv.kernel_cmdline(self.scenario, arch)}{self._huge_pages()}",
        )

    # A page of 1 GiB can only be had at boot. Type1 over iommufd maps it by 4 KiB, a
    # quarter of a million requests in the 30 s that its test has: no emulated guest
    # is that fast.
    def _huge_pages(self) -> str:
        wanted = self.assets.selftests is not None and self.accel is Accel.KVM
        wanted = wanted and self.scenario.mem >= _HUGE_MEM
        return " hugepagesz=1G hugepages=1" if wanted else ""

    def device_argv(self) -> list[str]:
        """Return the device's argv."""
        return argv.device_argv(device_command(), parent_pid=os.getpid())

    def argv_text(self) -> str:
        """Return both argvs as a shell would take them."""
        return (
            "# working directory: the run folder\n"
            f"{shlex.join(self.device_argv())}\n"
            f"{shlex.join(self.qemu_argv())}\n"
        )

    def write(self, folder: Path) -> None:
        """Write everything that the processes read, but for the initramfs.

        :param folder: The run folder.
        """
        config = argv.device_config(self.scenario, self.topology)
        (folder / names.DEVICE_CONFIG).write_text(config)
        if self.topology.iommus:
            (folder / names.VIOT_TABLE).write_bytes(viot_table(self.topology))
        for endpoint in self.topology.endpoints:
            image = argv.endpoint_image(endpoint)
            if image is not None:
                _make_image(folder / image)
        (folder / ARGV_TEXT).write_text(self.argv_text())
        scenario = json.dumps(scenario_config(self.scenario), indent=2)
        (folder / SCENARIO_FILE).write_text(scenario + "\n")


def _make_image(path: Path) -> None:
    # Sparse: it takes no room until somebody writes to it.
    with path.open("wb") as file:
        file.truncate(IMAGE_SIZE)


def device_command() -> list[str]:
    """Return how ``viotest-device`` is started: the one installed beside us."""
    script = Path(sys.executable).parent / "viotest-device"
    if script.exists():
        return [os.fspath(script)]
    return [sys.executable, "-m", "viotest_device.cli"]
