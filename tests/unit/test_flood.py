# SPDX-License-Identifier: GPL-2.0-or-later
"""How long a device needs for a request, from its log."""

from __future__ import annotations

from viotest.report.device_log import DeviceRecord
from viotest.suite.flood import shortest_gap


def unmap_at(ns: int) -> DeviceRecord:
    return DeviceRecord(1, ns, "unmap", 0, 0xFFFFFFFF, 1, 0, 0, 0xFFF, 0, 0, 0)


def test_one_fast_answer_clears_the_device() -> None:
    records = [unmap_at(ns) for ns in (0, 90_000_000, 90_010_000, 200_000_000)]
    assert shortest_gap(records) == 10_000
