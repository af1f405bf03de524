# SPDX-License-Identifier: GPL-2.0-or-later
"""Guests with several endpoints: groups, isolation, hot-plug, reboot."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.functional.harness import Viotest

#: What the standard set has of dma engines.
OURS = (
    *("--endpoint", "dma-engine", "--endpoint", "dma-engine"),
    *("--endpoint", "dma-engine@port", "--endpoint", "dma-engine@hotplug"),
    *("--endpoint", "dma-engine@bridge", "--endpoint", "dma-engine@bridge"),
    *("--endpoint", "dma-engine,iommu=1"),
)
QEMUS = OURS[:8]
#: Checks of more than one endpoint.
SEVERAL = ("group", "isolation", "shared-domain", "merged-group", "two-iommus")
PLUGGED = ("hot-plug", "unplug-in-use")


def only(*names: str) -> list[str]:
    return [word for name in names for word in ("--check", name)]


def test_several_endpoints_pass_behind_ours(viotest: Viotest) -> None:
    done = viotest.run(*OURS, *only(*SEVERAL, *PLUGGED))
    results = done.expect("PASS", 0)
    outcomes = {check["name"]: check["outcome"] for check in results["checks"]}
    assert outcomes == dict.fromkeys((*SEVERAL, *PLUGGED), "pass")
    # The bridge's alias was attached for what is behind it.
    attached = {e["data"]["endpoint"] for e in done.events("device", "attach")}
    assert {0x78, 0x80, 0x88, 0x90, 0x100, 0x200, 0x300, 0x308, 0x310} == attached


def test_endpoint_outlives_its_user_and_a_reboot(viotest: Viotest) -> None:
    done = viotest.run(*only("kill-in-flight", "reboot"))
    results = done.expect("PASS", 0)
    outcomes = [(check["name"], check["outcome"]) for check in results["checks"]]
    assert outcomes == [("kill-in-flight", "pass"), ("reboot", "pass")]


def test_several_endpoints_pass_behind_qemus(viotest: Viotest) -> None:
    done = viotest.run("--iommu", "qemu", *QEMUS, *only(*SEVERAL, "hot-plug"))
    results = done.expect("PASS", 0)
    outcomes = {check["name"]: check["outcome"] for check in results["checks"]}
    skipped = {"merged-group": "skip", "two-iommus": "skip"}
    names = (*SEVERAL, "hot-plug")
    assert outcomes == dict.fromkeys(names, "pass") | skipped


@pytest.mark.parametrize("place", ["port", "bridge"])
@pytest.mark.nightly
def test_every_check_passes_elsewhere_than_on_the_root_bus(
    viotest: Viotest, place: str
) -> None:
    viotest.run("--endpoint", f"dma-engine@{place}").expect("PASS", 0)


@pytest.mark.nightly
@pytest.mark.parametrize("iommu", ["viotest", "qemu"])
def test_standard_endpoints_pass(viotest: Viotest, iommu: str) -> None:
    viotest.run("--iommu", iommu, "--endpoint", "standard").expect("PASS", 0)


def test_leak_between_domains_fails_at_isolation(viotest: Viotest) -> None:
    endpoints = ("--endpoint", "dma-engine") * 2
    mutant = ("--device-mutant", "leak-between-domains")
    done = viotest.run(*endpoints, *mutant, *only("bind", "open", "isolation"))
    checks = done.expect("FAIL", 1)["checks"]
    failed = [check for check in checks if check["outcome"] == "fail"]
    assert [check["name"] for check in failed] == ["isolation"]
    assert "reached what only another endpoint has mapped" in failed[0]["reason"]


def test_endpoint_that_qemus_iommu_does_not_know_fails_at_group(
    viotest: Viotest,
) -> None:
    bridge = ("--endpoint", "dma-engine", "--endpoint", "dma-engine@bridge")
    done = viotest.run("--iommu", "qemu", *bridge, *only("group"))
    [check] = done.expect("FAIL", 1)["checks"]
    assert "NOENT" in check["details"]
