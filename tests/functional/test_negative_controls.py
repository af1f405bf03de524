# SPDX-License-Identifier: GPL-2.0-or-later
"""The suite can fail: each defect of the device is found by the check aimed at it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.functional.harness import Viotest


@pytest.mark.parametrize(
    ("mutant", "check", "reason"),
    [
        ("ignore-unmap", "unmap", "was not refused: ok"),
        ("ignore-permissions", "fault-permission", "was not refused: ok"),
        ("translate-off-by-page", "dma-read", "CRC-32 of 4096 bytes"),
    ],
)
def test_device_mutant_fails_at_its_check(
    viotest: Viotest, mutant: str, check: str, reason: str
) -> None:
    done = viotest.run("--device-mutant", mutant)
    results = done.expect("FAIL", 1)
    failed = [one for one in results["checks"] if one["outcome"] == "fail"]
    assert failed[0]["name"] == check
    assert reason in failed[0]["reason"]
    assert failed[0]["details"]
    assert results["cause"]["category"] == "fail"
    assert results["cause"]["text"] == f"{failed[0]['id']}: {failed[0]['reason']}"
    # All that comes before works in spite of the defect.
    before = results["checks"][: results["checks"].index(failed[0])]
    assert {one["outcome"] for one in before} == {"pass"}
    assert done.lines[-1].startswith("FAIL  ")
    assert f"again    viotest run --config {done.out.name}/scenario.json" in done.lines
