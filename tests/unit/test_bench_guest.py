# SPDX-License-Identifier: GPL-2.0-or-later
"""The guests' benchmark without a guest: rows, the counters' say, processors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from viotest.bench.guest import (
    OURS,
    OURS_ALSO,
    QEMU_EDU,
    QEMU_SAME,
    Ledger,
    Options,
    section,
)
from viotest.bench.pin import share_out
from viotest.cli.main import main
from viotest.cli.run import scenario_from
from viotest.errors import UntestableError, UsageError
from viotest.scenario.model import Scenario

if TYPE_CHECKING:
    from pathlib import Path

_BEFORE = {"map": 5, "unmap": 4, "request-errors": 1, "kicks": 7}


def samples(map_ns: float, unmap_ns: float) -> dict[str, list[float]]:
    return {"map": [map_ns] * 3, "unmap": [unmap_ns] * 3}


def test_ours_is_compared_with_both_of_theirs() -> None:
    measured = {
        OURS: samples(30.0, 12.0),
        OURS_ALSO: samples(21.0, 8.0),
        QEMU_EDU: samples(22.0, 9.0),
        QEMU_SAME: samples(120.0, 80.0),
    }
    rows = section(measured, Options(Scenario(), also_poll_us=30)).rows
    assert [row.met for row in rows] == [
        *(False, False, False, True),
        *(True, True, True, True),
    ]
    assert ["window 20" in row.what for row in rows] == [True] * 4 + [False] * 4


def test_command_repeats_the_measurement() -> None:
    measured = {name: samples(1.0, 1.0) for name in (OURS, QEMU_EDU, QEMU_SAME)}
    shown = section(measured, Options(Scenario(), rounds=3, count=50))
    assert shown.command == "viotest bench guest --rounds 3 --count 50 --also-poll 0"
    assert len(shown.rows) == 4


def after(**grown: int) -> dict[str, int]:
    names = {key.replace("_", "-"): value for key, value in grown.items()}
    return {key: value + names.get(key, 0) for key, value in _BEFORE.items()}


def test_counters_that_agree_tell_the_share_of_notifications() -> None:
    said = Ledger("ours", _BEFORE).settle(after(map=100, unmap=100, kicks=50), 100)
    assert said == "ours: 25% of the requests needed a notification"


@pytest.mark.parametrize(
    ("grown", "why"),
    [
        ({"map": 99, "unmap": 100}, "its virtio-iommu saw 99"),
        ({"map": 100, "unmap": 0}, "100 unmaps, its virtio-iommu saw 0"),
        ({"map": 100, "unmap": 100, "request_errors": 3}, "3 requests were refused"),
    ],
)
def test_counters_that_disagree_are_no_result(grown: dict[str, int], why: str) -> None:
    with pytest.raises(UntestableError, match=why):
        Ledger("ours", _BEFORE).settle(after(**grown), 100)


def test_guest_and_device_get_different_processors() -> None:
    assert share_out([10, 11], [20, 21], {0, 2, 5}) == {
        10: frozenset({0}),
        11: frozenset({2}),
        20: frozenset({5}),
        21: frozenset({5}),
    }


@pytest.mark.parametrize("processors", [{0}, {0, 1}])
def test_too_few_processors_are_left_alone(processors: set[int]) -> None:
    assert share_out([10, 11], [20], processors) == {}


def test_scenario_is_that_of_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    scenario = scenario_from(["--smp", "2", "--accel", "tcg", "--poll", "0"])
    assert (scenario.smp, scenario.accel, scenario.poll_us) == (2, "tcg", 0)
    with pytest.raises(UsageError, match="--smpp"):
        scenario_from(["--smpp", "2"])
    with pytest.raises(UsageError, match="smp"):
        scenario_from(["--smp"])


@pytest.mark.parametrize(
    ("argv", "why"),
    [
        (["bench"], "KIND"),
        (["bench", "run", "--runs", "0"], "--runs 0: out of range"),
        (["bench", "guest", "--rounds", "0"], "--rounds 0: out of range"),
        (["bench", "guest", "--count", "0"], "--count 0: out of range"),
        (["bench", "guest", "--also-poll", "101"], "--also-poll 101: out of range"),
        (["bench", "guest", "--", "--poll", "101"], "--poll 101: out of range"),
        (["bench", "core", "--json", "no/such/b.json"], "is no file that could be"),
        (["bench", "all", "--out", "/dev/null/x"], "--out /dev/null/x"),
    ],
)
def test_wrong_usage_is_refused_before_anything_starts(
    argv: list[str], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(argv) == 2
    assert why in capsys.readouterr().err
