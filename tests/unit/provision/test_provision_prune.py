# SPDX-License-Identifier: GPL-2.0-or-later
"""Tidying the cache: only what is old goes, and never from under anybody."""

from __future__ import annotations

import multiprocessing
import os
import time
from typing import TYPE_CHECKING

import pytest

from viotest.cli.main import main
from viotest.errors import UsageError
from viotest.provision import cache as cache_module
from viotest.provision.cache import find, provide
from viotest.provision.progress import SilentProgress
from viotest.provision.prune import contents, prune

if TYPE_CHECKING:
    from collections.abc import Mapping
    from multiprocessing.connection import Connection
    from pathlib import Path

FORK = multiprocessing.get_context("fork")
DAY = 24 * 3600


@pytest.fixture(autouse=True)
def _no_user(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # This process is a user as soon as it has looked; here it only tidies.
    class Nobody:
        def join(self, root: Path) -> None:
            pass

    monkeypatch.setattr(cache_module, "_USERS", Nobody())


def make(kind: str, key: str, *, days: float = 0, size: int = 10) -> Path:
    """Make an entry that was used so many days ago."""

    def build(folder: Path) -> Mapping[str, object]:
        (folder / "file").write_bytes(bytes(size))
        return {}

    path = provide(kind, key, build, SilentProgress(), what="a thing").path
    then = time.time() - days * DAY
    os.utime(path, (then, then))
    return path


def test_only_what_is_old_is_removed() -> None:
    new, old = make("kernel", "new", days=2), make("kernel", "old", days=4)
    removed = prune(3)
    assert [holding.path for holding in removed] == [old]
    assert new.is_dir()
    assert not old.exists()


def test_use_is_recorded_once_a_day(cache: Path) -> None:
    path = make("kernel", "k", days=0.5)
    before = path.stat().st_mtime
    assert find("kernel", "k")
    assert path.stat().st_mtime == before
    path = make("kernel", "k", days=40)
    assert find("kernel", "k")
    assert contents()[0].idle < 1
    assert prune(30) == []


def test_neither_memos_nor_scratch_are_entries(cache: Path) -> None:
    make("kernel", "k")
    cache_module.write_memo("kernel-name", "name", {"key": "k"})
    (cache / "tmp/somebody/entry").mkdir(parents=True)
    (cache / "tmp/somebody" / cache_module.MANIFEST).write_text("{}")
    assert [holding.kind for holding in contents()] == ["kernel"]


def test_contents_tell_kind_size_and_age() -> None:
    make("qemu", "a", days=1)
    make("kernel", "old", days=9)
    make("kernel", "new", size=1 << 20)
    held = contents()
    assert [h.path.name for h in held] == ["new", "old", "a"]
    assert held[0].size >= 1 << 20
    assert round(held[1].idle) == 9


def use_and_wait(pipe: Connection, root: Path) -> None:
    cache_module._Users().join(root)
    pipe.send("using")
    pipe.recv()


def test_nothing_is_removed_while_somebody_uses_the_cache(cache: Path) -> None:
    path = make("kernel", "old", days=90)
    ours, theirs = FORK.Pipe()
    user = FORK.Process(target=use_and_wait, args=(theirs, cache), daemon=True)
    user.start()
    assert ours.recv() == "using"
    with pytest.raises(UsageError, match="another viotest process uses the cache"):
        prune(1)
    assert path.is_dir()
    ours.send("enough")
    user.join()
    assert [holding.path for holding in prune(1)] == [path]


def test_user_of_another_cache_gives_the_first_one_up(
    cache: Path, tmp_path: Path
) -> None:
    make("kernel", "old", days=90)
    users = cache_module._Users()
    users.join(cache)
    with pytest.raises(UsageError):
        prune(1)
    (tmp_path / "other/locks").mkdir(parents=True)
    users.join(tmp_path / "other")
    assert len(prune(1)) == 1
    os.close(users._descriptor)


def test_command_says_what_there_was_and_what_went(
    cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make("kernel", "old", days=40)
    make("kernel", "new", days=1)
    assert main(["cache"]) == 0
    first, last = capsys.readouterr().out.splitlines()
    assert first.split()[:2] == ["kernel", "2"]
    assert first.endswith("used 1 to 40 days ago")
    assert last.split()[:2] == ["all", "2"]
    assert last.endswith(f"{cache}")
    assert main(["cache", "prune"]) == 0
    out = capsys.readouterr().out
    assert "kernel/old" in out
    assert "1 removed" in out
    assert main(["cache", "prune", "--unused", "0"]) == 2
    assert "--unused 0" in capsys.readouterr().err


def test_cache_that_is_not_there_is_empty(
    cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["cache"]) == 0
    assert capsys.readouterr().out.split()[:2] == ["all", "0"]
    assert prune(1) == []
