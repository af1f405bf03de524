# SPDX-License-Identifier: GPL-2.0-or-later
"""A device's log becomes a trace, or it is said why it cannot."""

from __future__ import annotations

import random
import struct
from typing import TYPE_CHECKING

import pytest

from tests.unit.trace.logs import CONFIG, FEATURES, LogWriter
from viotest.conformance import wire
from viotest.conformance.lab import Region
from viotest.conformance.wire import Type
from viotest.errors import UntestableError
from viotest.trace.model import (
    ConfigWrite,
    Fields,
    Item,
    Negotiation,
    Opaque,
    Outcome,
    Request,
    Reset,
    Restart,
    fields_of,
)
from viotest.trace.record import Recording

if TYPE_CHECKING:
    from pathlib import Path

_MAP = Fields(Type.MAP, domain=1, flags=3, start=0x1000, end=0x1FFF, phys=0x5000)
_NOT_RETURNED = 2**64 - 1


def record(log: LogWriter, folder: Path) -> list[Item]:
    return list(Recording(log.write(folder)).items())


def requests(items: list[Item]) -> list[Request]:
    return [item for item in items if isinstance(item, Request)]


def started() -> LogWriter:
    log = LogWriter()
    log.reset(1)
    log.negotiate()
    return log


def test_header_has_the_configuration(tmp_path: Path) -> None:
    log = started()
    log.map()
    header = Recording(log.write(tmp_path)).header
    assert header.iommu == {"bypass": 1}
    [endpoint] = header.endpoints
    assert endpoint.id == 0x80
    assert endpoint.regions == (Region(wire.RESV_MEM_MSI, 0xFEE00000, 0xFEEFFFFF),)
    assert header.mutants == ("ignore-unmap",)
    assert header.lost == 0


def test_usual_requests_are_rebuilt_from_their_records(tmp_path: Path) -> None:
    log = started()
    log.add("attach", endpoint=0x80, domain=1, flags=1, status=4)
    log.map()
    log.add("unmap", domain=1, words=(0x1000, 0x1FFF, 0))
    log.add("detach", endpoint=0x80, domain=1)
    log.add("probe", endpoint=0x80, words=(0, 516, 0))
    found = requests(record(log, tmp_path))
    assert [fields_of(request.data) for request in found] == [
        Fields(Type.ATTACH, domain=1, endpoint=0x80, flags=1),
        _MAP,
        Fields(Type.UNMAP, domain=1, start=0x1000, end=0x1FFF),
        Fields(Type.DETACH, domain=1, endpoint=0x80),
        Fields(Type.PROBE, endpoint=0x80),
    ]
    assert [request.writable for request in found] == [4, 4, 4, 4, 516]
    assert [request.readable for request in found] == [20, 36, 28, 20, 72]
    assert found[0].outcome == Outcome(4, 4)
    assert found[4].outcome == Outcome(0, 516)


def test_unusual_request_has_its_own_bytes(tmp_path: Path) -> None:
    data = bytes([Type.ATTACH, 1, 2, 3]) + bytes(range(16))
    log = started()
    log.detail(data, 8, 8)
    log.add("attach", endpoint=0x07060504, domain=0x03020100, status=4)
    log.map()
    odd, usual = requests(record(log, tmp_path))
    assert odd.data == data
    assert (odd.readable, odd.writable, odd.outcome) == (20, 8, Outcome(4, 8))
    assert fields_of(usual.data) == _MAP


def test_requests_without_an_answer(tmp_path: Path) -> None:
    log = started()
    log.detail(b"\x77\1", 4, 0)
    log.add("unknown-request", flags=0x77, words=(2, 4, 0))
    log.detail(bytes([1]), 600000, 0)
    log.add("malformed-request", words=(1, 600000, 0))
    log.detail(bytes([2]) + bytes(71), 4, _NOT_RETURNED, readable=1 << 40)
    log.add("detach", endpoint=0, domain=0)
    unknown, malformed, dropped = requests(record(log, tmp_path))
    assert (unknown.data, unknown.outcome) == (b"\x77\1", Outcome(None, 0))
    assert (malformed.writable, malformed.outcome) == (1 << 18, Outcome(None, 0))
    assert (dropped.readable, dropped.outcome) == (4096, Outcome(None, None))


def test_request_outside_of_memory_is_opaque(tmp_path: Path) -> None:
    log = started()
    log.add("malformed-request", words=(20, 4, 0))
    assert isinstance(record(log, tmp_path)[-1], Opaque)


def test_requests_that_the_guest_did_not_wait_for_are_together(tmp_path: Path) -> None:
    log = started()
    # Each record is 100 ns after the one before; the second was taken right then.
    log.map(0x1000)
    log.map(0x2000, duration=100)
    log.map(0x3000, duration=99)
    log.add("dma", source=1)
    log.map(0x4000, duration=200)
    found = requests(record(log, tmp_path))
    assert [request.together for request in found] == [False, True, False, True]


def test_state_before_the_first_request_is_kept(tmp_path: Path) -> None:
    log = LogWriter()
    log.add("client-attached")
    log.reset(1)
    log.add("device-status", status=0)
    log.reset(3)
    log.negotiate(features=1 << 32 | 4)
    log.add("config-write", words=(36, 36, 1))
    log.add("config-write", words=(36, 38, 1))
    log.map()
    items = record(log, tmp_path)
    assert [type(item) for item in items] == [
        Restart,
        Negotiation,
        ConfigWrite,
        Request,
    ]
    assert isinstance(items[0], Restart)
    assert items[0].kind is Reset.SYSTEM
    assert isinstance(items[1], Negotiation)
    assert items[1].features == 1 << 32 | 4
    assert isinstance(items[2], ConfigWrite)
    assert (items[2].offset, items[2].size, items[2].value) == (36, 1, 1)


def test_features_that_the_device_refused_are_no_negotiation(tmp_path: Path) -> None:
    log = LogWriter()
    log.reset(1)
    log.negotiate(features=FEATURES | 1 << 20)
    log.reset(3)
    log.negotiate(features=0x77)
    log.reset(3)
    log.negotiate()
    log.map()
    found = [i for i in record(log, tmp_path) if isinstance(i, Negotiation)]
    assert [negotiation.features for negotiation in found] == [FEATURES]


def test_what_follows_the_last_request_is_left_out(tmp_path: Path) -> None:
    log = started()
    log.map()
    log.reset(3)
    log.negotiate()
    log.reset(4)
    items = record(log, tmp_path)
    assert [type(item) for item in items] == [Restart, Negotiation, Request]


def test_other_functions_are_left_out(tmp_path: Path) -> None:
    log = started()
    log.add("map", domain=1, source=1)
    log.add("reset", flags=2, source=1)
    log.map()
    assert [type(i) for i in record(log, tmp_path)] == [Restart, Negotiation, Request]


def test_second_iommu(tmp_path: Path) -> None:
    log = started()
    log.map()
    log.source = 1
    log.reset(1)
    log.negotiate()
    log.map(0x7000)
    config = CONFIG + '[[iommu]]\nsocket = "viommu1.sock"\n'
    recording = Recording(log.write(tmp_path, config), 1)
    [request] = requests(list(recording.items()))
    fields = fields_of(request.data)
    assert fields is not None
    assert fields.start == 0x7000
    assert recording.header.endpoints == ()


# -- what was lost


def test_lost_beginning_is_refused(tmp_path: Path) -> None:
    log = LogWriter(capacity=8)
    log.reset(1)
    log.negotiate()
    for _ in range(8):
        log.map()
    with pytest.raises(UntestableError, match=r"first 5 records, .*--log-records"):
        Recording(log.write(tmp_path))


@pytest.mark.parametrize(("kind", "enough"), [(1, True), (2, False), (3, False)])
def test_lost_beginning_is_no_matter_after_a_system_reset(
    tmp_path: Path, kind: int, enough: bool
) -> None:
    log = LogWriter(capacity=16)
    log.reset(1)
    log.negotiate()
    for _ in range(8):
        log.map()
    log.reset(kind)
    log.negotiate()
    log.map(0x9000)
    log.map(0xA000)
    folder = log.write(tmp_path)
    if not enough:
        with pytest.raises(UntestableError, match="lost"):
            Recording(folder)
        return
    recording = Recording(folder)
    assert recording.header.lost == 4
    assert [type(item) for item in recording.items()] == [
        *(Restart, Negotiation),
        *(Request, Request),
    ]


def test_reset_of_another_function_does_not_help(tmp_path: Path) -> None:
    log = LogWriter(capacity=8)
    for _ in range(12):
        log.map()
    log.add("reset", flags=1, source=1)
    log.map()
    with pytest.raises(UntestableError, match="lost"):
        Recording(log.write(tmp_path))


def test_record_missing_in_the_middle_is_a_loss(tmp_path: Path) -> None:
    log = started()
    log.map()
    log.map()
    log.slots[5] = bytes(64)
    with pytest.raises(UntestableError, match="lost"):
        Recording(log.write(tmp_path), 0)


# -- what is no run folder


def test_guest_with_an_iommu_of_qemu_has_no_log(tmp_path: Path) -> None:
    log = started()
    config = 'monitor.socket = "m"\n[[endpoint]]\nname = "a"\nsocket = "b"\nid = 1\n'
    with pytest.raises(UntestableError, match="was not ours"):
        Recording(log.write(tmp_path, config))


@pytest.mark.parametrize("number", [-1, 1])
def test_iommu_that_is_not_there(tmp_path: Path, number: int) -> None:
    with pytest.raises(UntestableError, match=f"no virtio-iommu {number} .only 0"):
        Recording(started().write(tmp_path), number)


@pytest.mark.parametrize(
    "config",
    [
        "iommu = 5",
        "iommu = [5]",
        "[[iommu]]\nbypass = 7",
        "[[iommu]]\n[[endpoint]]\niommu = 0",
        "[[iommu]]\n[[endpoint]]\nid = 'x'\niommu = 0",
        "[[iommu]]\n[[endpoint]]\nid = 1\niommu = 0\nresv_mem = 3",
        "endpoint = 3\n[[iommu]]",
        "mutants = 3\n[[iommu]]",
        "[[[",
        "\0",
    ],
)
def test_damaged_configuration_is_an_error(tmp_path: Path, config: str) -> None:
    with pytest.raises(UntestableError, match=r"device\.toml"):
        Recording(started().write(tmp_path, config))


def test_folder_without_a_log_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UntestableError, match=r"no run folder, it has no device\.toml"):
        Recording(tmp_path)
    (tmp_path / "device.toml").write_text(CONFIG)
    with pytest.raises(UntestableError, match="no device log"):
        Recording(tmp_path)


def test_folder_of_several_guests_names_one(tmp_path: Path) -> None:
    for name in ("worker-gw1", "worker-gw0"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "device.toml").write_text(CONFIG)
    with pytest.raises(UntestableError, match=r"name a guest's folder, as \S+gw0\)"):
        Recording(tmp_path)


def test_pieces_that_do_not_fit_are_an_error(tmp_path: Path) -> None:
    log = started()
    log.add("request-detail", status=2)
    log.map()
    with pytest.raises(UntestableError, match="pieces"):
        record(log, tmp_path)


def test_damaged_logs_never_crash(tmp_path: Path) -> None:
    log = started()
    for i in range(8):
        log.map(0x1000 * i)
        log.detail(bytes([1, 9]) + bytes(18), 4, 4)
        log.add("attach", endpoint=1, domain=1)
    log.write(tmp_path)
    path = tmp_path / "device.bin"
    whole = path.read_bytes()
    rng = random.Random(1)
    refused = 0
    for _ in range(300):
        data = bytearray(whole)
        for _ in range(rng.randrange(1, 6)):
            at = rng.choice([rng.randrange(48), rng.randrange(4096, 4096 + 64 * 40)])
            data[at] = rng.randrange(256)
        if rng.random() < 0.3:
            struct.pack_into("<Q", data, 24, rng.choice([0, 1, 2**63, 2**64 - 1]))
        path.write_bytes(data)
        try:
            list(Recording(tmp_path).items())
        except UntestableError:
            refused += 1
    assert 0 < refused < 300
