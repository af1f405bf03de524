# SPDX-License-Identifier: GPL-2.0-or-later
"""``viotest trace``: a guest's requests are recorded, and asked again of targets."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.functional.conftest import clean_viotest

if TYPE_CHECKING:
    from collections.abc import Callable

_COMMAND = Path(sys.executable).parent / "viotest"
_TIMEOUT = 180


@pytest.fixture
def trace(
    assets: None, tmp_path: Path
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """``viotest trace``; a temporary file that it leaves behind fails the test."""
    tmp = tmp_path / "tmp"
    tmp.mkdir()

    def run(*args: str | Path) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [os.fspath(_COMMAND), "trace", *map(str, args)],
            cwd=tmp_path,
            env=os.environ | {"TMPDIR": os.fspath(tmp)},
            capture_output=True,
            text=True,
            timeout=_TIMEOUT,
            check=False,
        )
        assert not list(tmp.iterdir())
        return done

    return run


@pytest.fixture(scope="module")
def folder(assets: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a short run of a real guest."""
    with clean_viotest(tmp_path_factory.mktemp("run")) as viotest:
        wanted = ("--check", "dma-read", "--check", "unmap")
        done = viotest.run(*wanted, "--log-records", "131072")
        done.expect("PASS", 0)
        assert (done.out / "device.bin").stat().st_size == 4096 + 131072 * 64
    return done.out


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def targets(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    value = json.loads(done.stdout)["targets"]
    assert isinstance(value, dict)
    return value


def test_guest_is_recorded_and_replayed_without_a_difference(
    trace: Callable[..., subprocess.CompletedProcess[str]], folder: Path, tmp_path: Path
) -> None:
    done = trace("record", folder)
    assert done.returncode == 0, done.stderr
    header, *items = lines(tmp_path / "trace.jsonl")
    counts = json.loads((folder / "results.json").read_text())["device"]["requests"]
    for kind in ("attach", "detach", "map", "unmap", "probe"):
        assert sum(item["do"] == kind for item in items) == counts[kind]
    assert counts["map"] > 10
    assert [endpoint["id"] for endpoint in header["endpoints"]] == [0x80]

    done = trace("replay", "trace.jsonl", "--json", "-")
    assert done.returncode == 0, done.stdout + done.stderr
    nr = sum(counts.values())
    for result in targets(done).values():
        assert result["differences"] == []
        assert (result["nr_replayed"], result["nr_skipped"]) == (nr, 0)
    assert set(targets(done)) == {"viotest", "qemu"}
    shown = trace("show", "trace.jsonl").stdout.splitlines()
    assert sum(" MAP domain" in line for line in shown) == counts["map"]


#: A defect of our device at replay, and what the guest's first trouble with it is.
_MUTANTS = {
    "fail-map": ("MAP", "OK", "DEVERR"),
    "ignore-unmap": ("MAP", "OK", "INVAL"),
    "empty-probe": ("PROBE", "OK, regions: msi", "OK, regions: none"),
    "short-used-len": ("", "OK", "OK, used length"),
}


@pytest.mark.parametrize("mutant", _MUTANTS)
def test_defect_of_the_target_is_a_difference(
    trace: Callable[..., subprocess.CompletedProcess[str]], folder: Path, mutant: str
) -> None:
    assert trace("record", folder).returncode == 0
    args = ("--target", "viotest", "--device-mutant", mutant, "--json", "-")
    done = trace("replay", "trace.jsonl", "--no-wait", *args)
    assert done.returncode == 1, done.stdout + done.stderr
    first = targets(done)["viotest"]["differences"][0]
    what, recorded, replayed = _MUTANTS[mutant]
    assert first["what"].startswith(what)
    assert first["recorded"].startswith(recorded)
    assert first["replayed"].startswith(replayed)


def test_run_is_made_and_recorded_at_once(
    trace: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    run = ("--accel", "tcg", "--check", "dma-read", "--device-mutant", "fail-map")
    done = trace("record", "--out", "bad.jsonl", "--", *run)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "FAIL" in done.stdout
    header, *items = lines(tmp_path / "bad.jsonl")
    assert header["mutants"] == ["fail-map"]
    assert 3 in [item["status"] for item in items if item["do"] == "map"]
    # Whoever gets it right now does otherwise than what was recorded.
    done = trace("replay", "bad.jsonl", "--json", "-")
    assert done.returncode == 1
    for result in targets(done).values():
        first = result["differences"][0]
        assert (first["recorded"], first["replayed"]) == ("DEVERR", "OK")


_MAP = {"do": "map", "domain": 1, "flags": 3}
_ATTACH = {"do": "attach", "domain": 1, "endpoint": 0x1234, "flags": 0, "status": 0}
_START = [{"do": "negotiate", "features": "0x100000077"}]
#: Number of the request, and how QEMU answers it otherwise than it should.
_QEMU_DIFFERS = {
    2: ("INVAL", "OK"),  # A1: reserved bytes of ATTACH
    8: ("INVAL", "OK"),  # U4: what a refused UNMAP covers is gone
    9: ("RANGE", "OK"),  # M1: a misaligned MAP
    10: ("no status, used length 0", "UNSUPP"),  # O2: an unknown type
    11: ("NOENT", "OK"),  # O7: domains outlive a reset
    12: ("no status, used length 0", "not returned"),  # O5: a short request
}


def page(start: int, end: int, status: int, **more: Any) -> dict[str, Any]:
    return {"start": start << 12, "end": (end << 12) - 1, "status": status, **more}


def handwritten() -> list[dict[str, Any]]:
    odd = "0100000001000000341200000000000000000001"
    unmap = {"do": "unmap", "domain": 1}
    return [
        {"viotest-trace": 1, "endpoints": [{"id": 0x1234}]},
        *_START,
        _ATTACH | {"endpoint": 0xF8, "status": 6},
        {"do": "raw", "bytes": odd, "writable": 4, "status": 4},
        _ATTACH,
        _MAP | page(0x10, 0x11, 0, phys=0x1000),
        _MAP | page(0x11, 0x12, 0, phys=0x2000),
        _MAP | page(0x12, 0x14, 0, phys=0x3000),
        unmap | page(0x10, 0x13, 5),
        _MAP | page(0x11, 0x12, 4, phys=0x2000),
        _MAP | page(0x20, 0x21, 5, phys=0x1800),
        {"do": "raw", "bytes": "77000000", "writable": 4, "status": None},
        {"do": "reset", "kind": "driver"},
        *_START,
        _MAP | page(0x40, 0x41, 6, phys=0x1000),
        {"do": "raw", "bytes": "010000", "writable": 4, "status": None},
        _ATTACH | {"endpoint": 0x444, "status": 6},
        {"do": "reset", "kind": "system"},
        *_START,
        _ATTACH,
    ]


def test_what_qemu_does_otherwise_is_found(
    trace: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    text = "".join(json.dumps(line) + "\n" for line in handwritten())
    (tmp_path / "hand.jsonl").write_text(text)
    done = trace("replay", "hand.jsonl", "--json", "-")
    assert done.returncode == 1, done.stdout + done.stderr
    seen = targets(done)
    assert seen["viotest"]["differences"] == []
    assert seen["viotest"]["nr_replayed"] == 14
    found = {
        d["number"]: (d["recorded"], d["replayed"]) for d in seen["qemu"]["differences"]
    }
    assert found == _QEMU_DIFFERS
    assert (seen["qemu"]["nr_replayed"], seen["qemu"]["nr_skipped"]) == (13, 1)
    done = trace("replay", "hand.jsonl", "--target", "viotest")
    assert done.returncode == 0
    assert "viotest: no difference; 14 requests replayed" in done.stdout


@pytest.mark.parametrize(
    "args",
    [
        ("record",),
        ("record", "no-such-folder"),
        ("record", "--", "--dry-run"),
        ("record", "--", "--no-such-option"),
        ("record", "--out", "/no/such/folder/x", "."),
        ("replay", "no-such-file"),
        ("replay", "bad"),
        ("replay", "good", "--target", "other"),
        ("replay", "good", "--device-mutant", "no-such-mutant"),
        ("replay", "good", "--qemu", "/no/such/qemu"),
        ("replay", "good", "--json", "/no/such/folder/r.json"),
        ("show", "bad"),
    ],
)
def test_wrong_usage_is_one_line(
    trace: Callable[..., subprocess.CompletedProcess[str]],
    tmp_path: Path,
    args: tuple[str, ...],
) -> None:
    (tmp_path / "good").write_text('{"viotest-trace":1}\n')
    (tmp_path / "bad").write_text('{"viotest-trace":1}\n{"do":"jump"}\n')
    before = set(tmp_path.iterdir())
    done = trace(*args)
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert set(tmp_path.iterdir()) == before


def test_folder_without_a_log_cannot_be_recorded(
    trace: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    done = trace("record", ".")
    assert done.returncode == 125
    assert "device.toml" in done.stderr
    assert not (tmp_path / "trace.jsonl").exists()
