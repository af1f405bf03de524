# SPDX-License-Identifier: GPL-2.0-or-later
"""How a check says no: known refusals have a name, others say what was seen."""

from __future__ import annotations

import errno

import pytest

from viotest.guest.probe import ProbeError
from viotest.suite.judgement import CheckFailed, expect, expect_addresses, refused


@pytest.mark.parametrize(
    ("op", "number", "reason", "hint"),
    [
        (
            "bind",
            errno.EINVAL,
            "bind failed with EINVAL: cache coherency not advertised",
            "viommu_capable",
        ),
        (
            "VFIO_SET_IOMMU",
            errno.EPERM,
            "open failed with EPERM: MSI not isolated",
            "allow_unsafe_interrupts=1",
        ),
        (
            "VFIO_GROUP_SET_CONTAINER",
            errno.EPERM,
            "open failed with EPERM: MSI not isolated",
            "load vfio_iommu_type1 with allow_unsafe_interrupts=1",
        ),
        (
            "VFIO_DEVICE_ATTACH_IOMMUFD_PT",
            errno.EADDRINUSE,
            "open failed with EADDRINUSE: the new page table has no addresses",
            "viommu_domain_finalise()",
        ),
        (
            "VFIO_GROUP_GET_DEVICE_FD",
            errno.EPERM,
            "open failed with EPERM: MSI not isolated",
            "load iommufd with allow_unsafe_interrupts=1",
        ),
        (
            "VFIO_DEVICE_BIND_IOMMUFD",
            errno.EPERM,
            "open failed with EPERM: MSI not isolated",
            "load iommufd with allow_unsafe_interrupts=1",
        ),
    ],
)
def test_known_refusal_has_a_name(op: str, number: int, reason: str, hint: str) -> None:
    what = reason.partition(" ")[0]
    failure = refused(ProbeError(what, op, number, "text"), what)
    assert failure.reason == reason
    assert hint in failure.details


@pytest.mark.parametrize(
    ("op", "number", "name"),
    [
        # The same errno elsewhere, and another errno there, mean something else.
        ("VFIO_SET_IOMMU", errno.EINVAL, "EINVAL"),
        ("bind", errno.EPERM, "EPERM"),
        ("bind", errno.ENODEV, "ENODEV"),
        ("map", 4095, "errno 4095"),
    ],
)
def test_unknown_refusal_says_what_was_seen(op: str, number: int, name: str) -> None:
    failure = refused(ProbeError("bind", op, number, "text"), "bind")
    assert failure.reason == f"bind failed: {op}: {name}"
    assert "coherency" not in failure.details
    assert "isolated" not in failure.details
    assert f"expected {op} succeeds" in failure.details


def test_expect_shows_both_sides() -> None:
    expect(1, 1, "group")
    with pytest.raises(CheckFailed) as failed:
        expect(0x1234, 0x5678, "CRC-32", cause="wrong page")
    assert failed.value.reason == "CRC-32: 0x1234 instead of 0x5678"
    assert failed.value.details.splitlines() == [
        "expected 0x5678",
        "seen     0x1234",
        "cause    wrong page",
    ]


def test_expect_does_not_take_true_for_a_number() -> None:
    with pytest.raises(CheckFailed, match="equal: False instead of True"):
        expect(False, True, "equal")


@pytest.mark.parametrize(
    ("ranges", "seen"), [((), "none"), (((0, 0),), "0x0-0x0"), (((5, 5),), "0x5-0x5")]
)
def test_kernel_without_addresses_is_told_why(
    ranges: tuple[tuple[int, int], ...], seen: str
) -> None:
    with pytest.raises(CheckFailed) as failed:
        expect_addresses(ranges)
    assert (
        failed.value.reason == f"the kernel has no addresses to map: iova ranges {seen}"
    )
    assert "viommu_domain_finalise()" in failed.value.details
    assert "--mode cdev-ioas" in failed.value.details


def test_one_range_of_addresses_is_enough() -> None:
    expect_addresses(((0, 0), (0x1000, 0x1FFF)))
