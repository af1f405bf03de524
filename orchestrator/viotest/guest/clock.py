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

    An emulated guest finds out by itself how fast its clock runs, and on a busy host
    it finds a wrong answer: what one measurement says is good only near it.
    """

    #: Host minus guest, in ns, at :attr:`at_guest_ns`.
    offset_ns: int
    #: Where it was measured, the mapping is wrong by no more than this, in ns.
    error_ns: int
    #: When it was measured, by the guest's clock.
    at_guest_ns: int = 0
    #: Host nanoseconds in one of the guest's.
    rate: float = 1.0

    def host_ns(self, guest_ns: int) -> int:
        """Return the host's time of a guest's time."""
        since = guest_ns - self.at_guest_ns
        return self.at_guest_ns + self.offset_ns + round(since * self.rate)


def tie_clocks(first: ClockMap, last: ClockMap) -> ClockMap:
    """Return the mapping that agrees with two measurements, and goes straight between.

    :param first: The earlier one.
    :param last: The later one.
    """
    guest = last.at_guest_ns - first.at_guest_ns
    if guest <= 0:
        return first
    host = guest + last.offset_ns - first.offset_ns
    error = max(first.error_ns, last.error_ns)
    return ClockMap(first.offset_ns, error, first.at_guest_ns, host / guest)


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
    return ClockMap((low + high) // 2, (high - low + 1) // 2, trips[-1].guest)
