# SPDX-License-Identifier: GPL-2.0-or-later
"""What a row is, and how a section lists its own: :class:`Row`, :class:`Section`."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from viotest.conformance.lab import Lab


class Strength(enum.StrEnum):
    """How much the specification asks for."""

    MUST = "MUST"
    SHOULD = "SHOULD"
    MAY = "MAY"
    #: No key word, but the text says so and a driver relies on it.
    TEXT = "text"

    @property
    def binding(self) -> bool:
        """Whether a device that fails it does not conform."""
        return self in (Strength.MUST, Strength.SHOULD)


#: Judges a device: returns for pass, perhaps with a remark, else raises a
#: :class:`~viotest.conformance.errors.VerdictError`.
Check = Callable[["Lab"], str | None]


@dataclass(frozen=True)
class Row:
    """One requirement."""

    id: str
    strength: Strength
    #: Where the specification says it.
    clause: str
    title: str
    check: Check


class Section:
    """The rows of one clause, in the order in which they are written.

    :param clause: Its title in virtio 1.2.
    """

    def __init__(self, clause: str) -> None:
        self._clause = clause
        #: The rows so far.
        self.rows: list[Row] = []

    def row(
        self, row_id: str, strength: Strength, title: str
    ) -> Callable[[Check], Check]:
        """Return a decorator that makes a function the check of a row."""

        def register(check: Check) -> Check:
            self.rows.append(Row(row_id, strength, self._clause, title, check))
            return check

        return register
