# SPDX-License-Identifier: GPL-2.0-or-later
"""One ``viotest trace replay``: :func:`replay_on` makes a report."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from viotest.errors import UsageError
from viotest.trace.output import Report
from viotest.trace.replay import Replay
from viotest.trace.target import plan_target, start_target

if TYPE_CHECKING:
    from collections.abc import Sequence

    from viotest.conformance.target import Programs, Target
    from viotest.provision.progress import Progress, Step
    from viotest.trace.form import TraceFile
    from viotest.trace.replay import Device, Result


def replay_on(
    targets: Sequence[Target],
    trace: TraceFile,
    programs: Programs,
    version: str,
    progress: Progress,
    *,
    wait: bool,
) -> Report:
    """Replay a trace on targets, one after the other.

    :param version: QEMU's version.
    :param wait: As :class:`~viotest.trace.replay.Replay`.
    :raise UsageError: When a target cannot stand for the recorded device.
    :raise LaunchError: When QEMU or the device does not come up.
    """
    try:
        plans = [plan_target(t, trace.header, trace.contents.ids) for t in targets]
    except ValueError as error:
        raise UsageError(f"{trace.path}: {error}") from error
    with tempfile.TemporaryDirectory(prefix="viotest-trace-") as name:
        results = {}
        for plan in plans:
            folder = Path(name) / plan.target
            folder.mkdir()
            with (
                start_target(plan, trace.header, programs, folder) as device,
                progress.step(f"replaying on {plan.target}") as step,
            ):
                result = _replay(device, trace, step, wait=wait)
            result.notes[:0] = plan.notes
            results[plan.target] = result
    return Report(str(trace.path), version, trace.contents.nr_requests, results)


def _replay(device: Device, trace: TraceFile, step: Step, *, wait: bool) -> Result:
    def show(done: int) -> None:
        step.update(done, trace.contents.nr_requests)

    return Replay(device, trace.header, wait=wait, show=show).run(trace.items())
