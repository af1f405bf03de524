# SPDX-License-Identifier: GPL-2.0-or-later
"""Reads the device's request log, the file ``device.bin`` of a run folder.

The layout is ``struct viommu_log_header`` and ``struct viommu_log_record`` of
device/core/include/viommu.h. The file is mapped by the device, so that it is
complete up to the last request even if the device was killed.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from viotest.errors import UntestableError
from viotest.report.timeline import Event

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path
    from typing import BinaryIO

_HEADER = struct.Struct("<8sIIQQQQ")
_RECORD = struct.Struct("<QQHHIIIQQQII")
_MAGIC = b"VIOTLOG1"
_DATA_OFFSET = 4096

#: ``enum viommu_log_kind``, in order.
KINDS = (
    "none",
    "attach",
    "detach",
    "map",
    "unmap",
    "probe",
    "unknown-request",
    "malformed-request",
    "fault",
    "fault-dropped",
    "dma",
    "irq",
    "msi-write",
    "bus-master",
    "reset",
    "client-attached",
    "client-gone",
    "dma-map",
    "dma-unmap",
    "device-status",
    "config-write",
    "request-detail",
)

#: ``enum viommu_counter``, in order.
COUNTERS = (
    "attach",
    "detach",
    "map",
    "unmap",
    "probe",
    "unknown",
    "malformed",
    "request-errors",
    "request-max-ns",
    "kicks",
    "dma-transactions",
    "dma-read-bytes",
    "dma-write-bytes",
    "dma-errors",
    "fault-unknown",
    "fault-domain",
    "fault-mapping",
    "faults-reported",
    "faults-dropped",
    "irqs",
    "messages",
    "resets",
)


#: What a timeline shows of a log that keeps more: it is for people, and in memory.
TIMELINE_RECORDS = 65536


@dataclass(frozen=True)
class DeviceRecord:
    """One record; the fields of ``struct viommu_log_record``."""

    seq: int
    ns: int
    kind: str
    status: int
    endpoint: int
    domain: int
    flags: int
    start: int
    end: int
    target: int
    duration_ns: int
    source: int


class DeviceLog:
    """The log of one device process.

    :param path: ``device.bin``.
    :raise UntestableError: When the file is not there, or is no such log.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        _, record_size, nr_counters, self._capacity, *_ = self._header()
        if record_size != _RECORD.size:
            raise UntestableError(f"{path}: records of {record_size} bytes, not 64")
        room = path.stat().st_size - _DATA_OFFSET
        size = self._capacity * _RECORD.size
        if nr_counters != len(COUNTERS) or not 0 < size <= room:
            raise UntestableError(
                f"{path}: {nr_counters} counters and {self._capacity} records"
            )

    def _header(self) -> tuple[bytes, int, int, int, int, int, int]:
        with self._open() as file:
            raw = file.read(_HEADER.size)
        if len(raw) < _HEADER.size or raw[:8] != _MAGIC:
            raise UntestableError(f"{self._path} is no request log of viotest-device")
        return _HEADER.unpack(raw)

    def _open(self) -> BinaryIO:
        try:
            return self._path.open("rb")
        except OSError as error:
            raise UntestableError(f"no device log: {error}") from error

    def counters(self) -> dict[str, int]:
        """Return every counter by name, as the device has counted so far."""
        with self._open() as file:
            file.seek(_HEADER.size)
            raw = file.read(8 * len(COUNTERS))
        if len(raw) < 8 * len(COUNTERS):
            raise UntestableError(f"{self._path} ends within its counters")
        values = struct.unpack(f"<{len(COUNTERS)}Q", raw)
        return dict(zip(COUNTERS, values, strict=True))

    def head(self) -> int:
        """Return the number of records ever written."""
        return self._header()[4]

    def records(self, after: int = 0) -> Iterator[DeviceRecord]:
        """Yield the records with a sequence number above ``after`` that still exist."""
        head = self.head()
        with self._open() as file:
            first = max(after, head - self._capacity)
            for number in range(first + 1, head + 1):
                slot = (number - 1) % self._capacity
                file.seek(_DATA_OFFSET + slot * _RECORD.size)
                raw = file.read(_RECORD.size)
                if len(raw) < _RECORD.size:
                    return
                seq, ns, kind, *rest = _RECORD.unpack(raw)
                # A slot that was claimed but not finished has another number.
                if seq == number:
                    yield DeviceRecord(seq, ns, _kind(kind), *rest)


def _kind(number: int) -> str:
    return KINDS[number] if number < len(KINDS) else f"kind-{number}"


def timeline_events(log: DeviceLog) -> Iterator[Event]:
    """Yield the last :data:`TIMELINE_RECORDS` of the log as events of a timeline."""
    for record in log.records(after=max(0, log.head() - TIMELINE_RECORDS)):
        # Bytes of an unusual request, whose own record follows: for viotest trace.
        if record.kind == "request-detail":
            continue
        data: dict[str, object] = {
            "seq": record.seq,
            "status": record.status,
            "flags": record.flags,
            "start": f"{record.start:#x}",
            "end": f"{record.end:#x}",
            "target": f"{record.target:#x}",
            "duration_ns": record.duration_ns,
        }
        if record.endpoint != 0xFFFFFFFF:
            data["endpoint"] = record.endpoint
        if record.kind in ("attach", "detach", "map", "unmap"):
            data["domain"] = record.domain
        yield Event(record.ns, "device", record.kind, data)


def add_counters(counted: Sequence[Mapping[str, int]]) -> dict[str, int]:
    """Return the counters of several devices as if one had done it all.

    :param counted: As :meth:`DeviceLog.counters`, at least one.
    """
    total = {name: sum(one[name] for one in counted) for name in COUNTERS}
    total["request-max-ns"] = max(one["request-max-ns"] for one in counted)
    return total


def summary(counters: Mapping[str, int]) -> dict[str, object]:
    """Return the ``device`` part of results.json.

    :param counters: As :meth:`DeviceLog.counters`.
    :return: ``requests`` by type, ``dma``, ``faults`` by reason, and the rest.
    """

    def pick(*names: str, prefix: str = "") -> dict[str, int]:
        return {name: counters[prefix + name] for name in names}

    return {
        "requests": pick(
            "attach", "detach", "map", "unmap", "probe", "unknown", "malformed"
        ),
        "request_errors": counters["request-errors"],
        "request_max_ns": counters["request-max-ns"],
        "kicks": counters["kicks"],
        "dma": {
            "transactions": counters["dma-transactions"],
            "read_bytes": counters["dma-read-bytes"],
            "write_bytes": counters["dma-write-bytes"],
            "errors": counters["dma-errors"],
        },
        "faults": pick("unknown", "domain", "mapping", prefix="fault-")
        | {
            "reported": counters["faults-reported"],
            "dropped": counters["faults-dropped"],
        },
        "irqs": counters["irqs"],
        "messages": counters["messages"],
        "resets": counters["resets"],
    }
