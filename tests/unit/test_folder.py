# SPDX-License-Identifier: GPL-2.0-or-later
"""The run folder: refused before anything starts, made when something does."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import NamedTuple

import pytest

from viotest.campaign import folder as subject
from viotest.campaign.folder import check_memory, check_out, make_folder
from viotest.errors import UsageError
from viotest.scenario.model import Scenario


class Usage(NamedTuple):
    total: int
    used: int
    free: int


def test_new_folder_of_any_depth_is_fine_and_not_made(tmp_path: Path) -> None:
    out = tmp_path / "a" / "b" / "c"
    check_out(out)
    assert not list(tmp_path.iterdir())
    assert make_folder(out) == out
    assert out.stat().st_mode & 0o7777 == 0o700


def test_empty_folder_is_taken_and_made_private(tmp_path: Path) -> None:
    out = tmp_path / "mine"
    out.mkdir(mode=0o755)
    check_out(out)
    make_folder(out)
    assert out.stat().st_mode & 0o7777 == 0o700


def test_folder_with_content_is_refused(tmp_path: Path) -> None:
    (tmp_path / "precious").touch()
    with pytest.raises(UsageError, match="is not empty"):
        check_out(tmp_path)


def test_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="is not a folder"):
        check_out(tmp_path / "file")


def test_place_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="file cannot be written"):
        check_out(tmp_path / "file" / "deep" / "run")


def test_dangling_link_is_refused(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "nowhere" / "at" / "all")
    with pytest.raises(UsageError, match="--out"):
        check_out(link)
    with pytest.raises(UsageError, match="--out"):
        make_folder(link)
    assert not (tmp_path / "nowhere").exists()


def test_full_disk_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        shutil, "disk_usage", lambda _: Usage(1 << 30, 1 << 30, 5 << 20)
    )
    with pytest.raises(
        UsageError, match=r"too little disk: 5 MiB free .*needs 108 MiB"
    ):
        check_out(tmp_path / "run")
    with pytest.raises(UsageError, match=r"needs 156 MiB"):
        check_out(tmp_path / "run", log_records=1 << 20)


@pytest.mark.parametrize(("mem", "fits"), [(640, True), (641, False), (1 << 20, False)])
def test_memory_must_fit(mem: int, fits: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "_available_mem", lambda: 800)
    if fits:
        check_memory(Scenario(mem=mem))
        return
    with pytest.raises(UsageError, match=f"--mem {mem}: too little memory: 800 MiB"):
        check_memory(Scenario(mem=mem))


def test_unknown_memory_is_no_reason_to_refuse(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "_available_mem", lambda: None)
    check_memory(Scenario(mem=1 << 20))


def test_default_folders_never_meet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folders = {make_folder(None) for _ in range(5)}
    assert len(folders) == 5
    assert {folder.parent for folder in folders} == {tmp_path / "viotest-runs"}
    assert all(folder.stat().st_mode & 0o7777 == 0o700 for folder in folders)


def test_default_place_that_is_a_file_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("viotest-runs").touch()
    with pytest.raises(UsageError, match="viotest-runs cannot be written"):
        check_out(None)
