# SPDX-License-Identifier: GPL-2.0-or-later
"""The suite can fail: a few mutants, each caught by what is aimed at it.

`viotest mutants` without arguments is the whole of it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.functional.harness import Viotest

#: One of each kind of defect that the suite is for; modules build in seconds, once.
SUBSET = {
    "no-coherency": "bind",
    "unmap-without-kick": "unmap",
    "permissions-both": "fault-permission",
    "ignore-unmap": "unmap",
    "ignore-permissions": "fault-permission",
    "translate-off-by-page": "dma-read",
    "lose-fault-event": "fault-unmapped",
    "die": "",
}


def arguments(viotest: Viotest, *more: str) -> list[str]:
    """Return how ``viotest mutants`` is started."""
    given = ("--quick", "--accel", "tcg", "--out", "out", *more)
    return [os.fspath(viotest.command), "mutants", *given]


def test_subset_is_killed_by_aimed_checks(viotest: Viotest) -> None:
    done = subprocess.run(
        arguments(viotest, "-n", "2", *(f"--only={name}" for name in SUBSET)),
        cwd=viotest.folder,
        env=viotest.env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    out = viotest.folder / "out"
    value = json.loads((out / "mutants.json").read_text())
    assert value["clean"]["verdict"] == "PASS"
    rows = {row["name"]: row for row in value["mutants"]}
    assert rows.keys() == SUBSET.keys()
    for name, check in SUBSET.items():
        row = rows[name]
        assert row["fate"] == "killed", row
        assert not check or check in row["caught"], row
        assert (out / row["folder"] / "results.json").is_file()
        assert f"{row['kind']} {name}" in done.stdout
    assert "viotest-device" in rows["die"]["text"]
    page = (out / "mutants.html").read_text()
    assert all(name in page for name in SUBSET)
    assert done.stdout.splitlines()[-2].startswith("clean kernel PASS; 8 killed")


def test_interrupt_leaves_no_run_behind(viotest: Viotest) -> None:
    process = subprocess.Popen(
        arguments(viotest, "--device"),
        cwd=viotest.folder,
        env=viotest.env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    with process.stdout:
        # The clean run is over, and the first mutants are being tried.
        assert "no mutant: PASS" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        process.stdout.read()
    assert process.wait() == 130
