# SPDX-License-Identifier: GPL-2.0-or-later
"""Writes a device's log and configuration, as a run folder has them."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from viotest.report.device_log import COUNTERS, KINDS

if TYPE_CHECKING:
    from pathlib import Path

_DATA_OFFSET = 4096
_NONE = 0xFFFFFFFF

#: One virtio-iommu with one endpoint behind it, and one endpoint behind none.
CONFIG = """
mutants = ["ignore-unmap"]
log.path = "device.bin"
monitor.socket = "monitor.sock"
[[iommu]]
name = "viommu0"
socket = "viommu0.sock"
bypass = 1
[[endpoint]]
name = "ep0"
socket = "ep0.sock"
id = 0x80
iommu = 0
resv_mem = [{ type = "msi", start = 0xfee00000, end = 0xfeefffff }]
[[endpoint]]
name = "ep1"
socket = "ep1.sock"
id = 0x88
"""

#: VERSION_1 and what is offered by default.
FEATURES = 1 << 32 | 0x77


@dataclass
class LogWriter:
    """Appends records as the device does; the file is written by :meth:`write`."""

    capacity: int = 64
    source: int = 0
    ns: int = 1000
    #: What each slot holds.
    slots: dict[int, bytes] = field(default_factory=dict)
    head: int = 0

    def add(
        self,
        kind: str,
        *,
        status: int = 0,
        endpoint: int = _NONE,
        domain: int = _NONE,
        flags: int = 0,
        words: tuple[int, int, int] = (0, 0, 0),
        duration: int = 10,
        source: int | None = None,
    ) -> None:
        """Append a record; ``words`` are start, end and target."""
        self.head += 1
        self.ns += 100
        self.slots[(self.head - 1) % self.capacity] = struct.pack(
            "<QQHHIIIQQQII",
            *(self.head, self.ns, KINDS.index(kind), status, endpoint, domain, flags),
            *words,
            duration,
            self.source if source is None else source,
        )

    def negotiate(self, features: int = FEATURES, offered: int = FEATURES) -> None:
        """Append what a driver does up to DRIVER_OK."""
        for status in (1, 3, 0xB, 0xF):
            self.add("device-status", status=status, words=(features, offered, 0))

    def reset(self, kind: int) -> None:
        """Append a reset, by ``enum viommu_reset_kind``."""
        self.add("reset", flags=kind)

    def map(self, start: int = 0x1000, *, status: int = 0, duration: int = 10) -> None:
        """Append a MAP of one page in domain 1."""
        words = (start, start + 0xFFF, 0x5000)
        self.add(
            "map", status=status, domain=1, flags=3, words=words, duration=duration
        )

    def detail(
        self, data: bytes, writable: int, used: int, *, readable: int | None = None
    ) -> None:
        """Append the details of an unusual request."""
        length = len(data) if readable is None else readable
        self.add("request-detail", words=(length, writable, used))
        padded = data.ljust((len(data) + 23) // 24 * 24, b"\0")
        for part in range(len(padded) // 24):
            words = struct.unpack_from("<QQQ", padded, 24 * part)
            self.add("request-detail", status=part + 1, words=words)

    def write(self, folder: Path, config: str = CONFIG) -> Path:
        """Write the files into a folder, and return it."""
        counters = struct.pack(f"<{len(COUNTERS)}Q", *[0] * len(COUNTERS))
        header = (b"VIOTLOG1", 64, len(COUNTERS), self.capacity, self.head, 1, 2)
        image = bytearray(_DATA_OFFSET + 64 * self.capacity)
        image[: 48 + len(counters)] = struct.pack("<8sIIQQQQ", *header) + counters
        for slot, record in self.slots.items():
            at = _DATA_OFFSET + 64 * slot
            image[at : at + 64] = record
        (folder / "device.bin").write_bytes(image)
        (folder / "device.toml").write_text(config)
        return folder
