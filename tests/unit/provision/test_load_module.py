# SPDX-License-Identifier: GPL-2.0-or-later
"""The guest's load-module, run on the host with an insmod that only tells."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from viotest.provision import assets
from viotest.provision.initramfs import LOADER

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def loader(tmp_path: Path) -> Path:
    """The script, for a guest that is a folder."""
    text = (assets.guest_images() / LOADER).read_text()
    text = text.replace("/viotest/", f"{tmp_path}/").replace("/sys/", f"{tmp_path}/")
    text = text.replace("PATH=/bin", f"PATH={tmp_path}")
    script = tmp_path / "load-module"
    script.write_text(text)
    (tmp_path / "modules.dep").write_text("nvme nvme_core auth\nioatdma dca\nalone\n")
    (tmp_path / "module-params").write_text("auth strict=1\ndca slow=1\nauth deep=2\n")
    (tmp_path / "module/dca").mkdir(parents=True)
    (tmp_path / "insmod").write_text(
        '#!/bin/sh\necho "${1##*/}" "$2" "$3"; [ "${1##*/}" != alone.ko ]\n'
    )
    (tmp_path / "insmod").chmod(0o755)
    return script


def _run(loader: Path, *arguments: str) -> tuple[int, str]:
    done = subprocess.run(
        ["sh", str(loader), *arguments], capture_output=True, text=True, check=False
    )
    lines = [line.strip() for line in (done.stdout + done.stderr).splitlines()]
    return done.returncode, "\n".join(lines)


def test_module_comes_after_what_it_depends_on(loader: Path) -> None:
    said = "nvme_core.ko\nauth.ko strict=1 deep=2\nnvme.ko poll=3"
    assert _run(loader, "nvme", "poll=3") == (0, said)


def test_loaded_dependency_is_left_alone(loader: Path) -> None:
    assert _run(loader, "ioatdma") == (0, "ioatdma.ko")


def test_failure_and_unknown_module_are_told(loader: Path) -> None:
    assert _run(loader, "alone") == (1, "alone.ko")
    assert _run(loader, "nosuch") == (2, "this guest holds no module nosuch")
    # What ends like a name is not it.
    assert _run(loader, "core")[0] == 2
