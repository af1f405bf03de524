# SPDX-License-Identifier: GPL-2.0-or-later
"""How a check says no: :class:`CheckFailed`, and the names of known refusals."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from viotest.guest.probe import ProbeError


class CheckFailed(AssertionError):
    """The guest does not do what the check asks.

    :param reason: What is wrong, one line.
    :param expected: What was expected.
    :param seen: What was seen instead.
    :param cause: The likely cause.
    :param step: The next command to run, or where to look.
    """

    def __init__(
        self,
        reason: str,
        *,
        expected: str = "",
        seen: str = "",
        cause: str = "",
        step: str = "",
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        rows = (
            ("expected", expected),
            ("seen", seen),
            ("cause", cause),
            ("next", step),
        )
        #: The rest, a few lines.
        self.details = "\n".join(f"{name:8} {text}" for name, text in rows if text)

    def __str__(self) -> str:
        return self.reason


def expect(seen: object, expected: object, what: str, *, cause: str = "") -> None:
    """Fail the check unless ``seen`` equals ``expected``.

    :raise CheckFailed: When it does not.
    """
    if seen != expected:
        raise CheckFailed(
            f"{what}: {_show(seen)} instead of {_show(expected)}",
            expected=_show(expected),
            seen=_show(seen),
            cause=cause,
        )


def _show(value: object) -> str:
    return hex(value) if type(value) is int and abs(value) > 9 else str(value)


@dataclass(frozen=True)
class _Refusal:
    op: str
    errno: int
    name: str
    cause: str
    step: str


_LATE_APERTURE = (
    "virtio-iommu gives a domain its addresses when it attaches an endpoint to it"
    " (viommu_domain_finalise()), and iommufd asks for them when it makes the page"
    " table: one with viommu_domain_alloc_paging(), as Linux 7.3 has, is in time"
)

# Refusals with a name: which step of which system call answers which errno, and
# what that has been found to mean (Linux 6.12 and 7.3, drivers/vfio).
_REFUSALS = (
    _Refusal(
        "bind",
        errno.EINVAL,
        "cache coherency not advertised",
        "vfio_main.c asks device_iommu_capable(IOMMU_CAP_CACHE_COHERENCY), and"
        " virtio-iommu answers no: it lacks Linux commit 91c98fe7941"
        " (iommu/virtio: Fix interaction with VFIO)",
        "look at viommu_capable() in drivers/iommu/virtio-iommu.c of this kernel",
    ),
    *(
        _Refusal(
            op,
            errno.EPERM,
            "MSI not isolated",
            f"virtio-iommu isolates no interrupts on x86, and {who} insists",
            f"load {module} with allow_unsafe_interrupts=1, or give the machine"
            " interrupt remapping",
        )
        for op, who, module in (
            ("VFIO_SET_IOMMU", "VFIO", "vfio_iommu_type1"),
            ("VFIO_GROUP_SET_CONTAINER", "VFIO", "vfio_iommu_type1"),
            # Over an iommufd the group's device is bound when it is opened.
            ("VFIO_GROUP_GET_DEVICE_FD", "iommufd", "iommufd"),
            ("VFIO_DEVICE_BIND_IOMMUFD", "iommufd", "iommufd"),
        )
    ),
    _Refusal(
        "VFIO_DEVICE_ATTACH_IOMMUFD_PT",
        errno.EADDRINUSE,
        "the new page table has no addresses",
        _LATE_APERTURE,
        "look at viommu_domain_ops and viommu_ops in drivers/iommu/virtio-iommu.c",
    ),
)


def expect_addresses(ranges: Sequence[tuple[int, int]]) -> None:
    """Fail unless the kernel says that something can be mapped.

    :param ranges: First and last address of each range that may be mapped.
    :raise CheckFailed: When there is none, or none of more than a byte.
    """
    if any(last > first for first, last in ranges):
        return
    seen = ", ".join(f"{first:#x}-{last:#x}" for first, last in ranges) or "none"
    raise CheckFailed(
        f"the kernel has no addresses to map: iova ranges {seen}",
        expected="a range of addresses, once the endpoint is attached",
        seen=seen,
        cause=_LATE_APERTURE,
        step="try --mode cdev-ioas: iommufd then attaches before it asks",
    )


def refused(error: ProbeError, what: str) -> CheckFailed:
    """Turn a refusal of the guest's kernel into a failed check.

    :param error: What the probe reported.
    :param what: What the check was about, e.g. ``bind to vfio-pci``.
    :return: The failure, with the cause named where the refusal is a known one.
    """
    number = error.errno
    name = error.error
    seen = f"{error.op}: {name} ({os.strerror(number) if number else error.text})"
    for known in _REFUSALS:
        if (known.op, known.errno) == (error.op, number):
            return CheckFailed(
                f"{what} failed with {name}: {known.name}",
                expected=f"{error.op} succeeds",
                seen=seen,
                cause=known.cause,
                step=known.step,
            )
    return CheckFailed(
        f"{what} failed: {error.op}: {name}",
        expected=f"{error.op} succeeds",
        seen=seen,
    )
