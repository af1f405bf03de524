# SPDX-License-Identifier: GPL-2.0-or-later
"""Which QEMU is taken. QEMU is a small shell script here, and counts its starts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from viotest.errors import UsageError
from viotest.provision import qemu as subject
from viotest.provision.qemu import Qemu, provide_qemu

if TYPE_CHECKING:
    from pathlib import Path

    from viotest.provision.progress import SilentProgress

SCRIPT = """\
#!/bin/sh
echo start >>"$0.log"
case "$*" in
--version) echo 'QEMU emulator version {version} (Debian)' ;;
*help) echo 'name "{device}", bus PCI' ;;
esac
exit {status}
"""

pytestmark = pytest.mark.usefixtures("cache")


def make_qemu(
    folder: Path,
    version: str = "11.1.3",
    device: str = "vfio-user-pci",
    status: int = 0,
) -> Path:
    path = folder / subject.BINARY
    text = SCRIPT.format(version=version, device=device, status=status)
    path.write_text(text)
    path.chmod(0o755)
    return path


def test_named_qemu_is_probed_once(tmp_path: Path, progress: SilentProgress) -> None:
    path = make_qemu(tmp_path)
    expected = Qemu((str(path),), "11.1.3", "--qemu")
    assert provide_qemu(str(path), progress) == expected
    assert provide_qemu(str(path), progress) == expected
    log = path.with_name(f"{path.name}.log")
    assert log.read_text().count("start") == 2  # --version and -device help
    assert progress.messages == []


def test_qemu_on_path_is_used(
    tmp_path: Path, progress: SilentProgress, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_qemu(tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert provide_qemu("auto", progress) == Qemu((str(path),), "11.1.3", "PATH")


def test_older_qemu_with_the_client_is_untested(
    tmp_path: Path, progress: SilentProgress
) -> None:
    path = make_qemu(tmp_path, version="10.1.0")
    assert provide_qemu(str(path), progress).version == "10.1.0"
    assert "is untested: >= 11.1 is tested" in progress.messages[0]


def test_unsuitable_qemu_on_path_is_passed_over(
    tmp_path: Path, progress: SilentProgress, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_qemu(tmp_path, version="7.2.0", device="e1000")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    debian = Qemu(("loader",), "11.1.3", "debian:trixie-backports")
    monkeypatch.setattr(subject, "_from_debian", lambda progress: debian)
    assert provide_qemu("auto", progress) == debian


def test_qemu_without_the_client_says_what_it_lacks(
    tmp_path: Path, progress: SilentProgress
) -> None:
    path = make_qemu(tmp_path, version="7.2.22", device="e1000")
    with pytest.raises(UsageError, match=r"QEMU 7.2.22 .* has no vfio-user-pci.*10\.1"):
        provide_qemu(str(path), progress)


def test_qemu_that_fails_is_refused(tmp_path: Path, progress: SilentProgress) -> None:
    path = make_qemu(tmp_path, status=3)
    with pytest.raises(UsageError, match="exit 3"):
        provide_qemu(str(path), progress)


def test_program_that_is_no_qemu_is_refused(progress: SilentProgress) -> None:
    with pytest.raises(UsageError, match="is not QEMU"):
        provide_qemu("/bin/echo", progress)


def test_missing_qemu_names_the_nearest(
    tmp_path: Path, progress: SilentProgress
) -> None:
    path = make_qemu(tmp_path)
    with pytest.raises(UsageError, match=f"no such file .nearest: {path}"):
        provide_qemu(str(tmp_path / "qemu-system-x86"), progress)
    path.chmod(0o644)
    with pytest.raises(UsageError, match="is not executable"):
        provide_qemu(str(path), progress)


def test_tree_runs_through_its_own_loader(tmp_path: Path) -> None:
    argv = subject.tree_argv(tmp_path)
    assert argv[0] == f"{tmp_path}/usr/lib64/ld-linux-x86-64.so.2"
    assert argv[5] == f"{tmp_path}/usr/bin/{subject.BINARY}"
    assert argv.count("-L") == 3
