# SPDX-License-Identifier: GPL-2.0-or-later
"""One errno of vfio-pci's, and the two things that it may mean."""

from __future__ import annotations

import errno

import pytest

from viotest.guest.probe import ProbeError
from viotest.suite.binding import bind_refused


def refusal(number: int) -> ProbeError:
    return ProbeError("bind", "bind", number, "")


@pytest.mark.parametrize(
    ("number", "group", "words"),
    [
        (errno.EINVAL, None, "no IOMMU group"),
        (errno.EINVAL, "7", "cache coherency not advertised"),
        (errno.ENODEV, None, "second bind failed: bind: ENODEV"),
    ],
)
def test_bind_refused_names_the_cause(
    number: int, group: str | None, words: str
) -> None:
    failure = bind_refused(refusal(number), group, "second bind")
    assert words in failure.reason
