# SPDX-License-Identifier: GPL-2.0-or-later
"""A QEMU in the guest passes the endpoint on, and a wrong translation is noticed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.functional.harness import Viotest

pytestmark = pytest.mark.nightly


def test_endpoint_is_passed_on_both_ways(viotest: Viotest) -> None:
    kernel = ("--kernel", "build:linux-7.3")
    done = viotest.run(*kernel, "--mode", "all", "--check", "nested")
    outcomes = {c["id"]: c["outcome"] for c in done.expect("PASS", 0)["checks"]}
    assert outcomes == {"nested[type1v2]": "pass", "nested[cdev-ioas]": "pass"}


@pytest.mark.parametrize(
    ("mutant", "reason"),
    [
        ("translate-off-by-page", "bytes of the inner machine's memory are wrong"),
        ("accept-map-ignore", "DMA in the inner machine was refused"),
        ("ignore-unmap", "CRC-32 by the endpoint of the window, switched to bus"),
        ("drop-interrupt", "no MSI-X interrupt arrives in the inner machine"),
    ],
)
def test_defect_of_the_device_is_seen_within(
    viotest: Viotest, mutant: str, reason: str
) -> None:
    done = viotest.run("--check", "nested", "--device-mutant", mutant)
    (check,) = done.expect("FAIL", 1)["checks"]
    assert reason in check["reason"]


def test_small_guest_skips_it(viotest: Viotest) -> None:
    done = viotest.run("--check", "nested", "--mem", "256")
    (check,) = done.results["checks"]
    assert check["outcome"] == "skip"
    assert "--mem 512" in check["reason"]
