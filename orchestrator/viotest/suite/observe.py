# SPDX-License-Identifier: GPL-2.0-or-later
"""Who else saw it: the device's own log, and the guest's kernel."""

from __future__ import annotations

import re
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from viotest.guest.probe import ProbeError
from viotest.suite.judgement import CheckFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from viotest.guest.probe import Probe
    from viotest.report.device_log import DeviceLog, DeviceRecord

#: ``enum iommu_cap`` of include/linux/iommu.h, since Linux 2.6.39.
IOMMU_CAP_CACHE_COHERENCY = 0

# viommu_fault_handler() of drivers/iommu/virtio-iommu.c. The endpoint and the
# address are what matters; the words around them have not changed since 5.3.
_FAULT_LINE = re.compile(r"fault from EP (\d+) at (0x[0-9a-f]+)")
# DEFAULT_RATELIMIT_INTERVAL of include/linux/ratelimit_types.h is 5 s.
_RATELIMIT_NS = 6_000_000_000
_MESSAGE_SECONDS = 1.0
# "comm-PID [CPU] ...": the name of a task may look like anything.
_TASK = r"-(\d+)\s+\[\d+\]\s"
_ASK = re.compile(_TASK + r".*viotest_ask: .*\bcap=(\d+)")
_ANSWER = re.compile(_TASK + r".*viotest_answer: .*\bret=(0x[0-9a-f]+|\d+)")

#: Probes on viommu_capable(). The function returns a C bool: only the low byte of
#: the register counts.
KPROBES = (
    "p:viotest_ask viommu_capable cap=$arg2:u32",
    "r:viotest_answer viommu_capable ret=$retval:u8",
)


@dataclass(frozen=True)
class Asked:
    """One question to virtio-iommu's ``capable()`` and its answer."""

    capability: int
    answer: bool


def parse_capable(lines: Sequence[str]) -> list[Asked]:
    """Pair questions and answers of :data:`KPROBES`.

    :param lines: Lines of tracefs' ``trace``.
    :return: In the order of the answers; a task asks one thing at a time.
    """
    open_questions: dict[str, int] = {}
    asked = []
    for line in lines:
        if found := _ASK.search(line):
            open_questions[found[1]] = int(found[2])
        elif found := _ANSWER.search(line):
            capability = open_questions.pop(found[1], None)
            if capability is not None:
                asked.append(Asked(capability, int(found[2], 0) != 0))
    return asked


@dataclass
class Questions:
    """What virtio-iommu's ``capable()`` was asked while somebody watched."""

    #: tracefs lines of :data:`KPROBES`.
    trace: tuple[str, ...] = ()
    #: Why there are none; empty if there may be.
    no_kprobes: str = ""

    def expect_coherency(self, asked_by: str, *, cause: str) -> None:
        """Fail unless cache coherency was asked for, and is advertised.

        :param asked_by: What should have asked, as a sentence begins.
        :param cause: Why it may not have.
        :raise CheckFailed: When it was not, or the answer was no.
        """
        asked = parse_capable(self.trace)
        answers = [a.answer for a in asked if a.capability == IOMMU_CAP_CACHE_COHERENCY]
        if not answers:
            raise CheckFailed(
                f"{asked_by} did not ask for cache coherency",
                expected="viommu_capable(IOMMU_CAP_CACHE_COHERENCY) is called",
                seen=f"{len(asked)} calls of viommu_capable()",
                cause=cause,
            )
        if not all(answers):
            raise CheckFailed(
                "virtio-iommu does not advertise cache coherency",
                expected="viommu_capable(IOMMU_CAP_CACHE_COHERENCY) = 1",
                seen="0",
                cause="the kernel lacks commit 91c98fe7941 or reverts it",
            )


@contextmanager
def watch_questions(probe: Probe, *, wanted: bool = True) -> Iterator[Questions]:
    """Watch what virtio-iommu is asked while the body runs.

    :param wanted: Watch indeed; that takes the guest a while.
    :return: Filled in at the end, also when the body fails.
    """
    questions = Questions(no_kprobes="not traced")
    if not wanted:
        yield questions
        return
    questions.no_kprobes = _set_kprobes(probe)
    try:
        yield questions
    finally:
        if not questions.no_kprobes:
            lines = probe.call("trace-read")["lines"]
            assert isinstance(lines, list)
            questions.trace = tuple(str(line) for line in lines)
            probe.call("kprobe-clear")


def _set_kprobes(probe: Probe) -> str:
    try:
        for spec in KPROBES:
            probe.call("kprobe-set", spec=spec)
    except ProbeError as error:
        return f"no kprobe events in this kernel (CONFIG_KPROBE_EVENTS): {error.text}"
    return ""


class DeviceWatch:
    """The device's log from now on.

    :param log: The log.
    """

    def __init__(self, log: DeviceLog) -> None:
        self._log = log
        self._after = log.head()

    def records(self, kind: str) -> list[DeviceRecord]:
        """Return the records of ``kind`` that came since, oldest first."""
        found = self._log.records(after=self._after)
        return [record for record in found if record.kind == kind]

    def expect_fault(self, endpoint_id: int, address: int) -> None:
        """Fail unless the device put this fault into its event queue.

        :raise CheckFailed: When there is no such record.
        """
        faults = self.records("fault")
        if any((f.endpoint, f.start) == (endpoint_id, address) for f in faults):
            return
        seen = [f"EP {f.endpoint} at {f.start:#x}" for f in faults]
        raise CheckFailed(
            "the device reported no such fault",
            expected=f"EP {endpoint_id} at {address:#x}",
            seen=", ".join(seen) or "none",
        )


def find_message(probe: Probe, pattern: str, *, timeout: float) -> str | None:
    """Wait for a line of the guest's kernel log that comes from now on.

    :param pattern: A regular expression, searched for in each line.
    :param timeout: Seconds.
    :return: The line; None if none came.
    """
    deadline = time.monotonic() + timeout
    while (left := deadline - time.monotonic()) > 0:
        answer = probe.call("dmesg", timeout_ms=int(left * 1000) + 1, timeout=left + 5)
        for text in _texts(answer):
            if re.search(pattern, text):
                return text
    return None


def expect_guest_fault(
    probe: Probe, endpoint_id: int, address: int, again: Callable[[], object]
) -> None:
    """Fail unless the guest's virtio-iommu driver reports this fault.

    The driver drops all but ten messages in five seconds (dev_err_ratelimited). So
    if nothing comes, the access is made again until that time is over.

    :param again: Makes the access that is refused once more.
    :raise CheckFailed: When no message names endpoint and address.
    """
    # By the guest's clock, as the rate limit: an emulated one may be slow.
    deadline = _guest_ns(probe) + _RATELIMIT_NS
    others: list[str] = []
    while not _wait_for_fault(probe, endpoint_id, address, others):
        if _guest_ns(probe) > deadline:
            raise CheckFailed(
                "the guest's virtio-iommu driver reported no such fault",
                expected=f"fault from EP {endpoint_id} at {address:#x}",
                seen="; ".join(others) or "no fault message in the kernel log",
                cause="the event was lost: event queue, its interrupt, or a wrong"
                " endpoint id",
            )
        again()


def _guest_ns(probe: Probe) -> int:
    now = probe.call("hello")["monotonic_ns"]
    assert isinstance(now, int)
    return now


def _wait_for_fault(
    probe: Probe, endpoint_id: int, address: int, others: list[str]
) -> bool:
    # The event travels through the event queue, an interrupt and a work item.
    deadline = time.monotonic() + _MESSAGE_SECONDS
    while (left := deadline - time.monotonic()) > 0:
        # Waits in the guest for the next record; returns at once if one is there.
        answer = probe.call("dmesg", timeout_ms=int(left * 1000) + 1, timeout=left + 5)
        for text in _texts(answer):
            found = _FAULT_LINE.search(text)
            if found and (int(found[1]), int(found[2], 16)) == (endpoint_id, address):
                return True
            if found:
                others.append(text)
    return False


def _texts(answer: Mapping[str, object]) -> list[str]:
    lines = answer["lines"]
    assert isinstance(lines, list)
    return [str(line["text"]) for line in lines]
