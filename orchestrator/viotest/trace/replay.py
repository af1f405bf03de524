# SPDX-License-Identifier: GPL-2.0-or-later
"""Asks a device what a trace's guest asked, and compares: :class:`Replay`."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from viotest.conformance import wire
from viotest.conformance.driver import status_of
from viotest.conformance.errors import TargetLostError
from viotest.conformance.lab import Region
from viotest.conformance.wire import Feature, Status, Type
from viotest.machine.errors import MachineError
from viotest.trace.model import (
    ConfigWrite,
    Negotiation,
    Opaque,
    Outcome,
    Request,
    Restart,
    endpoint_of,
    fields_of,
    item_words,
    outcome_words,
    request_words,
    with_endpoint,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from viotest.conformance.lab import Answer
    from viotest.trace.model import Header, Item
    from viotest.trace.ring import BatchAnswer

#: Feature bits that are the virtio-iommu's own; the ring's are the replay's affair.
_DEVICE_FEATURES = 0xFFFFFF
_PROGRESS_EVERY = 256
#: Differences that are kept; what a target does after so many is of no interest.
MAX_KEPT = 10_000


class Device(Protocol):
    """What a trace is replayed against: :class:`~viotest.trace.target.ReplayDevice`,
    and in the unit tests a model.
    """

    ids: Mapping[int, int]

    def offered(self) -> Feature:
        """Return the features that the device offers."""

    def reset(self) -> None:
        """Reset the device as its driver can."""

    def system_reset(self) -> None:
        """Reset the system that it is part of."""

    def negotiate(self, features: Feature) -> bool:
        """Go from reset to DRIVER_OK; False when it does not take the features."""

    def write_config(self, offset: int, size: int, value: int) -> None:
        """Write a field of the device configuration."""

    def has_room(self, nr: int, writable: int) -> bool:
        """Whether so many requests, with so many writable bytes in all, fit."""

    def run(self, requests: Sequence[Request]) -> BatchAnswer:
        """Make requests available together, and wait for all of them."""

    def post_mortem(self) -> str:
        """Say what of it has ended, and how; empty when it is alive."""


@dataclass(frozen=True)
class Difference:
    """Something that went otherwise than it was recorded."""

    #: The number of the request, from 1 on; of what is no request, of the one before.
    number: int
    #: What was asked for, in words.
    what: str
    #: What became of it, in words.
    recorded: str
    replayed: str


@dataclass
class Result:
    """What a replay came to."""

    #: The first :data:`MAX_KEPT` of them.
    differences: list[Difference] = field(default_factory=list)
    nr_differences: int = 0
    #: What is worth knowing, and no difference.
    notes: list[str] = field(default_factory=list)
    nr_replayed: int = 0
    #: Requests that could not be asked, because the target was in no state for it.
    nr_skipped: int = 0
    #: Requests that the trace does not have the bytes of.
    nr_opaque: int = 0
    seconds: float = 0.0

    @property
    def per_second(self) -> float:
        """Requests per second."""
        return self.nr_replayed / self.seconds if self.seconds else 0.0


class Replay:
    """One replay of a trace.

    :param device: What to ask.
    :param header: What was recorded, and what PROBE has to tell.
    :param wait: Wait for an answer wherever the guest did; else only when the ring is
        full.
    :param show: Is told now and then how many requests are done.
    """

    def __init__(
        self,
        device: Device,
        header: Header,
        *,
        wait: bool = True,
        show: Callable[[int], None] = lambda done: None,
    ) -> None:
        self._device = device
        self._header = header
        self._regions = {e.id: e.regions for e in header.endpoints}
        self._wait = wait
        self._show = show
        self._result = Result()
        self._number = 0
        # Numbers of requests, as recorded, and as they are sent.
        self._batch: list[tuple[int, Request, Request]] = []
        self._writable = 0
        # Why nothing can be asked until the next reset; empty if it can.
        self._stuck = ""

    def run(self, items: Iterable[Item]) -> Result:
        """Replay items in order.

        A target that dies is a difference, and the end.
        """
        result, begin = self._result, time.monotonic()
        try:
            for item in items:
                self._take(item)
            self._flush()
        except (TargetLostError, MachineError) as error:
            died = "; ".join(filter(None, (self._device.post_mortem(), error.what)))
            number, what = self._number, "the target lives through the replay"
            if self._batch:
                number, request, _ = self._batch[0]
                what = request_words(request)
                result.nr_skipped += len(self._batch)
            self._differ(number, what, "answered", died)
            self._stuck = "the target is gone"
        result.seconds = time.monotonic() - begin
        return result

    def _take(self, item: Item) -> None:
        if isinstance(item, Request):
            self._request(item)
            return
        if isinstance(item, Opaque):
            self._number += 1
            self._result.nr_opaque += 1
            return
        self._flush()
        match item:
            case Restart():
                self._restart(item)
            case Negotiation():
                self._negotiate(item)
            case ConfigWrite() if not self._stuck:
                self._device.write_config(item.offset, item.size, item.value)

    def _restart(self, item: Restart) -> None:
        if item.kind.full:
            self._device.system_reset()
        else:
            self._device.reset()
        self._stuck = ""

    def _negotiate(self, item: Negotiation) -> None:
        if self._stuck:
            return
        wanted = Feature(item.features & _DEVICE_FEATURES)
        missing = wanted & ~self._device.offered()
        if missing:
            note = f"features that it does not offer were left out: {int(missing):#x}"
            if note not in self._result.notes:
                self._result.notes.append(note)
        if not self._device.negotiate(wanted & ~missing):
            self._differ(self._number, item_words(item), "accepted", "refused")
            self._stuck = "no features are accepted"

    def _request(self, item: Request) -> None:
        self._number += 1
        sent = self._translated(item)
        if self._batch and (
            (self._wait and not item.together)
            or not self._device.has_room(
                len(self._batch) + 1, self._writable + sent.writable
            )
        ):
            self._flush()
        if self._stuck:
            self._result.nr_skipped += 1
        else:
            self._batch.append((self._number, item, sent))
            self._writable += sent.writable

    def _translated(self, item: Request) -> Request:
        endpoint = endpoint_of(item.data)
        if endpoint is None or endpoint not in self._device.ids:
            return item
        data = with_endpoint(item.data, self._device.ids[endpoint])
        return dataclasses.replace(item, data=data)

    def _flush(self) -> None:
        if not self._batch:
            return
        answer = self._device.run([sent for _, _, sent in self._batch])
        before = self._result.nr_replayed // _PROGRESS_EVERY
        stuck_at = None
        for (number, item, _), got in zip(self._batch, answer.answers, strict=True):
            self._compare(number, item, got)
            if got.used is None and stuck_at is None:
                stuck_at = number
        self._result.nr_replayed += len(self._batch)
        self._batch = []
        self._writable = 0
        if answer.broken:
            self._stuck = answer.broken
            number = self._number if stuck_at is None else stuck_at
            self._result.notes.append(
                f"request {number}: {answer.broken}; what follows waits for a reset"
            )
        if self._result.nr_replayed // _PROGRESS_EVERY > before:
            self._show(self._result.nr_replayed)

    def _compare(self, number: int, item: Request, answer: Answer) -> None:
        got = Outcome(status_of(answer), answer.used)
        recorded = outcome_words(item.outcome, item.writable)
        if got != item.outcome:
            replayed = outcome_words(got, item.writable)
            self._differ(number, request_words(item), recorded, replayed)
            return
        told = self._told(item, answer)
        if told is not None:
            wanted, seen = told
            self._differ(number, request_words(item), wanted, seen)

    # What PROBE tells is not in the trace, but in its header; and a device with
    # defects need not have told it.
    def _told(self, item: Request, answer: Answer) -> tuple[str, str] | None:
        fields = fields_of(item.data)
        if fields is None or fields.kind is not Type.PROBE or self._header.mutants:
            return None
        regions = self._regions.get(fields.endpoint)
        if item.outcome.status != Status.OK or regions is None:
            return None
        properties = wire.parse_properties(answer.data[: -wire.TAIL_SIZE])
        found = [
            wire.parse_resv_mem(entry.body)
            for entry in properties
            if entry.type == wire.PROPERTY_RESV_MEM
        ]
        told = [Region(r.subtype, r.start, r.end) for r in found if r is not None]
        if sorted(told, key=_by_start) == sorted(regions, key=_by_start):
            return None
        return _regions_words(regions), _regions_words(told)

    def _differ(self, number: int, what: str, recorded: str, replayed: str) -> None:
        self._result.nr_differences += 1
        if len(self._result.differences) < MAX_KEPT:
            difference = Difference(number, what, recorded, replayed)
            self._result.differences.append(difference)


def _by_start(region: Region) -> tuple[int, int, int]:
    return region.start, region.end, region.subtype


def _regions_words(regions: Sequence[Region]) -> str:
    names = {wire.RESV_MEM_RESERVED: "reserved", wire.RESV_MEM_MSI: "msi"}
    told = [
        f"{names.get(r.subtype, r.subtype)} {r.start:#x}-{r.end:#x}"
        for r in sorted(regions, key=_by_start)
    ]
    return f"OK, regions: {', '.join(told) or 'none'}"
