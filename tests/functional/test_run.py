# SPDX-License-Identifier: GPL-2.0-or-later
"""``viotest run`` on good guests: what it says, what it keeps, what it counts."""

from __future__ import annotations

import gzip
import json
import os
import re
import shlex
import subprocess
import sys
import xml.etree.ElementTree as ET
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.functional.conftest import clean_viotest
from tests.functional.harness import RUN_FILES
from tests.unit.provision.conftest import make_bzimage
from viotest.scenario.model import IOMMUFD_MODES, Mode
from viotest.suite.catalog import CHECKS, NAMES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.functional.harness import Finished, Viotest

FIRST_LINE = (
    r"QEMU (?P<qemu>\d+\.\d+\S*) \((?P<origin>[^)]+)\), kernel (?P<kernel>\S+),"
    r" (?P<accel>kvm|tcg): (?P<reason>.+)"
)
LAST_LINE = r"PASS  (?P<passed>\d+) passed(, \d+ skipped)?  in (?P<seconds>[\d.]+) s"
SOURCES = {"run", "qmp", "device", "console", "guest", "check", "dmesg"}


@pytest.fixture(scope="module")
def default(
    assets: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Finished]:
    """One run with no options, for many tests to look at."""
    with clean_viotest(tmp_path_factory.mktemp("default")) as viotest:
        yield viotest.run()


def ids(done: Finished) -> list[str]:
    return [check["id"] for check in done.results["checks"]]


def passed_ids(done: Finished) -> list[str]:
    checks = done.results["checks"]
    return [check["id"] for check in checks if check["outcome"] == "pass"]


def names_in(modes: Sequence[str]) -> set[str]:
    """The checks that there are in these modes."""
    there = [Mode(mode) for mode in modes]
    return {
        check.name
        for check in CHECKS
        if check.modes_among(there)
        and not (check.slow or check.thorough or check.on_request)
    }


def is_as_it_should(check: dict[str, Any]) -> bool:
    """Passed, or left out for lack of an endpoint or by a bug that is known."""
    why = ("--endpoint", "known of type1 before Linux 6.18")
    skipped = check["outcome"] == "skip" and any(w in check["reason"] for w in why)
    return skipped or check["outcome"] == "pass"


def expect_all_passed(done: Finished, modes: tuple[str, ...] = ("type1v2",)) -> None:
    """Fail unless all passed, in every mode, that one endpoint is enough for."""
    checks = done.expect("PASS", 0)["checks"]
    assert {check["name"] for check in checks} == names_in(modes)
    assert {check["mode"] for check in checks} == {"", *modes}
    wrong = [check for check in checks if not is_as_it_should(check)]
    assert not wrong, done.stdout


def test_default_run_passes(default: Finished) -> None:
    expect_all_passed(default)
    assert default.stderr == ""


def test_first_line_names_qemu_kernel_and_accelerator(default: Finished) -> None:
    match = re.fullmatch(FIRST_LINE, default.lines[0])
    assert match, default.lines[0]
    results = default.results
    assert match["qemu"] == results["qemu"]["version"]
    assert match["origin"] == results["qemu"]["origin"]
    assert match["kernel"] == results["kernel"]["release"]
    assert match["accel"] == results["accel"]["chosen"] == "tcg"
    assert match["reason"] == results["accel"]["reason"] == "asked for"


def test_last_line_is_verdict_counts_and_seconds(default: Finished) -> None:
    match = re.fullmatch(LAST_LINE, default.lines[-1])
    assert match, default.lines[-1]
    assert int(match["passed"]) == len(passed_ids(default))
    assert float(match["seconds"]) == pytest.approx(default.results["seconds"], abs=0.1)


def test_table_has_a_line_for_each_check(default: Finished) -> None:
    rows = [line.split()[:2] for line in default.lines if line.startswith("  pass")]
    assert rows == [["pass", check_id] for check_id in passed_ids(default)]


def test_run_folder_is_private_and_complete(default: Finished) -> None:
    assert default.out.stat().st_mode & 0o7777 == 0o700
    assert {path.name for path in default.out.iterdir()} == RUN_FILES
    assert all(path.is_file() for path in default.out.iterdir())


def test_results_have_the_promised_fields(default: Finished) -> None:
    results = default.results
    assert results["schema"] == 1
    assert (results["verdict"], results["exit_code"]) == ("PASS", 0)
    assert results["cause"] is None
    assert results["scenario"]["kernel"] == "debian:trixie"
    phases = results["phases"]
    order = ["launched", "beacon", "ssh", "verdict", "end"]
    assert all(phases[a] < phases[b] for a, b in pairwise(order))
    assert phases["end"] <= results["seconds"]
    keys = {"id", "outcome", "required", "mode", "seconds", "reason"}
    required = {check.name for check in CHECKS if check.required}
    for check in results["checks"]:
        assert keys <= check.keys()
        assert check["required"] == (check["name"] in required)
        assert 0 <= check["seconds"] < results["seconds"]
    assert results["clock"]["guest_error_ns"] < 100e6
    assert results["cpu"].keys() == {"orchestrator", "device", "qemu"}


def test_device_counts_what_the_checks_did(default: Finished) -> None:
    device = default.results["device"]
    requests, dma, faults = device["requests"], device["dma"], device["faults"]
    # One probe per endpoint, and another each time that it is found anew.
    assert 1 <= requests["probe"] <= 2
    assert requests["attach"] >= 3
    assert requests["map"] >= 20
    assert requests["unmap"] >= 20
    assert requests["malformed"] == requests["unknown"] == 0
    assert dma["transactions"] > 64
    # dma-read, -write and -copy of 2 MiB.
    assert dma["read_bytes"] > 4 << 20
    assert dma["write_bytes"] > 4 << 20
    # Each refused access is one error, one fault and one report.
    assert faults["mapping"] + faults["domain"] + faults["unknown"] >= 4
    assert faults["reported"] >= 4
    # A race that has to be repeated with more DMA may flood the event queue.
    assert faults["dropped"] < 100
    assert device["irqs"] > 0
    assert device["resets"] > 0


def test_device_counters_agree_with_its_log(default: Finished) -> None:
    counted = default.results["device"]
    events = [e["event"] for e in default.timeline if e["source"] == "device"]
    for kind in ("attach", "detach", "map", "unmap", "probe"):
        assert events.count(kind) == counted["requests"][kind], kind
    assert events.count("fault") == counted["faults"]["reported"]
    assert events.count("dma") == counted["dma"]["transactions"]


def test_timeline_is_sorted_and_has_every_source(default: Finished) -> None:
    timeline = default.timeline
    assert {event["source"] for event in timeline} >= SOURCES
    stamps = [event["ns"] for event in timeline]
    assert stamps == sorted(stamps)
    assert all(type(ns) is int and ns > 0 for ns in stamps)


def _first(done: Finished, source: str, event: str, **data: object) -> dict[str, Any]:
    return next(
        e for e in done.events(source, event) if data.items() <= e["data"].items()
    )


def test_timeline_is_one_clock(default: Finished) -> None:
    """What one side sees happens between what the other did before and after."""
    error = default.results["clock"]["guest_error_ns"]
    start = _first(default, "check", "start", id="dma-copy[type1v2-2MiB]")
    end = _first(default, "check", "end", id="dma-copy[type1v2-2MiB]")
    inside = [
        e
        for e in default.events("device", "map")
        if start["ns"] <= e["ns"] <= end["ns"]
    ]
    assert len(inside) >= 2
    # The guest's kernel speaks of a fault after the device has seen it.
    faults = [e for e in default.events("device", "fault")]
    heard = [
        e
        for e in default.events("dmesg", "line")
        if "fault from EP" in e["data"]["text"]
    ]
    assert heard
    assert heard[0]["ns"] + 2 * error + 5_000_000 >= faults[0]["ns"]
    assert heard[-1]["ns"] <= default.timeline[-1]["ns"]


def test_junit_has_every_check(default: Finished) -> None:
    suites = ET.parse(default.out / "junit.xml").getroot()
    cases = list(suites.iter("testcase"))
    assert len(cases) == len(default.results["checks"])
    assert not [case for case in cases if len(case) and case[0].tag != "skipped"]


def test_iommu_of_the_guest_is_ours(default: Finished) -> None:
    argv = default.qemu_argv()
    assert "virtio-iommu" not in argv
    assert argv.count('"driver":"vfio-user-pci"') == 2


def test_argv_is_what_dry_run_says(default: Finished, viotest: Viotest) -> None:
    dry = viotest.run("--dry-run")
    assert dry.returncode == 0
    assert not dry.out.exists()

    def without_pid(text: str) -> str:
        return re.sub(r"--parent-pid \d+", "", text).strip()

    assert without_pid(dry.stdout) == without_pid(
        (default.out / "argv.txt").read_text()
    )
    assert shlex.split(default.qemu_argv())


def test_scenario_repeats_the_run(default: Finished, viotest: Viotest) -> None:
    again = viotest.run("--config", os.fspath(default.out / "scenario.json"), accel="")
    expect_all_passed(again)
    assert again.results["scenario"] == default.results["scenario"]
    assert ids(again) == ids(default)


def test_qemus_own_iommu_passes(viotest: Viotest) -> None:
    done = viotest.run("--iommu", "qemu")
    results = done.expect("PASS", 0)
    assert "virtio-iommu-pci" in done.qemu_argv()
    assert done.qemu_argv().count('"driver":"vfio-user-pci"') == 1
    assert {check["name"] for check in results["checks"]} == names_in(["type1v2"])
    assert not (done.out / "viot.bin").exists()
    # Our IOMMU was not there; our endpoint was.
    assert results["device"]["requests"]["map"] == 0
    assert results["device"]["dma"]["transactions"] > 64


def test_every_mode_on_two_cpus_passes_or_names_its_option(viotest: Viotest) -> None:
    # Debian's kernels have the two modes of type1, and no iommufd.
    done = viotest.run("--mode", "all", "--smp", "2")
    checks = done.expect("PASS", 0)["checks"]
    assert {check["name"] for check in checks} == names_in(list(Mode))
    assert {check["mode"] for check in checks} == {"", *Mode}
    names: dict[str, set[str]] = {mode: set() for mode in Mode}
    for check in checks:
        why = check["reason"]
        if check["mode"] not in IOMMUFD_MODES or "--endpoint" in why:
            assert is_as_it_should(check), check
        else:
            assert why.endswith("this kernel lacks CONFIG_IOMMUFD"), check
        if check["mode"]:
            names[check["mode"]].add(check["id"].replace(check["mode"], ""))
    assert names["type1"] == names["type1v2"]
    # Which has no limit of mappings, and more to ask.
    assert names["type1"] - {"map-limit[]"} < names["iommufd-group"]
    assert names["iommufd-group"] < names["cdev-ioas"] == names["cdev-hwpt"]


def test_mode_that_the_kernel_lacks_is_untested(viotest: Viotest) -> None:
    done = viotest.run("--mode", "cdev-ioas", "--check", "open")
    cause = done.expect("UNTESTED", 125)["cause"]
    assert "no /dev/iommu: this kernel lacks CONFIG_IOMMUFD" in cause["text"]


def test_json_in_a_deep_folder_of_some_checks(viotest: Viotest) -> None:
    # A UNIX socket address has 108 bytes.
    out = viotest.folder.joinpath(*["a-folder-with-a-long-name"] * 5)
    assert len(os.fspath(out)) > 108
    done = viotest.run("--json", "--check", "bind", "--check", "dma-*", out=out)
    results = done.expect("PASS", 0)
    assert json.loads(done.stdout) == results
    assert done.stderr == ""
    names = {check["name"] for check in results["checks"]}
    assert names == {name for name in NAMES if name.startswith("dma-")} | {"bind"}


def test_options_may_come_from_the_environment(viotest: Viotest) -> None:
    env = {"VIOTEST_ACCEL": "tcg", "VIOTEST_CHECK": "bind,open", "VIOTEST_MEM": "320"}
    done = viotest.run("--check", "group", accel="", env=env)
    results = done.expect("PASS", 0)
    # The command line wins over the environment.
    assert ids(done) == ["group"]
    assert results["scenario"]["mem"] == 320
    assert " -m 320M " in done.qemu_argv()


@pytest.mark.parametrize(
    "kernel",
    [
        "debian:trixie-backports",
        pytest.param("debian:bookworm-backports", marks=pytest.mark.nightly),
    ],
)
def test_other_debian_kernel_passes(viotest: Viotest, kernel: str) -> None:
    require_kernel(viotest, kernel)
    done = viotest.run("--kernel", kernel)
    expect_all_passed(done)
    assert done.results["kernel"]["spec"] == kernel


def require_kernel(viotest: Viotest, kernel: str) -> None:
    dry = viotest.run("--dry-run", "--kernel", kernel)
    if dry.returncode == 125:
        pytest.skip(dry.stderr.strip())
    assert dry.returncode == 0, dry.stderr


def kernel_files(default: Finished) -> tuple[Path, Path]:
    """Return the image and the modules that the default run was made with."""
    words = shlex.split(default.qemu_argv())
    image = Path(words[words.index("-kernel") + 1])
    return image, image.parent / "lib/modules" / default.results["kernel"]["release"]


def test_kernel_file_with_modules_passes(default: Finished, viotest: Viotest) -> None:
    image, modules = kernel_files(default)
    done = viotest.run("--kernel", os.fspath(image), "--modules", os.fspath(modules))
    expect_all_passed(done)
    assert done.results["kernel"]["release"] == default.results["kernel"]["release"]


@pytest.mark.nightly
def test_bzimage_with_modules_passes(default: Finished, viotest: Viotest) -> None:
    vmlinux, modules = kernel_files(default)
    image = viotest.folder / "bzImage"
    image.write_bytes(make_bzimage(gzip.compress(vmlinux.read_bytes(), 1)))
    done = viotest.run(
        *("--kernel", os.fspath(image), "--modules", os.fspath(modules)),
        env=viotest.private_cache(),
    )
    expect_all_passed(done)
    # It was unpacked, for a boot by PVH.
    assert done.results["kernel"]["pvh"]
    assert f"-kernel {image}" not in done.qemu_argv()


def test_accelerator_is_chosen_by_a_proof(viotest: Viotest) -> None:
    done = viotest.run("--check", "group", accel="")
    accel = done.expect("PASS", 0)["accel"]
    if accel["chosen"] == "kvm":
        assert accel["reason"].startswith("KVM booted a guest")
    else:
        assert "/dev/kvm" in accel["reason"] or "KVM did not boot" in accel["reason"]


def test_suite_runs_under_a_users_own_pytest(viotest: Viotest) -> None:
    base = viotest.folder / "base"
    argv = ["-q", "--pyargs", "viotest.suite", "-k", "bind", f"--basetemp={base}"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *argv],
        cwd=viotest.folder,
        env=viotest.env | {"VIOTEST_ACCEL": "tcg"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert re.search(r"\d passed", done.stdout)
