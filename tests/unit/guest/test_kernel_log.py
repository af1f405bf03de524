# SPDX-License-Identifier: GPL-2.0-or-later
"""Complaints of a kernel are found in its log, and nothing else is."""

from __future__ import annotations

import pytest

from viotest.guest.kernel_log import CUT, MAX_LINES, KernelLog, find_splats

CUT_HERE = f"------------{CUT}------------"

COMPLAINTS = [
    "WARNING: CPU: 0 PID: 96 at drivers/iommu/virtio-iommu.c:793 viommu_map_pages+0x1",
    "WARNING: possible circular locking dependency detected",
    "WARNING: suspicious RCU usage",
    "BUG: KASAN: slab-use-after-free in vfio_iommu_type1_ioctl+0x1",
    "BUG: sleeping function called from invalid context at mm/slab.h:1",
    "BUG: unable to handle page fault for address: ffffc90000000000",
    "Oops: 0000 [#1] PREEMPT SMP NOPTI",
    "general protection fault, probably for non-canonical address 0xdead: 0000 [#1]",
    "kernel BUG at drivers/vfio/vfio_main.c:1!",
    "UBSAN: shift-out-of-bounds in drivers/iommu/virtio-iommu.c:1",
    "INFO: possible recursive locking detected",
    'irq 24: nobody cared (try booting with the "irqpoll" option)',
    "refcount_t: underflow; use-after-free.",
]

HARMLESS = [
    "virtio_iommu virtio0: page fault from EP 128 at 0x100001000 [W]",
    "vfio_iommu_type1_attach_group: No interrupt remapping support.",
    "virtio_iommu: loading out-of-tree module taints kernel.",
    "debug: BUG_ON is compiled in",
    # Time, of which a busy host has too little.
    "rcu: INFO: rcu_preempt self-detected stall on CPU",
    "watchdog: BUG: soft lockup - CPU#0 stuck for 26s! [vfio-probe:97]",
    "INFO: task vfio-probe:97 blocked for more than 120 seconds.",
]


@pytest.mark.parametrize("line", COMPLAINTS)
def test_complaint_is_found(line: str) -> None:
    (splat,) = find_splats(["before", line, "Call Trace:", " f+0x1"])
    assert splat.what == line
    assert splat.lines == (line, "Call Trace:", " f+0x1")


@pytest.mark.parametrize("line", HARMLESS)
def test_harmless_line_is_left_alone(line: str) -> None:
    assert not list(find_splats([line, line]))


def test_message_before_the_warning_is_quoted() -> None:
    lines = [CUT_HERE, "not what was expected", "WARNING: CPU: 0 PID: 1 at x.c:1"]
    (splat,) = find_splats(["before", *lines, "RIP: 0010:x+0x1/0x2"])
    assert splat.what == lines[2]
    assert splat.lines == (*lines, "RIP: 0010:x+0x1/0x2")


def test_two_warnings_are_two() -> None:
    first = [CUT_HERE, "WARNING: CPU: 0 PID: 1 at a.c:1", "RIP: a"]
    second = [CUT_HERE, "WARNING: CPU: 0 PID: 1 at b.c:1", "RIP: b"]
    found = list(find_splats([*first, *second]))
    assert [splat.lines for splat in found] == [tuple(first), tuple(second)]


def test_long_report_is_quoted_in_part() -> None:
    lines = ["WARNING: CPU: 0 PID: 1 at a.c:1", *(f" f{i}" for i in range(90))]
    (splat,) = find_splats(lines)
    assert splat.lines == tuple(lines[:MAX_LINES])


def test_log_takes_what_others_read_and_tells_it_once() -> None:
    log = KernelLog()
    log.take("map", {"iova": 1})
    assert log.splats() == []
    log.take("dmesg", {"lines": [{"ns": 1, "text": "WARNING: CPU: 0 at a.c:1"}]})
    log.take("dmesg", {"lines": [{"ns": 2, "text": "RIP: a"}]})
    (splat,) = log.splats()
    assert splat.lines == ("WARNING: CPU: 0 at a.c:1", "RIP: a")
    assert log.splats() == []
