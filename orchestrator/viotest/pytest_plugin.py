# SPDX-License-Identifier: GPL-2.0-or-later
"""viotest's pytest plugin: a guest as a fixture, for anyone's tests.

``viotest_context`` boots one guest per session, configured by ``VIOTEST_*``
variables as ``viotest run`` is. The package's own suite runs on it too::

    VIOTEST_KERNEL=debian:trixie pytest --pyargs viotest.suite
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from viotest.suite.context import Context


def pytest_configure(config: pytest.Config) -> None:
    """Read the scenario from the environment, unless ``viotest run`` has set it."""
    from viotest.scenario.options import parse_settings, raw_from_environment
    from viotest.suite.context import SCENARIO

    if SCENARIO not in config.stash:
        settings = parse_settings(raw_from_environment(os.environ))
        config.stash[SCENARIO] = settings.scenario


@pytest.fixture(scope="session")
def viotest_context(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Context]:
    """A guest of the scenario in the environment, for the length of the session.

    Under ``viotest run`` it is the guest of that run.
    """
    from viotest.campaign.run import TIMELINE, prepare
    from viotest.campaign.session import Session
    from viotest.provision.progress import TerminalProgress
    from viotest.report.timeline import Timeline
    from viotest.suite.context import CONTEXT, SCENARIO

    if CONTEXT in request.config.stash:
        yield request.config.stash[CONTEXT]
        return
    folder = tmp_path_factory.mktemp("viotest")
    plan, _ = prepare(request.config.stash[SCENARIO], TerminalProgress())
    with Session(plan, folder, Timeline(folder / TIMELINE)) as session:
        yield session
