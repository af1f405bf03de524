# SPDX-License-Identifier: GPL-2.0-or-later
"""How this package reports what happens: a callback that takes one event."""

from __future__ import annotations

from collections.abc import Callable, Mapping

#: Takes source, event, data and CLOCK_MONOTONIC nanoseconds. Called from
#: several threads, must not raise and must not block.
Recorder = Callable[[str, str, Mapping[str, object], int], None]


def ignore(
    source: str, event: str, data: Mapping[str, object], time_ns: int, /
) -> None:
    """Record nothing."""
