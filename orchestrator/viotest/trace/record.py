# SPDX-License-Identifier: GPL-2.0-or-later
"""From what a device left behind to a trace: :class:`Recording`."""

from __future__ import annotations

import struct
import tomllib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from viotest.conformance import wire
from viotest.conformance.wire import CONFIG_SIZE, Feature, Type
from viotest.errors import UntestableError
from viotest.machine import names
from viotest.report.device_log import DeviceLog
from viotest.trace.form import IOMMU_KEYS, parse_header
from viotest.trace.model import (
    MAX_BYTES,
    MAX_READABLE,
    MAX_WRITABLE,
    ConfigWrite,
    Fields,
    Header,
    Item,
    Negotiation,
    Opaque,
    Outcome,
    Request,
    Reset,
    Restart,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from viotest.report.device_log import DeviceRecord

_MAX_CONFIG = 1 << 20
_FEATURES_OK = 8
_U32 = 2**32 - 1
_NOT_RETURNED = 2**64 - 1

#: ``enum viommu_reset_kind``.
_RESETS = {1: Reset.SYSTEM, 2: Reset.FLR, 3: Reset.DRIVER, 4: Reset.CLIENT_GONE}
_REQUESTS = {kind.name.lower(): kind for kind in Type}
_UNANSWERED = ("unknown-request", "malformed-request")


@dataclass(frozen=True)
class _Detail:
    data: bytes
    readable: int
    writable: int
    used: int | None


class Recording:
    """What one virtio-iommu of a device process was asked.

    :param folder: A run folder, with the device's configuration and its log.
    :param iommu: Which virtio-iommu, in the order of the configuration.
    :raise UntestableError: When there is none, or the log has lost so much that no
        state can be known from which a replay could start.
    """

    def __init__(self, folder: Path, iommu: int = 0) -> None:
        _check_folder(folder)
        config = _read_config(folder / names.DEVICE_CONFIG)
        self._source = iommu
        self._log = DeviceLog(folder / names.DEVICE_LOG)
        self._first, lost = self._find_start()
        self.header = _header(folder, config, iommu, lost)

    @property
    def nr_records(self) -> int:
        """How many records of the log there are to look at, other devices' included."""
        return self._log.head() - self._first + 1

    def items(self) -> Iterator[Item]:
        """Yield what the driver did, up to its last request."""
        reset: Restart | None = None
        waiting: list[Item] = []
        for item in self._all_items():
            # Resets in a row are one, and one after which nothing comes is none.
            if isinstance(item, Restart):
                if reset is None or not reset.kind.full:
                    reset = item
                continue
            if reset is not None:
                waiting.append(reset)
                reset = None
            waiting.append(item)
            if isinstance(item, Request | Opaque):
                yield from waiting
                waiting.clear()

    # The log is complete from its first record on, or from a reset of the whole
    # system on: then nothing of what was lost matters any more.
    def _find_start(self) -> tuple[int, int]:
        expected, lost = 1, 0
        start: int | None = 1
        for record in self._log.records():
            if record.seq != expected:
                start, lost = None, record.seq - 1
            expected = record.seq + 1
            if start is None and self._is_full_reset(record):
                start = record.seq
        if start is None:
            raise UntestableError(
                f"the device's log has lost its first {lost} records, and no reset of"
                " the system came after them",
                hint="record with more: viotest trace record -- --log-records 1048576",
            )
        return start, lost

    def _is_full_reset(self, record: DeviceRecord) -> bool:
        kind = _RESETS.get(record.flags)
        mine = record.kind == "reset" and record.source == self._source
        return mine and kind is not None and kind.full

    def _all_items(self) -> Iterator[Item]:
        reader = _Reader()
        for record in self._log.records(after=self._first - 1):
            if record.source == self._source:
                item = reader.take(record)
                if item is not None:
                    yield item


class _Reader:
    """Turns the records of one virtio-iommu into items, one after the other."""

    def __init__(self) -> None:
        self._start_ns: int | None = None
        self._negotiated = False
        self._details: list[DeviceRecord] = []
        self._answered_ns = 0

    def take(self, record: DeviceRecord) -> Item | None:
        if self._start_ns is None:
            self._start_ns = record.ns
        ns = max(0, record.ns - self._start_ns)
        if record.kind == "request-detail":
            self._details.append(record)
            return None
        if record.kind in _REQUESTS or record.kind in _UNANSWERED:
            return self._request(record, ns)
        if record.kind == "reset" and record.flags in _RESETS:
            self._negotiated = False
            return Restart(_RESETS[record.flags], ns)
        if record.kind == "device-status":
            return self._negotiation(record, ns)
        if record.kind == "config-write":
            return _config_write(record, ns)
        return None

    def _negotiation(self, record: DeviceRecord, ns: int) -> Item | None:
        features, offered = record.start, record.end
        refused = features & ~offered or not features & Feature.VERSION_1
        if self._negotiated or not record.status & _FEATURES_OK or refused:
            return None
        self._negotiated = True
        return Negotiation(features, ns)

    def _request(self, record: DeviceRecord, ns: int) -> Item:
        detail = _detail(self._details)
        self._details.clear()
        # The device takes a request when it has answered the one before, if it did
        # not have to wait for it.
        taken = record.ns - record.duration_ns
        together = taken == self._answered_ns and record.duration_ns < _U32
        self._answered_ns = record.ns
        if detail is None and record.kind in _UNANSWERED:
            return Opaque(ns)
        if detail is None:
            detail = _plain(record)
        answered = record.kind in _REQUESTS and detail.used is not None
        outcome = Outcome(record.status & 0xFF if answered else None, detail.used)
        return Request(
            detail.data,
            min(detail.readable, MAX_READABLE),
            min(detail.writable, MAX_WRITABLE),
            outcome,
            together,
            ns,
        )


def _detail(parts: list[DeviceRecord]) -> _Detail | None:
    if not parts:
        return None
    if [part.status for part in parts] != list(range(len(parts))):
        raise UntestableError("the log has a request in pieces that do not fit")
    head = parts[0]
    words = [word for part in parts[1:] for word in (part.start, part.end, part.target)]
    data = struct.pack(f"<{len(words)}Q", *words)[: min(head.start, MAX_BYTES)]
    used = None if head.target == _NOT_RETURNED else head.target & _U32
    return _Detail(data, head.start, head.end, used)


def _plain(record: DeviceRecord) -> _Detail:
    kind = _REQUESTS[record.kind]
    probe = kind is Type.PROBE
    data = Fields(
        kind,
        domain=record.domain,
        endpoint=record.endpoint,
        flags=record.flags,
        start=record.start,
        end=record.end,
        phys=record.target,
    ).encode()
    writable = record.end & _U32 if probe else wire.TAIL_SIZE
    return _Detail(data, len(data), writable, writable)


def _config_write(record: DeviceRecord, ns: int) -> Item | None:
    size = record.end - record.start + 1
    # Other accesses change nothing, and no replay could make them.
    if size not in (1, 2, 4, 8) or record.end >= CONFIG_SIZE:
        return None
    value = record.target & (1 << 8 * size) - 1
    return ConfigWrite(record.start, size, value, ns)


# -- what the device was


def _check_folder(folder: Path) -> None:
    if (folder / names.DEVICE_CONFIG).exists():
        return
    # With several guests each has a folder of its own.
    guests = sorted(folder.glob(f"*/{names.DEVICE_CONFIG}"))
    hint = f"name a guest's folder, as {guests[0].parent}" if guests else ""
    raise UntestableError(
        f"{folder}: is no run folder, it has no {names.DEVICE_CONFIG}", hint=hint
    )


def _read_config(path: Path) -> Mapping[str, Any]:
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_CONFIG).decode()
        return tomllib.loads(text)
    except OSError as error:
        raise UntestableError(f"{path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise UntestableError(f"{path}: is no configuration: {error}") from error


def _header(folder: Path, config: Mapping[str, Any], iommu: int, lost: int) -> Header:
    try:
        tables = config.get("iommu", [])
        if not tables:
            raise UntestableError(
                f"{folder}: its virtio-iommu was not ours, so that there is no log"
            )
        if not 0 <= iommu < len(tables):
            raise UntestableError(
                f"{folder}: has no virtio-iommu {iommu}",
                hint=f"0 to {len(tables) - 1}" if len(tables) > 1 else "only 0",
            )
        known = {k: v for k, v in tables[iommu].items() if k in IOMMU_KEYS}
        endpoints = [
            {"id": e["id"], "resv_mem": e.get("resv_mem", [])}
            for e in config.get("endpoint", [])
            if e.get("iommu") == iommu
        ]
        values = {"viotest-trace": 1, "iommu": known, "endpoints": endpoints}
        values |= {"mutants": config.get("mutants", []), "lost": lost}
        return parse_header(values)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        where = folder / names.DEVICE_CONFIG
        raise UntestableError(
            f"{where}: is no device configuration: {error}"
        ) from error
