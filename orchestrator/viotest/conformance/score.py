# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs rows and keeps what came of them: :func:`judge`, :class:`Result`."""

from __future__ import annotations

import dataclasses
import enum
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from viotest.conformance.errors import (
    MismatchError,
    NotApplicableError,
    TargetLostError,
)
from viotest.machine.errors import LaunchError, MachineError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from viotest.conformance.lab import Device, Shape
    from viotest.conformance.row import Row


class Outcome(enum.StrEnum):
    """What a row found."""

    PASS = "pass"
    FAIL = "fail"
    #: The row does not ask anything of this device.
    NA = "n/a"


@dataclass(frozen=True)
class Result:
    """What one row found about one target."""

    row: Row
    outcome: Outcome
    #: Of a failure: what was asked for, and what the device did.
    expected: str = ""
    seen: str = ""
    #: Why it is not applicable; or a remark about what passed.
    remark: str = ""
    #: The target did not live through the row.
    lost: bool = False
    seconds: float = field(default=0.0, compare=False)

    @property
    def breaks(self) -> bool:
        """Whether the target does not conform because of this."""
        failed = self.outcome is Outcome.FAIL
        return failed and (self.row.strength.binding or self.lost)


class DisposableLab(Protocol):
    """A lab whose machines can be given up."""

    def device(self, shape: Shape) -> Device:
        """See :class:`~viotest.conformance.lab.Lab`."""

    def fresh(self, shape: Shape) -> Device:
        """See :class:`~viotest.conformance.lab.Lab`."""

    def discard(self) -> None:
        """Give up every machine."""

    def post_mortem(self) -> str:
        """Say which processes have ended, and how; empty when all are alive."""


def judge(rows: Iterable[Row], lab: DisposableLab) -> Iterator[Result]:
    """Run rows one after the other.

    A row that ends its target has failed: the next one gets a new target.

    :param rows: What to run.
    :param lab: Where.
    :raise LaunchError: When there is no target to be had.
    """
    for row in rows:
        begin = time.monotonic()
        result = _run(row, lab)
        if result.outcome is Outcome.FAIL:
            # What was seen may go on: a DMA, a device that is stuck.
            lab.discard()
        yield dataclasses.replace(result, seconds=time.monotonic() - begin)


def _run(row: Row, lab: DisposableLab) -> Result:
    try:
        remark = row.check(lab)
    except NotApplicableError as verdict:
        return Result(row, Outcome.NA, remark=verdict.what)
    except MismatchError as verdict:
        return Result(row, Outcome.FAIL, verdict.expected, verdict.seen)
    except LaunchError:
        raise
    except (TargetLostError, MachineError) as error:
        seen = "; ".join(filter(None, (lab.post_mortem(), error.what)))
        wanted = "the device lives through the row"
        return Result(row, Outcome.FAIL, wanted, seen, lost=True)
    return Result(row, Outcome.PASS, remark=remark or "")
