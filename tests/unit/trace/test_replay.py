# SPDX-License-Identifier: GPL-2.0-or-later
"""A replay finds what a target does otherwise, and nothing else."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import pytest

from tests.unit.trace.fakes import SHAPE, ModelDevice
from viotest.conformance.wire import Type
from viotest.trace.model import (
    ConfigWrite,
    Endpoint,
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
from viotest.trace.replay import Replay, Result

if TYPE_CHECKING:
    from collections.abc import Iterable

_IDS = (0x80, 0x88, 0x90, 0x98)
HEADER = Header(
    endpoints=tuple(
        Endpoint(number, regions)
        for number, regions in zip(_IDS, SHAPE.regions, strict=True)
    )
)
_OK, _INVAL, _RANGE, _NOENT = 0, 4, 5, 6
_PAGE = 0x1000


def request(kind: Type, status: int = _OK, **fields: Any) -> Request:
    data = Fields(kind, **fields).encode()
    writable = 516 if kind is Type.PROBE else 4
    return Request(data, len(data), writable, Outcome(status, writable))


def raw(data: bytes, outcome: Outcome, writable: int = 4) -> Request:
    return Request(data, len(data), writable, outcome)


def map_(iova: int, size: int = 1, status: int = _OK, flags: int = 3) -> Request:
    span = {"start": iova * _PAGE, "end": (iova + size) * _PAGE - 1}
    return request(Type.MAP, status, domain=1, phys=iova * _PAGE, flags=flags, **span)


def unmap(iova: int, size: int = 1, status: int = _OK) -> Request:
    span = {"start": iova * _PAGE, "end": (iova + size) * _PAGE - 1}
    return request(Type.UNMAP, status, domain=1, **span)


def attach(status: int = _OK, *, endpoint: int = 0x80, flags: int = 0) -> Request:
    return request(Type.ATTACH, status, domain=1, endpoint=endpoint, flags=flags)


def detach(status: int = _OK, endpoint: int = 0x80) -> Request:
    return request(Type.DETACH, status, domain=1, endpoint=endpoint)


_START = (Restart(Reset.SYSTEM), Negotiation(1 << 32 | 0x77))
_ODD = bytes([1, 0, 0, 0, 1, 0, 0, 0, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1])

#: What a guest could ask of a device that does as the specification wants.
ITEMS: tuple[Item, ...] = (
    *_START,
    request(Type.PROBE, endpoint=0x80),
    request(Type.PROBE, _NOENT, endpoint=0x77),
    attach(_NOENT, endpoint=0x77),
    attach(_INVAL, flags=2),
    raw(_ODD, Outcome(_INVAL, 4)),
    map_(1, status=_NOENT),
    attach(),
    map_(1),
    map_(2),
    map_(2, status=_INVAL),
    map_(4, flags=9, status=_INVAL),
    unmap(1),
    map_(1),
    map_(8, 2),
    unmap(7, 2, status=_RANGE),
    unmap(1, 6),
    map_(1, 5),
    raw(b"\x77" + bytes(19), Outcome(None, 0)),
    raw(_ODD[:19], Outcome(None, 0)),
    raw(bytes([1, 5]) + _ODD[2:16] + bytes(4), Outcome(_OK, 4)),
    Opaque(),
    detach(),
    detach(_NOENT, endpoint=0x77),
    map_(1, status=_NOENT),
    attach(),
    map_(20),
    Restart(Reset.DRIVER),
    Negotiation(1 << 32 | 0x77),
    map_(20, status=_NOENT),
    unmap(20, status=_NOENT),
)
_NR_REQUESTS = sum(isinstance(item, Request) for item in ITEMS)


def replay(
    items: Iterable[Item],
    device: ModelDevice | None = None,
    *,
    header: Header = HEADER,
    wait: bool = True,
) -> Result:
    return Replay(device or ModelDevice(), header, wait=wait).run(items)


@pytest.mark.parametrize("wait", [True, False])
def test_device_that_conforms_shows_no_difference(wait: bool) -> None:
    result = replay(ITEMS, wait=wait)
    assert result.differences == []
    assert result.nr_replayed == _NR_REQUESTS
    assert (result.nr_skipped, result.nr_opaque) == (0, 1)
    assert result.notes == []


#: A defect of the model, and the request at which it must show.
_DEFECTS = {
    "any-endpoint": request(Type.ATTACH, _NOENT, domain=1, endpoint=0x77),
    "attach-flags": attach(_INVAL, flags=2),
    "attach-reserved": raw(_ODD, Outcome(_INVAL, 4)),
    "map-unknown-domain": map_(1, status=_NOENT),
    "map-overlap": map_(2, status=_INVAL),
    "map-adjacent-refused": map_(2),
    "map-flags": map_(4, flags=9, status=_INVAL),
    "unmap-holes-refused": unmap(1, 6),
    "unmap-exact-only": map_(1, 5),
    "unmap-unknown-domain": unmap(20, status=_NOENT),
    "unknown-unsupp": raw(b"\x77" + bytes(19), Outcome(None, 0)),
    "short-answered": raw(_ODD[:19], Outcome(None, 0)),
    "head-reserved": raw(bytes([1, 5]) + _ODD[2:16] + bytes(4), Outcome(_OK, 4)),
    "detach-any-endpoint": detach(_NOENT, endpoint=0x77),
    "domain-survives": map_(1, status=_NOENT),
    "reset-keeps-domains": map_(20, status=_NOENT),
    "short-used": request(Type.PROBE, endpoint=0x80),
    "probe-any-endpoint": request(Type.PROBE, _NOENT, endpoint=0x77),
    "empty-probe": request(Type.PROBE, endpoint=0x80),
    "two-msi": request(Type.PROBE, endpoint=0x80),
}


@pytest.mark.parametrize("defect", _DEFECTS)
@pytest.mark.parametrize("wait", [True, False])
def test_defect_is_a_difference(defect: str, wait: bool) -> None:
    result = replay(ITEMS, ModelDevice(defect), wait=wait)
    requests = [item for item in ITEMS if isinstance(item, Request | Opaque)]
    found = {requests[d.number - 1] for d in result.differences}
    assert _DEFECTS[defect] in found
    for difference in result.differences:
        assert difference.recorded != difference.replayed
        assert difference.what


def test_difference_says_what_was_asked_and_answered() -> None:
    items = (*_START, attach(), map_(1), map_(1, status=_INVAL))
    [difference] = replay(items, ModelDevice("map-overlap")).differences
    assert difference.number == 3
    assert difference.what == "MAP domain 1 0x1000-0x1fff to 0x1000 (read write)"
    assert (difference.recorded, difference.replayed) == ("INVAL", "OK")


def test_used_length_is_compared() -> None:
    result = replay((*_START, attach()), ModelDevice("short-used"))
    [difference] = result.differences
    assert (difference.recorded, difference.replayed) == ("OK", "OK, used length 3")


def test_regions_of_probe_are_compared() -> None:
    items = (*_START, request(Type.PROBE, endpoint=0x80))
    [difference] = replay(items, ModelDevice("empty-probe")).differences
    assert difference.recorded == "OK, regions: msi 0xfee00000-0xfeefffff"
    assert difference.replayed == "OK, regions: none"


def test_regions_that_a_defect_may_have_hidden_are_not_compared() -> None:
    items = (*_START, request(Type.PROBE, endpoint=0x80))
    header = dataclasses.replace(HEADER, mutants=("empty-probe",))
    assert not replay(items, ModelDevice("empty-probe"), header=header).differences


def test_replay_waits_where_the_guest_did() -> None:
    device = ModelDevice()
    together = [dataclasses.replace(map_(i), together=True) for i in range(2, 9)]
    replay((*_START, attach(), map_(1), *together, map_(9)), device)
    # Four are all that fit.
    assert device.batches == [1, 4, 4, 1]
    device = ModelDevice()
    replay((*_START, attach(), map_(1), *together, map_(9)), device, wait=False)
    assert device.batches == [4, 4, 2]


def test_large_buffers_go_alone() -> None:
    device = ModelDevice()
    large = dataclasses.replace(detach(), writable=3000, outcome=Outcome(4, 3000))
    replay((*_START, large, large), device, wait=False)
    assert device.batches == [1, 1]


def test_resets_configuration_and_features_are_replayed_in_order() -> None:
    device = ModelDevice()
    items = (
        *(Restart(Reset.SYSTEM), ConfigWrite(36, 1, 1), Negotiation(1 << 32 | 0x4)),
        *(attach(), ConfigWrite(36, 1, 0), Restart(Reset.FLR)),
        *(Restart(Reset.DRIVER), Restart(Reset.CLIENT_GONE)),
    )
    replay(items, device)
    assert device.calls == [
        *("system reset", "config 36 1 1", "negotiate 0x4", "config 36 1 0"),
        *("reset", "reset", "system reset"),
    ]


def test_features_that_are_not_offered_are_left_out_and_said() -> None:
    device = ModelDevice()
    result = replay((Negotiation(1 << 32 | 0x7F), attach()), device)
    assert device.calls == ["negotiate 0x77"]
    assert result.notes == ["features that it does not offer were left out: 0x8"]
    assert not result.differences


class _Refuser(ModelDevice):
    def negotiate(self, features: Any) -> bool:
        return False


def test_features_that_are_refused_are_a_difference() -> None:
    result = replay((Negotiation(1 << 32), attach(), attach()), _Refuser())
    [difference] = result.differences
    assert (difference.number, difference.replayed) == (0, "refused")
    assert (result.nr_replayed, result.nr_skipped) == (0, 2)


def test_endpoints_get_the_ids_that_the_target_knows() -> None:
    device = ModelDevice()
    device.ids = {0x1234: 0x80, 0x80: 0x4000}
    items = (
        *_START,
        attach(endpoint=0x1234),
        attach(_NOENT, endpoint=0x80),
        request(Type.PROBE, endpoint=0x1234),
        detach(endpoint=0x1234),
        map_(1, status=_NOENT),
    )
    header = Header(endpoints=(Endpoint(0x1234, SHAPE.regions[0]),))
    assert not replay(items, device, header=header).differences


def test_stuck_target_is_asked_again_after_a_reset() -> None:
    broken = raw(_ODD, Outcome(None, 0), writable=2)
    items = (
        *(*_START, attach(), broken, attach(), attach()),
        *(Restart(Reset.DRIVER), Negotiation(1 << 32 | 0x77), attach()),
    )
    result = replay(items, ModelDevice("no-tail-resets"))
    [difference] = result.differences
    assert (difference.number, difference.replayed) == (2, "not returned")
    assert (result.nr_replayed, result.nr_skipped) == (3, 2)
    assert "request 2: the device asks for a reset" in result.notes[0]


def test_target_that_dies_is_a_difference_and_the_end() -> None:
    device = ModelDevice(dies_at=2)
    result = replay((*_START, attach(), map_(1), map_(2)), device)
    [difference] = result.differences
    assert difference.number == 2
    assert "QEMU was killed by SIGSEGV" in difference.replayed
    assert result.nr_replayed == 1
