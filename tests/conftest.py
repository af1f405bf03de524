# SPDX-License-Identifier: GPL-2.0-or-later
"""A test whose need is missing is skipped, but in CI it fails.

Else a CI that lost its compiler or its guests would go on being green. A skip
that is right anywhere, such as one for hardware that few have, gives a reason
that starts with "optional: "; see tests/README.md.
"""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

OPTIONAL = "optional: "

#: A test's report or a collected file's: both hold an outcome and a reason.
Report = pytest.TestReport | pytest.CollectReport


def _fail_if_skipped(report: Report) -> None:
    if not report.skipped or hasattr(report, "wasxfail"):
        return
    reason = str(report.longrepr)
    if isinstance(report.longrepr, tuple):
        reason = report.longrepr[2].removeprefix("Skipped: ")
    if not reason.startswith(OPTIONAL):
        report.outcome = "failed"
        report.longrepr = f"{report.nodeid}: a need is missing in CI: {reason}"


@pytest.fixture(autouse=True)
def _heard_signals() -> Iterator[None]:
    """Let children hear what we were told to ignore.

    By a shell's background job, nohup, xdist, whose workers do not hear Ctrl-C, or a
    test that has called main(), which hears nothing more when it ends.
    """
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    # A handler, unlike SIG_IGN, does not outlive exec.
    before = [signal.signal(n, signal.default_int_handler) for n in numbers]
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


if os.environ.get("VIOTEST_CI"):

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport() -> Generator[
        None, pytest.TestReport, pytest.TestReport
    ]:
        report = yield
        _fail_if_skipped(report)
        return report

    @pytest.hookimpl(wrapper=True)
    def pytest_make_collect_report() -> Generator[
        None, pytest.CollectReport, pytest.CollectReport
    ]:
        report = yield
        _fail_if_skipped(report)
        return report
