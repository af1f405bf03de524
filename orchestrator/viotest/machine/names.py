# SPDX-License-Identifier: GPL-2.0-or-later
"""The names of the files in a run folder that processes meet at."""

from __future__ import annotations

#: QEMU's monitor; we listen, QEMU connects.
QMP_SOCKET = "qmp.sock"
#: The guest's serial console as QEMU knows it, which adds the endings itself.
CONSOLE_PIPE = "console"
#: The FIFO that QEMU reads; nobody writes to it.
CONSOLE_IN = "console.in"
#: The FIFO that QEMU writes.
CONSOLE_OUT = "console.out"
#: Leads to the guest's SSH port; QEMU listens.
SSH_SOCKET = "ssh.sock"
#: The device's monitor; the device listens.
DEVICE_MONITOR_SOCKET = "device-monitor.sock"

DEVICE_CONFIG = "device.toml"
#: The request log that the device maps.
DEVICE_LOG = "device.bin"
#: What the device prints.
DEVICE_OUTPUT = "device.log"
#: What QEMU prints.
QEMU_OUTPUT = "qemu.log"
CONSOLE_LOG = "console.log"
VIOT_TABLE = "viot.bin"
