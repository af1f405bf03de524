# SPDX-License-Identifier: GPL-2.0-or-later
"""Every test here boots guests, or shows that none is booted."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.functional.harness import Viotest

if TYPE_CHECKING:
    from collections.abc import Iterator

_HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test of this folder as functional."""
    for item in items:
        if item.path.is_relative_to(_HERE):
            item.add_marker(pytest.mark.functional)


@contextlib.contextmanager
def clean_viotest(folder: Path) -> Iterator[Viotest]:
    """Give out a :class:`Viotest` that must leave nothing behind."""
    viotest = Viotest(folder)
    try:
        yield viotest
    except BaseException:
        # The test has failed already: only tidy up.
        with contextlib.suppress(AssertionError):
            viotest.expect_gone(0.0)
        raise
    viotest.expect_nothing_left()


@pytest.fixture(scope="session")
def assets(tmp_path_factory: pytest.TempPathFactory) -> None:
    """QEMU, a kernel and an initramfs; skips the test where they cannot be had."""
    with clean_viotest(tmp_path_factory.mktemp("assets")) as viotest:
        done = viotest.run("--dry-run")
    if done.returncode == 125:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stderr


@pytest.fixture
def viotest(assets: None, tmp_path: Path) -> Iterator[Viotest]:
    """``viotest``, in a folder of its own; nothing of it may be left afterwards."""
    viotest = Viotest(tmp_path)
    yield viotest
    viotest.expect_nothing_left()
