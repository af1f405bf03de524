# SPDX-License-Identifier: GPL-2.0-or-later
"""What the device and the guest's kernel did in a check that failed.

:class:`Evidence` is made before a check; :meth:`Evidence.lines` goes beside its reason.
"""

from __future__ import annotations

import re
from itertools import groupby, pairwise
from typing import TYPE_CHECKING

from viotest.conformance.wire import Type
from viotest.errors import UntestableError
from viotest.trace.model import Fields, fields_words, status_words

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from viotest.report.device_log import DeviceLog, DeviceRecord

#: So many lines of each source.
MAX_LINES = 6
_MAX_WIDTH = 120
# So many records are read at most, from the end: a check may make millions.
_MAX_RECORDS = 20_000

# Messages about what a check is about; complaints are quoted in full elsewhere.
_KERNEL = re.compile(r"virtio_iommu|viommu|iommufd|vfio(?!-pci \S+: reset)|DMAR")

_REQUESTS = {kind.name.lower(): kind for kind in Type}
# enum dma_engine_opcode, enum dma_engine_status, reasons of a fault (virtio 1.2,
# 5.13.6.6), enum viommu_reset_kind.
_OPCODES = ("", "read", "write", "copy", "fill", "checksum")
_ENDED = ("idle", "busy", "OK", "fault", "invalid", "no bus mastering", "aborted")
_REASONS = ("unknown", "no domain", "no mapping")
_RESETS = ("", "of the system", "of the function", "by the driver")
_READ, _WRITE = 1, 2
_CONTIGUOUS = ("map", "unmap")


class Evidence:
    """The device's log from now on.

    :param log: The log.
    :param nr_iommus: How many functions of the device are virtio-iommus, its first
        ones: their own interrupts say nothing.
    """

    def __init__(self, log: DeviceLog, nr_iommus: int) -> None:
        self._log = log
        self._nr_iommus = nr_iommus
        self._after = log.head()

    def lines(self, kernel: Sequence[str] = ()) -> list[str]:
        """Return a few lines for a person: what came last, oldest first.

        :param kernel: The guest's kernel log since the check began.
        """
        told = [text for text in kernel if _KERNEL.search(text)]
        return [
            *(f"device   {text}" for text in self._device_lines()),
            *(f"kernel   {_cut(text)}" for text in told[-MAX_LINES // 2 :]),
        ]

    def _device_lines(self) -> list[str]:
        try:
            after = max(self._after, self._log.head() - _MAX_RECORDS)
            told = list(tell(self._log.records(after), nr_iommus=self._nr_iommus))
        except UntestableError as error:
            return [f"its log cannot be read: {error}"]
        if not told:
            return ["nothing was asked of it, and no endpoint did anything"]
        more = [f"... {len(told) - MAX_LINES} more before"] * (len(told) > MAX_LINES)
        return more + told[-MAX_LINES:]


def tell(records: Iterable[DeviceRecord], *, nr_iommus: int = 0) -> Iterator[str]:
    """Yield in words what a device's records say, like ones in a row together."""
    shown = [record for record in records if _words([record], nr_iommus)]
    for _, alike in groupby(shown, key=_likeness):
        for run in _runs(list(alike)):
            what = "requests" if run[0].kind in _CONTIGUOUS else "times"
            yield _words(run, nr_iommus) + f" ({len(run)} {what})" * (len(run) > 1)


def _likeness(record: DeviceRecord) -> tuple[object, ...]:
    same = (record.kind, record.source, record.endpoint, record.domain, record.flags)
    if record.kind in _CONTIGUOUS:
        return (*same, record.status)
    return (*same, record.status, record.start, record.end, record.target)


# Requests for neighbouring ranges are one; whatever else is alike is the same.
def _runs(alike: list[DeviceRecord]) -> Iterator[list[DeviceRecord]]:
    if alike[0].kind not in _CONTIGUOUS:
        yield alike
        return
    run = alike[:1]
    for before, record in pairwise(alike):
        if record.start != before.end + 1:
            yield run
            run = []
        run.append(record)
    yield run


def _words(run: list[DeviceRecord], nr_iommus: int) -> str:
    first, last = run[0], run[-1]
    where = f"{first.start:#x}-{last.end:#x}"
    match first.kind:
        case "attach" | "detach" | "map" | "unmap" | "probe":
            fields = Fields(
                _REQUESTS[first.kind],
                domain=first.domain,
                endpoint=first.endpoint,
                flags=first.flags,
                start=first.start,
                end=last.end,
                phys=first.target,
            )
            return f"{fields_words(fields)}: {status_words(first.status)}"
        case "fault" | "fault-dropped":
            access = {_READ: "read", _WRITE: "write"}.get(first.flags & 3, "access")
            lost = ", not reported" if first.kind == "fault-dropped" else ""
            reason = _name(_REASONS, first.status)
            ep = f"{first.endpoint:#x}"
            return f"fault of {ep}: {access} at {first.start:#x}, {reason}{lost}"
        case "dma":
            ended = _name(_ENDED, first.status)
            op = _name(_OPCODES, first.flags & 0xFF)
            return f"DMA {op} by {first.endpoint:#x} at {where}: {ended}"
        case "msi-write":
            return f"DMA write of {first.target:#x} to {first.start:#x}, an interrupt"
        case "irq" if first.source >= nr_iommus:
            return f"interrupt {first.start}"
        case "bus-master":
            return f"bus mastering {'on' if first.flags else 'off'}"
        case "reset":
            return f"reset {_name(_RESETS, first.flags)}"
    return ""


def _cut(text: str) -> str:
    return text if len(text) <= _MAX_WIDTH else f"{text[: _MAX_WIDTH - 3]}..."


def _name(names: Sequence[str], number: int) -> str:
    return names[number] if number < len(names) else f"{number:#x}"
