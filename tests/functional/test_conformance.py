# SPDX-License-Identifier: GPL-2.0-or-later
"""``viotest conformance`` on both targets: ours conforms, QEMU is found out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_COMMAND = Path(sys.executable).parent / "viotest"

#: What QEMU 11.1.3 is known to fail; the suite must find it by itself.
_QEMU_FAILS = {"A1", "M1", "M3", "M8", "U4", "O2", "O7", "P7"}

#: Deliberate defects of our device, and rows that are aimed at them.
_MUTANTS = {
    "ignore-unmap": {"A4", "U5", "U6"},
    "ignore-permissions": {"M6a"},
    "translate-off-by-page": {"A8", "U4"},
    "lose-fault-event": {"E1", "E2", "E3", "E6", "E7"},
    "accept-map-ignore": {"C2", "A8", "M2"},
    "ignore-detach": {"O4", "D1", "D4", "D5"},
    "short-used-len": {"O1", "O8"},
    "empty-probe": {"P6"},
    "leak-between-domains": {"A8"},
}


@pytest.fixture
def conformance(
    assets: None, tmp_path: Path
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """``viotest conformance``; whatever it leaves behind fails the test."""
    tmp = tmp_path / "tmp"
    tmp.mkdir()

    def run(*args: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [os.fspath(_COMMAND), "conformance", *args],
            cwd=tmp_path,
            env=os.environ | {"TMPDIR": os.fspath(tmp)},
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )
        assert not list(tmp.iterdir())
        return done

    return run


def failed(value: Mapping[str, Any], target: str) -> set[str]:
    """Return the ids of the rows that a target failed."""
    return {
        row["id"]
        for row in value["rows"]
        if row["results"][target]["outcome"] == "fail"
    }


def test_ours_conforms_and_qemu_is_found_out(
    conformance: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    files = ["--json", "r.json", "--tap", "r.tap", "--junit", "r.xml"]
    done = conformance(*files)
    assert done.returncode == 0, done.stdout + done.stderr
    value = json.loads((tmp_path / "r.json").read_text())
    assert value["conforms"]
    assert len(value["rows"]) == 67
    outcomes = {row["results"]["viotest"]["outcome"] for row in value["rows"]}
    assert outcomes == {"pass"}
    assert failed(value, "qemu") >= _QEMU_FAILS
    header = next(line for line in done.stdout.splitlines() if line.startswith("row"))
    assert header.split()[-2:] == ["viotest", "qemu"]
    tap = (tmp_path / "r.tap").read_text()
    assert "not ok" in tap
    not_ok = [line for line in tap.splitlines() if line.startswith("not ok")]
    assert all("# TODO" in line for line in not_ok)
    assert "<testsuites" in (tmp_path / "r.xml").read_text()


def test_qemu_alone_is_judged(
    conformance: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    done = conformance("--target", "qemu", "--row", "A[123]", "--json", "-")
    assert done.returncode == 1
    assert failed(json.loads(done.stdout), "qemu") == {"A1"}


@pytest.mark.parametrize("mutant", _MUTANTS)
def test_mutant_fails_the_rows_aimed_at_it(
    conformance: Callable[..., subprocess.CompletedProcess[str]], mutant: str
) -> None:
    only = [word for row in sorted(_MUTANTS[mutant]) for word in ("--row", row)]
    done = conformance(
        "--target", "viotest", "--device-mutant", mutant, *only, "--json", "-"
    )
    assert done.returncode == 1, done.stderr
    assert failed(json.loads(done.stdout), "viotest") == _MUTANTS[mutant]


@pytest.mark.parametrize(
    "args",
    [
        ("--target", "other"),
        ("--row", "Z9"),
        ("--device-mutant", "no-such-mutant"),
        ("--qemu", "/no/such/qemu"),
        ("--json", "/no/such/folder/r.json"),
    ],
)
def test_wrong_usage_is_one_line(
    conformance: Callable[..., subprocess.CompletedProcess[str]], args: tuple[str, ...]
) -> None:
    done = conformance(*args)
    assert done.returncode == 2
    assert done.stdout == ""
    [line] = done.stderr.splitlines()
    assert args[1] in line


def test_qemu_that_does_not_start_is_untestable(
    conformance: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    fake = tmp_path / "qemu"
    fake.write_text(
        "#!/bin/sh\n"
        'case "$*" in\n'
        '*--version) echo "QEMU emulator version 11.1.0" ;;\n'
        "*-device\\ help) echo 'name \"vfio-user-pci\"' ;;\n"
        "*) echo 'qemu: no qtest here' >&2; exit 1 ;;\n"
        "esac\n"
    )
    fake.chmod(0o755)
    done = conformance("--qemu", os.fspath(fake), "--row", "F1")
    assert done.returncode == 125
    assert "no qtest here" in done.stderr
