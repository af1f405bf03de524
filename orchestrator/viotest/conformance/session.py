# SPDX-License-Identifier: GPL-2.0-or-later
"""One run of the suite: :func:`run` makes a :class:`Report`."""

from __future__ import annotations

import fnmatch
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from viotest.conformance.rows import ROWS
from viotest.conformance.score import Outcome, Result, judge
from viotest.conformance.target import QtestLab, Target
from viotest.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from viotest.conformance.row import Row
    from viotest.conformance.target import Programs
    from viotest.provision.progress import Progress


@dataclass(frozen=True)
class Report:
    """What every row found about every target."""

    #: The version of QEMU.
    qemu: str
    rows: tuple[Row, ...]
    #: One result per row, in their order.
    results: Mapping[Target, tuple[Result, ...]]

    @property
    def judged(self) -> Target:
        """The target that the exit code speaks of: ours, if it took part."""
        return next(iter(sorted(self.results, key=lambda t: t is not Target.VIOTEST)))

    @property
    def conforms(self) -> bool:
        """Whether no MUST and no SHOULD failed for the judged target."""
        return not any(result.breaks for result in self.results[self.judged])

    def counts(self, target: Target) -> Counter[Outcome]:
        """Return how many rows there are of each outcome."""
        return Counter(result.outcome for result in self.results[target])


def select_rows(patterns: Sequence[str]) -> tuple[Row, ...]:
    """Return the rows whose ids match one of the shell patterns; none: all.

    :raise UsageError: When a pattern matches nothing.
    """
    for pattern in patterns:
        if not any(fnmatch.fnmatchcase(row.id, pattern) for row in ROWS):
            known = ", ".join(row.id for row in ROWS)
            raise UsageError(f"--row {pattern}: matches no row", hint=f"rows: {known}")
    return tuple(
        row
        for row in ROWS
        if not patterns or any(fnmatch.fnmatchcase(row.id, p) for p in patterns)
    )


def run(
    targets: Sequence[Target],
    rows: Sequence[Row],
    programs: Programs,
    version: str,
    progress: Progress,
) -> Report:
    """Judge targets, one after the other.

    :param targets: Whose virtio-iommus.
    :param rows: By what.
    :param programs: How QEMU and the device are started.
    :param version: QEMU's version.
    :param progress: Where it is shown how far this is.
    :raise UntestableError: When QEMU or the device does not come up.
    """
    results = {}
    with tempfile.TemporaryDirectory(prefix="viotest-conformance-") as folder:
        for target in targets:
            found = []
            with (
                QtestLab(target, programs, Path(folder)) as lab,
                progress.step(f"judging {target}") as step,
            ):
                for result in judge(rows, lab):
                    found.append(result)
                    step.update(len(found), len(rows))
            results[target] = tuple(found)
    return Report(version, tuple(rows), results)
