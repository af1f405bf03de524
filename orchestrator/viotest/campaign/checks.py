# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs the suite's tests in this process: :func:`put_checks`."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import viotest.suite
from viotest.campaign.collector import Collector
from viotest.errors import UntestableError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from viotest.campaign.session import Session
    from viotest.report.results import CheckResult

_OK = (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.INTERRUPTED)


def put_checks(
    session: Session,
    *,
    show: Callable[[CheckResult], None],
    log: Path,
    suite: Path | None = None,
) -> Sequence[CheckResult]:
    """Put the scenario's checks to a guest.

    :param session: The guest; it may still be booting.
    :param show: Called with every result as it comes.
    :param log: Where pytest's own output goes.
    :param suite: A folder of tests named as the catalog's; default: the suite.
    :return: The results, in the order in which they came.
    :raise KeyboardInterrupt: When the user interrupted the checks.
    :raise UntestableError: When pytest itself failed.
    """
    folder = os.fspath(suite or Path(viotest.suite.__file__).parent)
    args = [
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
    collector = Collector(session, show)
    with log.open("w") as out, contextlib.redirect_stdout(out), _own_environment():
        try:
            code = pytest.main(args, plugins=[collector])
        finally:
            # Interrupted before its session has begun, pytest trips over itself.
            if collector.interrupted:
                raise KeyboardInterrupt
    # Without a lost guest to stop for it is a suite that cannot even be read.
    stopped = code is pytest.ExitCode.INTERRUPTED and session.broken is None
    if code not in _OK or stopped:
        raise UntestableError(f"pytest ended with {code!r}", hint=f"see {log}")
    return collector.results


@contextlib.contextmanager
def _own_environment() -> Iterator[None]:
    names = ("PYTEST_ADDOPTS", "PYTEST_PLUGINS")
    saved = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(saved)
