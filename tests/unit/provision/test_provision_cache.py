# SPDX-License-Identifier: GPL-2.0-or-later
"""The cache: complete or absent entries, one builder, nothing left by the dead."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from viotest.errors import UsageError
from viotest.provision import cache as subject
from viotest.provision.cache import CacheError, provide, require_space
from viotest.provision.progress import SilentProgress

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

FORK = multiprocessing.get_context("fork")


class Builder:
    """Writes one file and counts how often it had to."""

    def __init__(self, text: str = "content") -> None:
        self.text = text
        self.nr_builds = 0

    def __call__(self, folder: Path) -> Mapping[str, object]:
        self.nr_builds += 1
        (folder / "sub").mkdir()
        (folder / "sub/file").write_text(self.text)
        (folder / "link").symlink_to("nowhere")
        return {"number": self.nr_builds}


def get(build: Callable[[Path], Mapping[str, object]]) -> subject.Entry:
    return provide("kind", "key", build, SilentProgress(), what="a thing")


def test_entry_is_built_once_and_keeps_facts(cache: Path) -> None:
    build = Builder()
    first, second = get(build), get(build)
    assert build.nr_builds == 1
    assert first == second
    assert second.facts == {"number": 1}
    assert second.path == cache / "kind/key"
    assert not [path for path in (cache / "tmp").iterdir() if path.is_dir()]


def damage_remove(path: Path) -> None:
    path.unlink()


def damage_truncate(path: Path) -> None:
    os.truncate(path, 3)


def damage_edit(path: Path) -> None:
    path.write_text("CONTENT")
    os.utime(path, ns=(1, 1))


@pytest.mark.parametrize("damage", [damage_remove, damage_truncate, damage_edit])
def test_damaged_entry_is_rebuilt(cache: Path, damage: Callable[[Path], None]) -> None:
    build = Builder()
    damage(get(build).path / "sub/file")
    assert (get(build).path / "sub/file").read_text() == "content"
    assert build.nr_builds == 2


@pytest.mark.parametrize(
    "manifest", ["", "[]", "{}", '{"files": {"a": []}}', '{"files": 1, "facts": {}}']
)
def test_malformed_manifest_is_rebuilt(cache: Path, manifest: str) -> None:
    build = Builder()
    (get(build).path / subject.MANIFEST).write_text(manifest)
    get(build)
    assert build.nr_builds == 2


def test_copied_cache_is_not_rebuilt(cache: Path) -> None:
    build = Builder()
    file = get(build).path / "sub/file"
    before = file.stat().st_mtime_ns
    os.utime(file, ns=(1, 1))
    get(build)
    assert build.nr_builds == 1
    assert file.stat().st_mtime_ns == before


def test_failed_build_leaves_nothing(cache: Path) -> None:
    def fail(folder: Path) -> Mapping[str, object]:
        (folder / "half").write_text("x")
        raise CacheError("no luck")

    with pytest.raises(CacheError):
        get(fail)
    assert not (cache / "kind").exists()
    assert [path.name for path in (cache / "tmp").iterdir()] == [".lock"]


def _count_build(log: Path) -> None:
    def build(folder: Path) -> Mapping[str, object]:
        with log.open("a") as file:
            file.write("built\n")
        time.sleep(0.3)  # long enough for the others to arrive at the lock
        return {}

    progress = SilentProgress()
    provide("kind", "key", build, progress, what="a thing")
    with log.open("a") as file:
        file.write("".join(f"{message}\n" for message in progress.messages))


def test_four_processes_build_once(cache: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    processes = [FORK.Process(target=_count_build, args=(log,)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    lines = log.read_text().splitlines()
    assert [process.exitcode for process in processes] == [0, 0, 0, 0]
    assert lines.count("built") == 1
    assert lines.count("waiting for another viotest process: a thing") == 3


def _build_until_killed(ready: int) -> None:
    def build(folder: Path) -> Mapping[str, object]:
        (folder / "half").write_text("x")
        os.write(ready, b"x")
        signal.pause()
        return {}

    get(build)


def test_killed_builder_leaves_nothing_behind(cache: Path) -> None:
    read_end, write_end = os.pipe()
    process = FORK.Process(target=_build_until_killed, args=(write_end,))
    process.start()
    os.read(read_end, 1)
    assert len(list((cache / "tmp").iterdir())) == 2
    process.kill()
    process.join()
    build = Builder()
    get(build)
    assert build.nr_builds == 1
    assert [path.name for path in (cache / "tmp").iterdir()] == [".lock"]


def test_scratch_of_the_living_is_kept(cache: Path) -> None:
    with subject.scratch() as first:
        with subject.scratch():
            assert first.is_dir()
        assert first.is_dir()
    assert not first.exists()


def test_full_disk_is_a_cache_error(cache: Path) -> None:
    def build(folder: Path) -> Mapping[str, object]:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(CacheError, match="is full"):
        get(build)


def test_unwritable_cache_names_the_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("VIOTEST_CACHE", str(tmp_path / "file/cache"))
    with pytest.raises(CacheError, match=r"cannot write the cache.*VIOTEST_CACHE"):
        get(Builder())


def test_require_space_names_path_and_sizes(tmp_path: Path) -> None:
    require_space(tmp_path / "not/there", 1)
    with pytest.raises(UsageError, match=r"too little disk: \d+ MiB free at .*there"):
        require_space(tmp_path / "not/there", 1 << 60)


def test_root_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIOTEST_CACHE", "")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", "/srv/me")
    assert subject.cache_root() == Path("/srv/me/.cache/viotest")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert subject.cache_root() == Path("/xdg/viotest")
    monkeypatch.setenv("VIOTEST_CACHE", "/mine")
    assert subject.cache_root() == Path("/mine")


@pytest.mark.parametrize("text", ["", "[1]", "{"])
def test_unreadable_memo_is_none(cache: Path, text: str) -> None:
    subject.write_memo("memos", "key", {"a": [1, "b"]})
    assert subject.read_memo("memos", "key") == {"a": [1, "b"]}
    (cache / "memos/key.json").write_text(text)
    assert subject.read_memo("memos", "key") is None


def test_manifest_lists_every_file(cache: Path) -> None:
    manifest = json.loads((get(Builder()).path / subject.MANIFEST).read_text())
    assert list(manifest["files"]) == ["sub/file"]
