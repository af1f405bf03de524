# SPDX-License-Identifier: GPL-2.0-or-later
"""What the guest's kernel complains of: :class:`KernelLog` finds it as it is read.

Detectors that only measure time (RCU and softlockup stalls, hung tasks) are left out:
on a busy host an emulated guest is that slow without being wrong, and one that really
hangs misses the deadline of the check.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

#: Opens the report of any WARN() or BUG(); says nothing by itself.
CUT = "[ cut here ]"
#: How much of a report is quoted.
MAX_LINES = 16

_COMPLAINT = re.compile(
    "|".join(
        (
            # WARN(), lockdep ("WARNING: possible circular locking dependency"), RCU.
            r"^WARNING: ",
            # KASAN, KCSAN, "scheduling while atomic", "Bad page state", list_debug.
            r"\bBUG: (?!soft lockup|workqueue lockup)",
            r"^kernel BUG at ",
            r"\bOops: ",
            r"general protection fault",
            r"Unable to handle kernel",
            r"^INFO: (?:possible recursive locking|trying to register non-static key)",
            r"^(?:UBSAN|KFENCE|DMA-API): ",
            r"\birq \d+: nobody cared",
            r"^unregister_netdevice: waiting|^refcount_t: ",
        )
    )
)


@dataclass(frozen=True)
class Splat:
    """One complaint of the guest's kernel."""

    #: The line that says what is wrong.
    what: str
    #: The report as far as it is quoted, that line included.
    lines: tuple[str, ...]


def find_splats(lines: Iterable[str]) -> Iterator[Splat]:
    """Yield the complaints among consecutive lines of a kernel log.

    :param lines: Texts without time stamps.
    :return: In order. What stands within one quoted report is part of it.
    """
    before: list[str] = []
    report: list[str] = []
    what = ""
    for text in lines:
        if report and len(report) < MAX_LINES and CUT not in text:
            report.append(text)
            continue
        if report:
            yield Splat(what, tuple(report))
            report = []
        if _COMPLAINT.search(text):
            what, report, before = text, [*before, text], []
        else:
            # WARN() with a message puts that between the cut and the WARNING.
            opened = CUT in text or (before and len(before) < MAX_LINES)
            before = ([] if CUT in text else before) + [text] if opened else []
    if report:
        yield Splat(what, tuple(report))


class KernelLog:
    """Takes every line of the kernel log that is read, whoever asked for it.

    A check may read the log for its own purposes, and a line is only read once: the
    answers of the probe are looked at on their way.
    """

    def __init__(self) -> None:
        self._fresh: list[str] = []
        #: What was new at the last call of :meth:`splats`.
        self.lines: tuple[str, ...] = ()

    def take(self, command: str, reply: Mapping[str, Any]) -> None:
        """Look at an answer of the probe.

        :param command: What it answers.
        :param reply: The answer.
        """
        if command == "dmesg":
            self._fresh += [str(line["text"]) for line in reply["lines"]]

    def splats(self) -> list[Splat]:
        """Return the complaints since the last call."""
        self.lines = tuple(self._fresh)
        self._fresh.clear()
        return list(find_splats(self.lines))
