# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs the suite's tests in this process: :func:`put_checks`."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import pytest

import viotest.suite
from viotest.campaign.collector import Collector
from viotest.errors import UntestableError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from viotest.campaign.guests import Guests
    from viotest.report.results import CheckResult

_OK = (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED)


def put_checks(
    guests: Guests,
    *,
    show: Callable[[CheckResult], None],
    log: Path,
    suite: Path | None = None,
) -> Sequence[str]:
    """Put the scenario's checks to its guests, one after the other.

    :param guests: The first may be booting already.
    :param show: Called with every result as it comes.
    :param log: Where pytest's own output goes.
    :param suite: A folder of tests named as the catalog's; default: the suite.
    :return: The ids of the checks that there was no guest for.
    :raise KeyboardInterrupt: When the user interrupted the checks.
    :raise UntestableError: When pytest itself failed.
    """
    collector = Collector(guests, show)
    run_pytest(suite_arguments(suite), collector, log)
    done = {result.id for result in collector.results}
    return [check for check in collector.wanted if check not in done]


def suite_arguments(suite: Path | None = None) -> list[str]:
    """Return pytest's arguments for a suite; default: the one that we ship."""
    folder = os.fspath(suite or Path(viotest.suite.__file__).parent)
    return [
        # The user's own pytest configuration and plugins are none of ours.
        "--config-file", os.devnull,
        "--rootdir", folder,
        "--disable-plugin-autoload",
        "-p", "viotest.pytest_plugin",
        "-p", "no:cacheprovider",
        "--import-mode", "importlib",
        # What the guest said is in the reasons; rewriting asserts only costs time.
        "--assert", "plain",
        "--capture", "no",
        folder,
    ]  # fmt: skip


class Interruptible(Protocol):
    """A pytest plugin that knows whether the user has had enough."""

    interrupted: bool


def run_pytest(arguments: list[str], plugin: Interruptible, log: Path) -> None:
    """Run pytest in this process, as if the user's environment said nothing of it.

    :param arguments: Its arguments.
    :param plugin: Ours.
    :param log: Where its output goes.
    :raise KeyboardInterrupt: When the user interrupted it.
    :raise UntestableError: When it failed itself.
    """
    with log.open("w") as out, contextlib.redirect_stdout(out), _own_environment():
        try:
            code = pytest.main(arguments, plugins=[plugin])
        finally:
            # Interrupted before its session has begun, pytest trips over itself.
            if plugin.interrupted:
                raise KeyboardInterrupt
    if code not in _OK:
        raise UntestableError(f"pytest ended with {code!r}", hint=f"see {log}")


@contextlib.contextmanager
def _own_environment() -> Iterator[None]:
    names = ("PYTEST_ADDOPTS", "PYTEST_PLUGINS")
    saved = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(saved)
