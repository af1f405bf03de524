# SPDX-License-Identifier: GPL-2.0-or-later
"""apt with archives that are folders on this host: signed wrongly, expired, absent."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from viotest.provision import apt as subject
from viotest.provision.apt import Apt, AptError, Deb, expired_suites
from viotest.provision.debs import UnpackError, merged
from viotest.provision.progress import TerminalProgress

if TYPE_CHECKING:
    from pathlib import Path

    from viotest.provision.progress import SilentProgress


@pytest.fixture
def mirror(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of a mirror that apt is told to use."""
    folder = tmp_path / "mirror"
    folder.mkdir()
    monkeypatch.setattr(subject, "_host_sources", lambda: [])
    monkeypatch.setattr(subject, "find_mirror", lambda sources: f"file:{folder}")
    keyring = tmp_path / "keyring.gpg"
    keyring.touch()
    monkeypatch.setattr(subject, "KEYRINGS", (str(keyring),))
    return folder


def write_unsigned_suite(mirror: Path, suite: str) -> None:
    folder = mirror / "dists" / suite
    (folder / "main/binary-amd64").mkdir(parents=True)
    (folder / "main/binary-amd64/Packages").write_text("Package: evil\nVersion: 1\n")
    (folder / "Release").write_text(f"Suite: {suite}\nCodename: {suite}\n")


@pytest.mark.usefixtures("mirror")
def test_unreachable_index_is_a_warning_then_an_error(progress: SilentProgress) -> None:
    with Apt(progress).session() as apt:
        assert progress.messages[0].startswith("package lists are not up to date")
        with pytest.raises(AptError, match="no package busybox"):
            apt.candidates(["busybox"], "trixie")


def test_unsigned_index_is_not_used(mirror: Path, progress: SilentProgress) -> None:
    for suite in subject.SUITES:
        write_unsigned_suite(mirror, suite)
    with Apt(progress).session() as apt:
        assert "not signed" in progress.messages[0]
        with pytest.raises(AptError, match="no package evil"):
            apt.candidates(["evil"], "trixie")


def test_host_without_a_mirror_says_what_to_do(
    cache: Path, progress: SilentProgress, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subject, "_host_sources", lambda: [])
    monkeypatch.setattr(subject, "KEYRINGS", ("/dev/null",))
    with (
        pytest.raises(AptError, match=r"no Debian mirror.*sources.list.d"),
        Apt(progress).session(),
    ):
        pass


def test_host_without_keys_says_what_to_install(
    cache: Path, progress: SilentProgress, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subject, "KEYRINGS", ("/nowhere",))
    with (
        pytest.raises(AptError, match=r"debian-archive-keyring"),
        Apt(progress).session(),
    ):
        pass


def test_host_without_apt_says_so(
    cache: Path, progress: SilentProgress, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with (
        pytest.raises(AptError, match=r"apt-get and dpkg-deb are needed"),
        Apt(progress).session(),
    ):
        pass


def test_expired_suite_is_named(tmp_path: Path) -> None:
    head = "-----BEGIN PGP SIGNED MESSAGE-----\n\nCodename: {}\nValid-Until: {}\n"
    late = head.format("late", "Sat, 01 Jan 2000 00:00:00 UTC")
    fresh = head.format("fresh", "Sat, 01 Jan 2050 00:00:00 UTC")
    (tmp_path / "a_InRelease").write_text(late)
    (tmp_path / "b_InRelease").write_text(fresh)
    (tmp_path / "c_InRelease").write_text(head.format("odd", "tomorrow"))
    assert expired_suites(tmp_path, 1e9) == ["late"]


def test_print_uris_line_is_a_package() -> None:
    file = "qemu_1%3a11.1+ds-1~bpo13+1_amd64.deb"
    line = f"'http://m.example/x.deb' {file} 10377056 SHA256:a"
    match = subject._URI_LINE.search(line)
    assert match is not None
    expected = Deb("qemu", "1:11.1+ds-1~bpo13+1", 10377056)
    assert subject.parse_print_uris(match) == expected


def test_package_paths_are_merged_and_kept_inside() -> None:
    assert merged("./lib/modules/x") == "usr/lib/modules/x"
    assert merged("/usr/bin/x") == "usr/bin/x"
    with pytest.raises(UnpackError):
        merged("./usr/../../etc/passwd")


def test_damaged_package_is_an_error(tmp_path: Path) -> None:
    from viotest.provision.debs import unpack

    (tmp_path / "bad.deb").write_bytes(b"no package")
    with pytest.raises(UnpackError, match=r"bad\.deb"):
        unpack([tmp_path / "bad.deb"], tmp_path, lambda name: True)


def test_lines_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    progress = TerminalProgress()
    with progress.step("fetching a thing") as step:
        step.update(1, 2)
    progress.warn("odd")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "fetching a thing ..."
    assert lines[1].startswith("fetching a thing: done in ")
    assert lines[2] == "warning: odd"
