# SPDX-License-Identifier: GPL-2.0-or-later
"""Puts the guest's clock on the host's axis: a pure function."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True)
class RoundTrip:
    """The guest's CLOCK_MONOTONIC, read between two readings of the host's, in ns."""

    host_before: int
    guest: int
    host_after: int


@dataclass(frozen=True)
class ClockMap:
    """Maps the guest's CLOCK_MONOTONIC to the host's.

    Good for the moment at which it was measured; the two drift by what the hosts
    and QEMU's timekeeping do to them, some microseconds a second at most.
    """

    #: Host minus guest, in ns.
    offset_ns: int
    #: The mapping is wrong by no more than this, in ns.
    error_ns: int

    def host_ns(self, guest_ns: int) -> int:
        """Return the host's time of a guest's time."""
        return guest_ns + self.offset_ns


def map_clock(trips: Iterable[RoundTrip]) -> ClockMap:
    """Return the mapping that all round trips allow, with its error bound.

    Each says that the offset lies between ``host_before - guest`` and
    ``host_after - guest``; together they leave the middle of what is common.

    :param trips: At least one.
    """
    trips = list(trips)
    low = max(trip.host_before - trip.guest for trip in trips)
    high = min(trip.host_after - trip.guest for trip in trips)
    if low > high:
        # A clock was stepped or drifted in between: only the best one counts.
        best = min(trips, key=lambda trip: trip.host_after - trip.host_before)
        low, high = best.host_before - best.guest, best.host_after - best.guest
    return ClockMap((low + high) // 2, (high - low + 1) // 2)
