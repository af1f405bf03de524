# SPDX-License-Identifier: GPL-2.0-or-later
"""One device process: the core and its monitor, from start to signal."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
from typing import TYPE_CHECKING

from viotest_device.core import Core
from viotest_device.monitor import Monitor

if TYPE_CHECKING:
    from typing import TextIO

    from viotest_device.config import DeviceConfig


async def serve(config: DeviceConfig, ready: TextIO) -> None:
    """Serve until SIGTERM, SIGINT or the monitor's ``quit``.

    :param config: What to serve; sockets are made in the working directory.
    :param ready: Gets one line of JSON, ``{"event": "READY", ...}``, when every
        socket listens: from then on QEMU may connect.
    :raise CoreError: When a socket cannot be bound or the log cannot be made.
    :raise OSError: When the monitor's socket cannot be bound.
    """
    with contextlib.closing(Core(config)) as core:
        core.start()
        monitor = Monitor(core, config.monitor)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, monitor.quit.set)
        await monitor.start()
        try:
            sockets = [iommu.socket for iommu in config.iommus]
            sockets += [one.socket for one in config.endpoints if one.socket]
            line = {"event": "READY", "sockets": sockets, "monitor": config.monitor}
            print(json.dumps(line), file=ready, flush=True)
            await monitor.quit.wait()
        finally:
            await monitor.stop()
