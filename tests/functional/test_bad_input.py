# SPDX-License-Identifier: GPL-2.0-or-later
"""Wrong input: one line that names it, exit 2, nothing started, nothing made."""

from __future__ import annotations

import gzip
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.unit.provision.conftest import make_bzimage, make_vmlinux

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.functional.harness import Finished, Viotest


def expect_refused(done: Finished, *words: str) -> str:
    """Fail unless the run was refused in one line that has all the words."""
    assert done.returncode == 2, f"{done.stdout}{done.stderr}"
    assert done.stdout == ""
    # Unpacking a kernel is long work, which may show itself.
    said = done.stderr.splitlines()
    [line] = [text for text in said if not text.startswith("unpacking ")]
    assert line.startswith("viotest: ")
    for word in words:
        assert word in line, line
    assert not done.out.exists()
    return line


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--kernel", "debian:trixi"], ["debian:trixi'", "nearest: debian:trixie"]),
        (["--kernel", "debian:trixie-backport"], ["nearest: debian:trixie-backports"]),
        (["--kernel", "./nothing"], ["./nothing", "no such file"]),
        (["--kernel", "/dev/null"], ["/dev/null", "no built kernel tree"]),
        (["--kernel", "."], [". is no built kernel tree", "arch/x86/boot/bzImage"]),
        (["--modules", "."], ["--modules .", "goes with a kernel file"]),
        (["--qemu", "/nothing/qemu"], ["--qemu /nothing/qemu", "no such file"]),
        (["--machine", "q53"], ["--machine q53", "did you mean q35?"]),
        (["--iommu", "viotes"], ["--iommu viotes", "did you mean viotest?"]),
        (["--mode", "type1v3"], ["--mode type1v3", "did you mean type1v2?"]),
        (["--check", "dma-raed"], ["--check dma-raed", "did you mean dma-read?"]),
        (["--check", "reattach"], ["--check reattach", "--mode cdev-ioas, cdev-hwpt"]),
        (["--accel", "kmv"], ["--accel kmv", "did you mean kvm?"]),
        (["--timeout", "bot=5"], ["--timeout bot", "did you mean boot?"]),
        (["--timeout", "boot"], ["--timeout boot", "boot=SECONDS"]),
        (["--timeout", "boot=soon"], ["--timeout boot=soon", "boot=SECONDS"]),
        (["--timeout", "boot=-1"], ["--timeout boot=-1", "0 < SECONDS"]),
        (["--timeout", "boot=nan"], ["--timeout boot=nan", "0 < SECONDS"]),
        (
            ["--device-mutant", "ignore-unmaps"],
            ["--device-mutant ignore-unmaps", "did you mean ignore-unmap?"],
        ),
        (["--boot-fail-is", "good"], ["--boot-fail-is good", "bad"]),
        (["--kernel", ""], ["--kernel: is empty"]),
        (["--smp", "0"], ["--smp 0", "1 to 255"]),
        (["--smp", "two"], ["--smp two", "not a whole number"]),
        (["--endpoint", "dma-engin"], ["--endpoint dma-engin", "dma-engine"]),
        (["--endpoint", "qemu-edu"], ["needs --iommu qemu"]),
        (["--mem", "64"], ["--mem 64", "192"]),
        (["--mem", "1000000"], ["--mem 1000000", "too little memory", "available"]),
        (["--mem", "99999999"], ["--mem 99999999", "out of range"]),
        (["--config", "nothing.toml"], ["--config nothing.toml", "No such file"]),
    ],
    ids=lambda value: "=".join(value).strip("-") if value[0][:2] == "--" else "",
)
def test_wrong_value_is_refused(
    viotest: Viotest, args: list[str], words: list[str]
) -> None:
    more = "" if "--accel" in args else "tcg"
    expect_refused(viotest.run(*args, accel=more), *words)


def test_unknown_option_is_refused(viotest: Viotest) -> None:
    done = viotest.run("--kernle", "debian:trixie")
    line = expect_refused(done, "--kernle")
    assert "--kernel" in line


def test_unknown_command_is_refused(viotest: Viotest) -> None:
    argv = [os.fspath(viotest.command), "rnu"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "'rnu'" in done.stderr
    assert "run" in done.stderr


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("kernel = ", ["malformed"]),
        ("kernle = 'x'", ["'kernle'", "did you mean kernel?"]),
        ("smp = [1, 2]", ["smp", "[1, 2]"]),
        ("dry-run = 'yes'", ["dry-run", "true or false"]),
        ("mode = 'type2'", ["type2", "did you mean type1v2?"]),
        ("timeout = ['check=x']", ["check=x"]),
        ("[run]\nkernel = 'x'", ["'run'"]),
        ("smp = true", ["smp", "True"]),
    ],
)
def test_malformed_config_is_refused(
    viotest: Viotest, text: str, words: list[str]
) -> None:
    (viotest.folder / "wrong.toml").write_text(text)
    expect_refused(viotest.run("--config", "wrong.toml"), *words)


@pytest.mark.parametrize("content", [b"\xff\xfe", b"[1]", b"{", b"[" * 100_000])
def test_malformed_json_config_is_refused(viotest: Viotest, content: bytes) -> None:
    (viotest.folder / "wrong.json").write_bytes(content)
    expect_refused(viotest.run("--config", "wrong.json"), "wrong.json", "malformed")


def test_wrong_environment_is_refused(viotest: Viotest) -> None:
    done = viotest.run(env={"VIOTEST_IOMMU": "qemo"})
    expect_refused(done, "qemo", "did you mean qemu?")
    done = viotest.run(env={"VIOTEST_DRY_RUN": "perhaps"})
    expect_refused(done, "VIOTEST_DRY_RUN=perhaps")


QEMU_WITHOUT = """#!/bin/sh
case "$*" in
*-version*) echo "QEMU emulator version 10.0.2 (made up)";;
*) echo 'name "virtio-net-pci", bus PCI';;
esac
"""


def test_qemu_without_client_is_refused(viotest: Viotest) -> None:
    path = viotest.folder / "qemu-old"
    path.write_text(QEMU_WITHOUT)
    path.chmod(0o755)
    done = viotest.run("--qemu", "./qemu-old", env=viotest.private_cache())
    expect_refused(done, "QEMU 10.0.2 (./qemu-old) has no vfio-user-pci", ">= 10.1")
    near = viotest.run("--qemu", "./qemu-odl")
    expect_refused(near, "--qemu ./qemu-odl: no such file", "nearest: qemu-old")


def test_something_else_than_qemu_is_refused(viotest: Viotest) -> None:
    expect_refused(
        viotest.run("--qemu", "/bin/true", env=viotest.private_cache()),
        "/bin/true is not QEMU",
    )
    (viotest.folder / "text").write_text("not a program")
    expect_refused(viotest.run("--qemu", "./text"), "./text: is not executable")


def test_file_that_is_no_kernel_is_refused(viotest: Viotest) -> None:
    (viotest.folder / "vmlinuz").write_bytes(b"no kernel" * 1000)
    expect_refused(
        viotest.run("--kernel", "./vmlinuz", env=viotest.private_cache()),
        "vmlinuz",
        "not a kernel",
    )


def test_kernel_without_virtio_iommu_is_refused(viotest: Viotest) -> None:
    image = viotest.folder / "bzImage"
    image.write_bytes(make_bzimage(gzip.compress(make_vmlinux(), mtime=0)))
    done = viotest.run("--kernel", "./bzImage", env=viotest.private_cache())
    expect_refused(done, "./bzImage", "CONFIG_VIRTIO_IOMMU")


def test_unwritable_out_is_refused(viotest: Viotest) -> None:
    (viotest.folder / "file").write_text("")
    below = viotest.run(out=viotest.folder / "file" / "run")
    expect_refused(below, "--out", "file")
    proc = viotest.run(out=Path("/proc/viotest/run"))
    expect_refused(proc, "--out /proc/viotest/run")


def test_full_out_is_refused(viotest: Viotest) -> None:
    out = viotest.folder / "full"
    out.mkdir()
    (out / "mine").write_text("precious")
    done = viotest.run(out=out)
    assert done.returncode == 2
    assert done.stderr == f"viotest: --out {out}: is not empty (name a new folder)\n"
    assert [path.name for path in out.iterdir()] == ["mine"]
    (out / "mine").unlink()


def test_default_out_that_cannot_be_made_is_refused(viotest: Viotest) -> None:
    (viotest.folder / "viotest-runs").write_text("")
    done = viotest.run(out=Path("unused"), default_out=True)
    expect_refused(done, "viotest-runs")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 8 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", os.fspath(disk)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"optional: no disk can be made: {done.stderr.strip()}")
    yield disk
    subprocess.run(["umount", os.fspath(disk)], check=True)


def test_too_little_disk_is_refused(viotest: Viotest, small_disk: Path) -> None:
    done = viotest.run(out=small_disk / "run")
    expect_refused(done, "too little disk", "8 MiB free", "a run needs")
