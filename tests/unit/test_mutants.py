# SPDX-License-Identifier: GPL-2.0-or-later
"""Mutants: what is aimed at them, and when one counts as killed."""

from __future__ import annotations

import dataclasses
import fnmatch
import json
import re
import signal
import subprocess
import sys
import threading
import time
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from viotest.campaign.mutants import (
    Fate,
    Kind,
    Mutant,
    Trial,
    device_mutants,
    judge_trial,
    kernel_mutants,
    parse_patch,
    parse_version,
    unreachable,
    worst_outcomes,
)
from viotest.campaign.mutation import Campaign, Clean, Trials, exit_code
from viotest.campaign.plan import device_command
from viotest.errors import UntestableError
from viotest.scenario.model import Mode
from viotest.suite.aims import DEVICE_AIMS, Aim
from viotest.suite.catalog import NAMES

if TYPE_CHECKING:
    from collections.abc import Sequence

PAGE = Path(__file__).parents[2] / "docs" / "mutants.md"
PATCHES = sorted(Path(str(resources.files("viotest.guest_images"))).glob("mutants/*"))
MUTANT = Mutant(Kind.DEVICE, "it", "breaks", Aim(("unmap", "dma-*")))


def result(verdict: str, *checks: tuple[str, str], cause: str = "") -> dict[str, Any]:
    """Return what of results.json is looked at."""
    category, _, text = cause.partition(": ")
    return {
        "verdict": verdict,
        "cause": {"category": category, "text": text} if cause else None,
        "seconds": 1.5,
        "checks": [
            {"id": f"{name}[m]", "name": name, "outcome": outcome, "reason": "why"}
            for name, outcome in checks
        ],
    }


# -- what is there


def test_aims_cover_exactly_the_devices_mutants() -> None:
    names = [mutant.name for mutant in device_mutants(device_command())]
    assert sorted(names) == sorted(DEVICE_AIMS)


@pytest.mark.parametrize("path", PATCHES, ids=lambda path: path.name)
def test_patch_says_what_is_aimed_at_it(path: Path) -> None:
    mutant = parse_patch(path)
    expect_aimed(mutant.aim)
    assert mutant.title
    assert mutant.files
    assert set(mutant.modes) <= set(Mode)
    assert all(name.startswith("drivers/") for name in mutant.files)


@pytest.mark.parametrize("name", DEVICE_AIMS)
def test_defect_of_the_device_is_aimed_at(name: str) -> None:
    expect_aimed(DEVICE_AIMS[name])


def test_every_check_is_aimed_at_by_what_its_page_says_it_caught() -> None:
    aimed: dict[str, set[str]] = {name: set() for name in NAMES}
    for mutant in (*map(parse_patch, PATCHES), *device_mutants(device_command())):
        for check in mutant.checks:
            aimed[check].add(mutant.name)
    section = PAGE.read_text().partition("## Each check has failed")[2]
    rows = re.findall(r"^\| `(\S+)` \| (.+) \|$", section, re.MULTILINE)
    assert [check for check, _ in rows] == list(NAMES)
    for check, caught in rows:
        names = set(caught.split(", "))
        assert names <= aimed[check], f"{check}: {names - aimed[check]} not aimed at it"


def expect_aimed(aim: Aim) -> None:
    """Fail unless there is one kind of aim, at checks that exist."""
    kinds = (aim.checks, aim.cause, aim.wanted, aim.unobservable)
    assert sum(map(bool, kinds)) == 1, aim
    for pattern in aim.checks:
        assert fnmatch.filter(NAMES, pattern), f"no check is called {pattern}"


def test_enough_kernel_mutants_for_each_kernel() -> None:
    for version in ((6, 12), (7, 3)):
        names = [mutant.name for mutant in kernel_mutants(version)]
        assert len(names) == len(set(names)) >= 20


def test_patch_is_chosen_by_version() -> None:
    def chosen(version: tuple[int, int]) -> str:
        return next(
            mutant.patch.name
            for mutant in kernel_mutants(version)
            if mutant.name == "no-detach" and mutant.patch
        )

    assert chosen((6, 12)) == "no-detach.patch"
    assert chosen((7, 2)) == "no-detach.patch"
    assert chosen((7, 3)) == chosen((8, 0)) == "no-detach@7.3.patch"


def test_patch_under_a_wrong_name_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.patch"
    path.write_text("title\n\nMutant: it\nAims: unmap\n\n--- a/x.c\n+++ b/x.c\n")
    with pytest.raises(UntestableError, match="Mutant: other"):
        parse_patch(path)


def test_version_of_a_release() -> None:
    assert parse_version("6.12.95+deb12-cloud-amd64") == (6, 12)
    with pytest.raises(UntestableError):
        parse_version("next")


# -- what counts


FATES: list[tuple[str, dict[str, Any], Fate, tuple[str, ...], tuple[str, ...]]] = [
    (
        "an aimed check",
        result("FAIL", ("bar", "pass"), ("unmap", "fail")),
        Fate.KILLED,
        ("unmap",),
        (),
    ),
    (
        "an aimed check among others",
        result("FAIL", ("bind", "fail"), ("dma-read", "fail"), ("unmap", "pass")),
        Fate.KILLED,
        ("dma-read",),
        ("bind",),
    ),
    (
        "only others",
        result("FAIL", ("bind", "fail"), cause="fail: bind: why"),
        Fate.SURVIVED,
        (),
        ("bind",),
    ),
    ("nothing", result("PASS", ("unmap", "pass")), Fate.SURVIVED, (), ()),
    (
        "the boot",
        result("UNTESTED", cause="boot-fail: Kernel panic"),
        Fate.SURVIVED,
        (),
        (),
    ),
    (
        "our side",
        result("UNTESTED", ("unmap", "error"), cause="infra: QEMU died"),
        Fate.UNTESTED,
        (),
        (),
    ),
]


@pytest.mark.parametrize(
    ("results", "fate", "caught", "others"),
    [row[1:] for row in FATES],
    ids=[row[0] for row in FATES],
)
def test_fate_follows_from_what_failed(
    results: dict[str, Any],
    fate: Fate,
    caught: tuple[str, ...],
    others: tuple[str, ...],
) -> None:
    trial = judge_trial(MUTANT, results, "folder")
    assert (trial.fate, trial.caught, trial.others) == (fate, caught, others)
    assert trial.text


def test_end_of_the_device_is_noticed_by_its_name() -> None:
    mutant = dataclasses.replace(MUTANT, aim=Aim(cause="viotest-device"))
    gone = result("UNTESTED", ("unmap", "error"), cause="infra: viotest-device died")
    assert judge_trial(mutant, gone, "").fate is Fate.KILLED
    other = result("UNTESTED", ("unmap", "error"), cause="infra: QEMU died")
    assert judge_trial(mutant, other, "").fate is Fate.UNTESTED


def test_one_failure_outweighs_other_modes_and_sizes() -> None:
    checks = result("FAIL", ("a", "pass"), ("a", "fail"), ("a", "skip"), ("b", "skip"))
    assert worst_outcomes(checks["checks"]) == {"a": "fail", "b": "skip"}


def test_mutant_of_another_mode_is_explained() -> None:
    mutant = dataclasses.replace(MUTANT, modes=("cdev-hwpt",))
    assert "cdev-hwpt" in unreachable(mutant, ("type1",))
    assert not unreachable(mutant, ("type1", "cdev-hwpt"))
    foreign = dataclasses.replace(MUTANT, files=("drivers/vfio/vfio_main.c",))
    assert "vfio_main.c" in unreachable(foreign, ("type1",), only_iommu=True)
    assert not unreachable(foreign, ("type1",))


KILLED = Trial(MUTANT, Fate.KILLED)
SURVIVED = Trial(MUTANT, Fate.SURVIVED)
EXPLAINED = Trial(MUTANT, Fate.EXPLAINED)
UNTESTED = Trial(MUTANT, Fate.UNTESTED)


@pytest.mark.parametrize(
    ("verdict", "trials", "code"),
    [
        ("PASS", [KILLED, EXPLAINED], 0),
        ("PASS", [], 0),
        ("PASS", [KILLED, SURVIVED], 1),
        ("PASS", [UNTESTED, SURVIVED], 1),
        ("FAIL", [KILLED], 1),
        ("FAIL", [UNTESTED], 1),
        ("PASS", [KILLED, UNTESTED], 125),
        ("UNTESTED", [KILLED], 125),
    ],
)
def test_exit_code(verdict: str, trials: Sequence[Trial], code: int) -> None:
    assert exit_code(Clean((result(verdict),)), trials) == code


# -- the runs, with a program of ours in the place of viotest

FAKE = """
import json, pathlib, sys, time
arguments = sys.argv[3:]
print(" ".join(arguments))
if "hang" in arguments:
    time.sleep(60)
if arguments[0] == "kernel":
    print("/cache/x.ko")
    raise SystemExit(arguments[-1].endswith("bad.patch"))
out = pathlib.Path(arguments[arguments.index("--out") + 1])
if "no-result" not in arguments:
    out.mkdir()
    names = [a.partition("=")[2] for a in arguments if a.startswith("--check=")]
    outcome = "fail" if "--device-mutant" in arguments else "pass"
    checks = [{"id": f"{name}[m]", "name": name, "reason": "why",
        "outcome": "skip" if name == "reattach" else outcome}
        for name in names or ["unmap"]]
    verdict = "FAIL" if outcome == "fail" else "PASS"
    (out / "results.json").write_text(json.dumps({"verdict": verdict, "cause": None,
        "seconds": 1, "checks": checks, "arguments": arguments}))
"""


@pytest.fixture
def campaign(tmp_path: Path) -> Campaign:
    """A campaign of two runs at once."""
    (tmp_path / "fake.py").write_text(FAKE)
    return Campaign(trials(tmp_path), (sys.executable, f"{tmp_path / 'fake.py'}"))


def trials(out: Path, *, quick: bool = True, kernel: str = "debian:x") -> Trials:
    return Trials(kernel, out, 2, quick, ("type1",), ("--accel", "tcg"))


def device_mutant(name: str, aim: Aim = MUTANT.aim) -> Mutant:
    return Mutant(Kind.DEVICE, name, "breaks", aim)


def test_each_mutant_has_a_run_of_its_own(campaign: Campaign, tmp_path: Path) -> None:
    mutants = [device_mutant(name) for name in ("a", "b", "c")]
    told: list[tuple[str, int]] = []
    tried = campaign.try_all(mutants, lambda t, n, left: told.append((t.folder, n)))
    assert [trial.mutant.name for trial in tried] == ["a", "b", "c"]
    assert {trial.fate for trial in tried} == {Fate.KILLED}
    assert [count for _, count in told] == [1, 2, 3]
    arguments = json.loads((tmp_path / "device-b/results.json").read_text())[
        "arguments"
    ]
    assert arguments[:3] == ["run", "--kernel", "debian:x"]
    assert "--mode=type1" in arguments
    assert arguments[-2:] == ["--device-mutant", "b"]
    # Quick: the aimed checks, by name.
    assert "--check=dma-read" in arguments


def test_check_that_cannot_be_put_here_explains_its_mutant(campaign: Campaign) -> None:
    mutant = device_mutant("a", Aim(("reattach",)))
    campaign.run_clean([mutant])
    # The fake skips it.
    elsewhere = campaign.try_one(mutant)
    assert elsewhere.fate is Fate.EXPLAINED
    assert "reattach" in elsewhere.text
    assert campaign.try_one(device_mutant("b")).fate is Fate.KILLED


def test_whole_suite_is_the_default(tmp_path: Path) -> None:
    (tmp_path / "fake.py").write_text(FAKE)
    command = (sys.executable, f"{tmp_path / 'fake.py'}")
    Campaign(trials(tmp_path, quick=False), command).try_one(device_mutant("a"))
    said = (tmp_path / "device-a/stdout.txt").read_text()
    assert "--check" not in said


def test_check_that_is_only_put_by_name_is_named(tmp_path: Path) -> None:
    (tmp_path / "fake.py").write_text(FAKE)
    command = (sys.executable, f"{tmp_path / 'fake.py'}")
    campaign = Campaign(trials(tmp_path, quick=False), command)
    # The fake's whole suite is unmap.
    usual, rare = device_mutant("a"), device_mutant("b", Aim(("kexec",)))
    clean = campaign.run_clean([usual, rare])
    assert clean.outcomes == {"unmap": "pass", "kexec": "pass"}
    assert (clean.verdict, clean.seconds) == ("PASS", 2)
    assert campaign.try_one(rare).caught == ("kexec",)
    campaign.try_one(usual)
    assert "--check" not in (tmp_path / "device-a/stdout.txt").read_text()


def test_check_that_the_suite_did_not_get_to_is_put_alone(tmp_path: Path) -> None:
    (tmp_path / "fake.py").write_text(FAKE)
    command = (sys.executable, f"{tmp_path / 'fake.py'}")
    campaign = Campaign(trials(tmp_path, quick=False), command)
    # The fake's suite fails in unmap, and ends.
    trial = campaign.try_one(device_mutant("a", Aim(("unmap-time",))))
    assert (trial.fate, trial.caught) == (Fate.KILLED, ("unmap-time",))
    assert trial.others == ("unmap",)
    assert trial.seconds == 2
    assert trial.folder == "device-a-alone"
    assert trial.outcomes == {"unmap": "fail", "unmap-time": "fail"}


def test_clean_kernel_that_fails_a_check_by_name_has_failed() -> None:
    clean = Clean((result("PASS", ("unmap", "pass")), result("FAIL", cause="fail: x")))
    assert clean.verdict == "FAIL"
    assert clean.decisive["cause"]["text"] == "x"
    assert exit_code(clean, [KILLED]) == 1


def test_kernel_mutant_is_built_and_used(campaign: Campaign, tmp_path: Path) -> None:
    mutant = Mutant(Kind.KERNEL, "k", "breaks", MUTANT.aim, patch=Path("/good.patch"))
    trial = campaign.try_one(mutant)
    assert trial.folder == "kernel-k"
    said = (tmp_path / "kernel-k/stdout.txt").read_text()
    assert "--replace-module=/cache/x.ko" in said


def test_mutant_that_does_not_build_is_untested(campaign: Campaign) -> None:
    mutant = Mutant(Kind.KERNEL, "k", "breaks", MUTANT.aim, patch=Path("/bad.patch"))
    trial = campaign.try_one(mutant)
    assert trial.fate is Fate.UNTESTED
    assert "cannot build k" in trial.text


def test_run_without_a_result_is_untested(campaign: Campaign) -> None:
    trial = campaign.try_one(device_mutant("no-result"))
    assert trial.fate is Fate.UNTESTED
    assert "no result of viotest run" in trial.text


def test_mutant_that_nobody_aims_at_survives_without_a_run(campaign: Campaign) -> None:
    trial = campaign.try_one(device_mutant("a", Aim(wanted="a look at it")))
    assert (trial.fate, trial.folder) == (Fate.SURVIVED, "")
    assert trial.text == "wanted: a look at it"


def test_interrupt_ends_the_runs(campaign: Campaign) -> None:
    done: list[Trial] = []
    thread = threading.Thread(
        target=lambda: done.append(campaign.try_one(device_mutant("hang")))
    )
    thread.start()
    deadline = time.monotonic() + 10
    while not campaign.running and time.monotonic() < deadline:
        time.sleep(0.01)  # another thread starts it, and tells nobody
    campaign.stop()
    thread.join(10)
    assert not thread.is_alive()
    assert done[0].fate is Fate.UNTESTED
    assert "interrupted" in campaign.try_one(device_mutant("b")).text


def test_child_dies_with_its_parent() -> None:
    code = (
        "import subprocess, sys, os, time\n"
        "child = subprocess.Popen([sys.executable, '-c',"
        " 'import sys, time; from viotest.campaign.proc import die_with;"
        " die_with(int(sys.argv[1])); print(1, flush=True); time.sleep(60)',"
        " str(os.getpid())])\n"
        "time.sleep(60)\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    with parent.stdout:
        assert parent.stdout.readline() == "1\n"
        parent.send_signal(signal.SIGKILL)
        # The end of the file: the child, too, has let go of it.
        assert parent.stdout.read() == ""
    parent.wait()
