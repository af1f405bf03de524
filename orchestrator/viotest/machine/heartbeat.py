# SPDX-License-Identifier: GPL-2.0-or-later
"""Reads the heartbeat that the device's reactor keeps in its request log."""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING

from viotest.machine import names

if TYPE_CHECKING:
    from viotest.machine.folder import RunFolder

# struct viommu_log_header, device/core/include/viommu.h
_MAGIC = b"VIOTLOG1"
_HEARTBEAT_OFFSET = 40
_HEARTBEAT = struct.Struct("=Q")


class Heartbeat:
    """The device's sign of life.

    The file is read, not mapped: a file that gets shorter under a mapping kills
    the reader.

    :param folder: The run folder.
    :raise OSError: When there is no log.
    :raise ValueError: When the file is no request log.
    """

    def __init__(self, folder: RunFolder) -> None:
        self._fd = folder.open(names.DEVICE_LOG, os.O_RDONLY)
        try:
            if os.pread(self._fd, len(_MAGIC), 0) != _MAGIC:
                raise ValueError(f"{names.DEVICE_LOG} is no request log")
        except BaseException:
            self.close()
            raise

    def read(self) -> int | None:
        """Return the CLOCK_MONOTONIC of the last beat in ns; None if unreadable."""
        try:
            data = os.pread(self._fd, _HEARTBEAT.size, _HEARTBEAT_OFFSET)
        except OSError:
            return None
        if len(data) != _HEARTBEAT.size:
            return None
        return int(_HEARTBEAT.unpack(data)[0])

    def close(self) -> None:
        """Release the file; idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
