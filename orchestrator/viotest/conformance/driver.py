# SPDX-License-Identifier: GPL-2.0-or-later
"""A virtio-iommu in a row's words: :class:`Viommu`, and what a row may expect."""

from __future__ import annotations

from typing import TYPE_CHECKING

from viotest.conformance import wire
from viotest.conformance.errors import MismatchError, NotApplicableError
from viotest.conformance.lab import FULL, MODERN, POISON, Answer
from viotest.conformance.wire import MAP_RW, Feature, Status, Type

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from viotest.conformance.lab import Device, Event, Lab, Shape
    from viotest.conformance.wire import Fault, ResvMem

#: Ids that no endpoint has: above any bus of these machines.
UNKNOWN_ENDPOINTS = (0x444, 0xFFFFFFFF)

#: Where rows map: no RAM is there, so nothing is reached by mistake.
_IOVA = 0x400000000
_PAGES = 0x2000000
_PAGES_END = 0x8000000
#: Where a long transfer goes.
LONG_START = 0xB000000
LONG_SIZE = 0x2000000

_NR_EVENTS = 16

#: What :meth:`Viommu.access` returns for the two plain cases.
REACHED = "reads and writes memory"
REFUSED = "is refused"

_domains = 0


class Viommu:
    """A device after negotiation, endpoints detached, ``bypass`` known.

    :param device: The device.
    :param features: What the driver accepts of the offer.
    :param bypass: What ``bypass`` is set to, where there is such a field.
    """

    def __init__(
        self, device: Device, *, features: Feature = MODERN, bypass: int = 0
    ) -> None:
        self.device = device
        self.offered = device.offered()
        self.features = features & self.offered
        self._next_page = _PAGES
        self._next_iova = _IOVA
        self._tidy_up(bypass)
        self.restart()

    # As with every feature, because without BYPASS_CONFIG there is no setting of
    # bypass; and by request, because not every device forgets at a reset.
    def _tidy_up(self, bypass: int) -> None:
        self.restart(self.offered & MODERN)
        for endpoint, domain in self.device.attached.items():
            self._submit(Type.DETACH, wire.detach(domain, endpoint, bytes(8)))
        self.device.attached.clear()
        if self.offered & Feature.BYPASS_CONFIG:
            self.write_config("bypass", bypass)

    def restart(self, features: Feature | None = None) -> None:
        """Reset the device, and negotiate again.

        :param features: What to accept; None: as before.
        """
        self.device.reset()
        self.start(features)

    def start(self, features: Feature | None = None) -> None:
        """Negotiate with a device that is reset; as :meth:`restart`."""
        wanted = self.features if features is None else features
        if not self.device.negotiate(wanted):
            raise MismatchError("FEATURES_OK stays set", "the device cleared it")
        self.device.post_events(*[wire.FAULT_SIZE] * _NR_EVENTS)

    # -- what the device says of itself

    def config(self, field: str) -> int:
        """Read a field of the configuration."""
        return self.device.read_config(*wire.CONFIG[field])

    def write_config(self, field: str, value: int) -> None:
        """Write a field of the configuration."""
        self.device.write_config(*wire.CONFIG[field], value)

    def require(self, feature: Feature) -> None:
        """Leave the row when the device does not offer a feature."""
        if not self.offered & feature:
            raise NotApplicableError(f"{feature.name} is not offered")

    @property
    def granule(self) -> int:
        """The smallest size that can be mapped."""
        mask = self.config("page_size_mask")
        return mask & -mask

    @property
    def endpoints(self) -> tuple[int, ...]:
        """The endpoint ids."""
        return self.device.endpoints

    def resv_mem(self, endpoint: int) -> list[ResvMem]:
        """Return the reserved regions that PROBE tells of an endpoint."""
        if not self.features & Feature.PROBE:
            return []
        found = wire.parse_properties(self.probe(endpoint).data[: -wire.TAIL_SIZE])
        regions = [
            wire.parse_resv_mem(entry.body)
            for entry in found
            if entry.type == wire.PROPERTY_RESV_MEM
        ]
        return [region for region in regions if region is not None]

    # -- names for things

    def domain(self) -> int:
        """Return the id of a domain that was never used before."""
        global _domains  # noqa: PLW0603 - not even by another device of this process
        _domains += 1
        first = self.config("domain_start")
        return first + _domains if self.offered & Feature.DOMAIN_RANGE else _domains

    def page(self, size: int = 1) -> int:
        """Return the address of granules of RAM that the row has not used yet."""
        address = self._next_page
        self._next_page += size * self.granule
        assert self._next_page <= _PAGES_END
        return address

    def iova(self, size: int = 1) -> int:
        """Return a virtual address of granules that the row has not used yet.

        They are followed by one that is never given out.
        """
        address = self._next_iova
        self._next_iova += (size + 1) * self.granule
        return address

    # -- requests

    def attach(
        self, domain: int, endpoint: int, flags: int = 0, reserved: bytes = bytes(4)
    ) -> Answer:
        """Send ATTACH."""
        body = wire.attach(domain, endpoint, flags, reserved)
        answer = self._submit(Type.ATTACH, body)
        if status_of(answer) == Status.OK:
            self.device.attached[endpoint] = domain
        return answer

    def detach(self, domain: int, endpoint: int, reserved: bytes = bytes(8)) -> Answer:
        """Send DETACH."""
        answer = self._submit(Type.DETACH, wire.detach(domain, endpoint, reserved))
        if self.device.attached.get(endpoint) == domain:
            del self.device.attached[endpoint]
        return answer

    def map(
        self, domain: int, start: int, phys: int, size: int = 0, flags: int = MAP_RW
    ) -> Answer:
        """Send MAP for ``size`` bytes; 0: one granule."""
        end = start + (size or self.granule) - 1
        return self.map_to(domain, start, end, phys, flags)

    def map_to(
        self, domain: int, start: int, end: int, phys: int, flags: int = MAP_RW
    ) -> Answer:
        """Send MAP with an explicit, inclusive end."""
        return self._submit(Type.MAP, wire.map_(domain, start, end, phys, flags))

    def unmap(
        self, domain: int, start: int, size: int = 0, reserved: bytes = bytes(4)
    ) -> Answer:
        """Send UNMAP for ``size`` bytes; 0: one granule."""
        end = start + (size or self.granule) - 1
        return self.unmap_to(domain, start, end, reserved)

    def unmap_to(
        self, domain: int, start: int, end: int, reserved: bytes = bytes(4)
    ) -> Answer:
        """Send UNMAP with an explicit, inclusive end."""
        return self._submit(Type.UNMAP, wire.unmap(domain, start, end, reserved))

    def probe(self, endpoint: int, reserved: bytes = bytes(64)) -> Answer:
        """Send PROBE with as much room as the device asks for."""
        return self._submit(Type.PROBE, wire.probe(endpoint, reserved))

    def writable_size(self, kind: Type) -> int:
        """Return how many bytes the device is to write for a request."""
        properties = self.config("probe_size") if kind is Type.PROBE else 0
        return properties + wire.TAIL_SIZE

    def _submit(self, kind: Type, body: bytes) -> Answer:
        request = wire.head(kind) + body
        return self.device.submit([request], [self.writable_size(kind)])

    # -- endpoints

    def access(self, endpoint: int, iova: int, phys: int) -> str:
        """Let an endpoint read and write, and say what became of it.

        :param endpoint: Its id.
        :param iova: The address that it uses.
        :param phys: Where that leads to, if anywhere.
        :return: :data:`REACHED`, :data:`REFUSED`, or what else was seen.
        """
        before = (0x5EED << 48 | iova & 0xFFFFFFFFFFFF).to_bytes(8, "little")
        self.device.memory_write(phys, before)
        value = self.device.dma_read(endpoint, iova)
        written = (0xD0D0 << 48 | phys).to_bytes(8, "little")
        accepted = self.device.dma_write(
            endpoint, iova, int.from_bytes(written, "little")
        )
        after = self.device.memory_read(phys, 8)
        read = (
            "refused"
            if value is None
            else "right"
            if value == int.from_bytes(before, "little")
            else "wrong data"
        )
        landed = "landed" if after == written else "did not change memory"
        if after not in (before, written):
            landed = "changed memory wrongly"
        match read, accepted, landed:
            case "right", True, "landed":
                return REACHED
            case "refused", False, "did not change memory":
                return REFUSED
        word = "accepted" if accepted else "refused"
        return f"read: {read}; write: {word}, {landed}"

    def expect_access(
        self, endpoint: int, iova: int, phys: int, wanted: str, when: str
    ) -> None:
        """Leave the row unless an access ends as wanted."""
        seen = self.access(endpoint, iova, phys)
        if seen != wanted:
            what = f"DMA of endpoint {endpoint:#x} to {iova:#x} {when}"
            raise MismatchError(f"{what}: {wanted}", seen)

    def mapped(
        self, domain: int, endpoint: int, flags: int = MAP_RW
    ) -> tuple[int, int]:
        """Attach an endpoint, map a granule, and check that DMA goes there.

        :return: Its virtual and its physical address.
        """
        self.attached(domain, endpoint)
        iova, phys = self.iova(), self.page()
        expect(self.map(domain, iova, phys, flags=flags), Status.OK, "MAP")
        if flags == MAP_RW:
            self.expect_access(endpoint, iova, phys, REACHED, "after MAP")
        return iova, phys

    def attached(self, domain: int, endpoint: int, flags: int = 0) -> None:
        """Attach an endpoint; leave the row when that fails."""
        expect(self.attach(domain, endpoint, flags), Status.OK, "ATTACH")

    # -- faults

    def faults(self, *, wait: bool = True) -> list[Fault]:
        """Return the complete fault records since the last call."""
        return faults_of(self.device.take_events(wait=wait))


def faults_of(events: Sequence[Event]) -> list[Fault]:
    """Return the complete fault records of returned event buffers."""
    faults = [wire.parse_fault(event.data[: event.used]) for event in events]
    return [fault for fault in faults if fault is not None]


def open_viommu(
    lab: Lab, shape: Shape = FULL, *, features: Feature = MODERN, bypass: int = 0
) -> Viommu:
    """Return a device ready for requests; parameters as :class:`Viommu`.

    :raise NotApplicableError: When the target has no such shape.
    """
    return Viommu(lab.device(shape), features=features, bypass=bypass)


def status_of(answer: Answer) -> int | None:
    """Return the status that was answered; None when there was none."""
    if not answer.used or len(answer.data) < wire.TAIL_SIZE:
        return None
    return answer.data[-wire.TAIL_SIZE]


def describe(answer: Answer) -> str:
    """Say in words what became of a request."""
    if answer.used is None:
        state = " and asks for a reset" if answer.needs_reset else ""
        return f"the device does not return the buffers{state}"
    status = status_of(answer)
    if status is None:
        wrote = answer.data.strip(bytes([POISON]))
        return f"used length 0, {'something' if wrote else 'nothing'} written"
    try:
        return f"status {Status(status).name}"
    except ValueError:
        shown = answer.data[:24].hex(" ")
        return f"no status, used length {answer.used}, bytes {shown}"


def expect(answer: Answer, wanted: Status | Collection[Status], what: str) -> None:
    """Leave the row unless a request was answered with one of these statuses."""
    statuses = [wanted] if isinstance(wanted, Status) else list(wanted)
    if status_of(answer) not in statuses:
        names = " or ".join(status.name for status in statuses)
        raise MismatchError(f"{what}: status {names}", describe(answer))


def expect_not_ok(answer: Answer, what: str) -> None:
    """Leave the row unless a request was refused, with whatever status."""
    status = status_of(answer)
    if status is None or status == Status.OK:
        raise MismatchError(f"{what}: a status other than OK", describe(answer))


def expect_untouched(answer: Answer, what: str) -> None:
    """Leave the row unless a request came back as it was, used length 0."""
    wanted = f"{what}: used length 0, nothing written"
    if answer.used != 0:
        seen = describe(answer)
        if answer.used is not None:
            seen = f"used length {answer.used}, bytes {answer.data[:8].hex(' ')}"
        raise MismatchError(wanted, seen)
    if answer.data.strip(bytes([POISON])):
        raise MismatchError(wanted, f"bytes {answer.data[:16].hex(' ')}")


def expect_equal(seen: object, wanted: object, what: str) -> None:
    """Leave the row unless two values are the same."""
    if seen != wanted:
        raise MismatchError(f"{what}: {_show(wanted)}", _show(seen))


def _show(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, int):
        return value.hex(" ") if isinstance(value, bytes) else str(value)
    return f"{value:#x}" if value > 9 else str(value)
