# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel's own VFIO selftests in the guest: how one runs, and what it came to.

The main functions are :func:`run_selftest` and :func:`judge_selftest`.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from viotest.report.results import Outcome
from viotest.suite.judgement import CheckFailed
from viotest.suite.ktap import parse_ktap

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from viotest.report.results import Subtest
    from viotest.suite.context import Context
    from viotest.suite.ktap import Ktap
    from viotest.suite.native import Shell

#: Where a guest has the programs.
FOLDER = "/selftests/vfio"
#: Seconds of the guest that a program may take. Less than a check has, so that what
#: the program said until then is known.
PROGRAM_TIMEOUT = 400
#: lib/include/libvfio/iommu.h: all ways into VFIO that the programs know.
MODES = (
    "vfio_type1_iommu",
    "vfio_type1v2_iommu",
    "iommufd_compat_type1",
    "iommufd_compat_type1v2",
    "iommufd",
)
#: One page of 2 MiB is what a test maps at a time; a few more cost nothing.
_SMALL_PAGES = 8

# KSFT_PASS, KSFT_FAIL and KSFT_SKIP of kselftest.h.
_PASS, _FAIL, _SKIP = 0, 1, 4
# Of a shell whose command was killed; what busybox's timeout does.
_KILLED = 128 + 9
_QUOTED = 5
# Each test is a process of its own, which outlives its killed parent: with the endpoint
# open, and with the end of the pipe that we wait for.
_KILL_REST = (
    "for exe in /proc/[0-9]*/exe; do case $(readlink $exe) in"
    f" {FOLDER}/*) pid=${{exe%/exe}}; kill -9 ${{pid#/proc/}};; esac; done 2>/dev/null"
)


@dataclass(frozen=True)
class SelftestRun:
    """How one program ended."""

    name: str
    status: int
    #: All that it wrote, to either stream, in the order in which it did.
    output: str


def run_selftest(
    context: Context, name: str, bdf: str, *, mode: str = ""
) -> SelftestRun:
    """Run one of the programs to its end, or to its deadline.

    :param context: The guest.
    :param name: The program.
    :param bdf: The function that vfio-pci has.
    :param mode: The one variant to run; empty: all.
    """
    # A variant also is the beginning of others' names: the harness compares whole ones.
    variant = f" -v {mode}" if mode else ""
    result = context.exec(
        f"timeout -s KILL {PROGRAM_TIMEOUT} {FOLDER}/{name}{variant} {bdf} 2>&1;"
        f" status=$?; {_KILL_REST}; exit $status",
        timeout=PROGRAM_TIMEOUT + 60,
    )
    return SelftestRun(name, result.status, result.out.decode(errors="replace"))


def judge_selftest(run: SelftestRun) -> tuple[tuple[Subtest, ...], CheckFailed | None]:
    """Return the tests of a program, and what is wrong with all of it, if anything.

    :param run: How it ended.
    """
    ktap = parse_ktap(run.output)
    failed = [test for test in ktap.tests if test.outcome is Outcome.FAIL]
    problems = [*_of_status(run.status, ktap, len(failed)), *ktap.problems]
    if not failed and not problems:
        return ktap.tests, None
    if failed:
        reason = (
            f"{len(failed)} of {len(ktap.tests)} tests failed: "
            f"{failed[0].name}: {failed[0].reason}"
        )
    else:
        reason = f"{run.name}: {problems[0]}"
    return ktap.tests, CheckFailed(
        reason,
        expected="each test that was planned passes, or says why it is skipped",
        seen=_quoted(failed, problems),
        cause=_cause(run.status),
        step="the tests are in results.json, with what they said; the guest's dmesg"
        " is in timeline.jsonl",
    )


def skip_reason(run: SelftestRun) -> str:
    """Return why a program did nothing at all; empty if it did something."""
    ktap = parse_ktap(run.output)
    if run.status == _SKIP and not ktap.tests and ktap.skipped is not None:
        return ktap.skipped
    skipped = [t.reason for t in ktap.tests if t.outcome is Outcome.SKIP]
    if skipped and len(skipped) == len(ktap.tests):
        return f"every test was skipped: {skipped[0]}"
    return ""


@contextlib.contextmanager
def huge_pages(shell: Shell) -> Iterator[None]:
    """Have huge pages for a while: those of 2 MiB; one of 1 GiB is had at boot."""
    setting = "/proc/sys/vm/nr_hugepages"
    if shell.run(f"[ -e {setting} ] && echo yes || echo no").strip() == "no":
        yield  # CONFIG_HUGETLBFS; the tests say that they lack them
        return
    # The kernel gives as many as it can.
    shell.run(f"echo {_SMALL_PAGES} >{setting}")
    try:
        yield
    finally:
        shell.run(f"echo 0 >{setting}")


def available_mib(shell: Shell) -> int:
    """Return how much memory of the guest a program can have, in MiB."""
    words = shell.run("grep MemAvailable: /proc/meminfo").split()
    return int(words[1]) // 1024


def _of_status(status: int, ktap: Ktap, nr_failed: int) -> list[str]:
    if status == _KILLED:
        return [f"killed after {PROGRAM_TIMEOUT} s, or by the kernel"]
    if status == _FAIL and not nr_failed:
        return ["it ended with status 1, and no test failed"]
    if status == _PASS and nr_failed:
        return ["it ended with status 0 in spite of what failed"]
    if status == _SKIP and ktap.skipped is None:
        return ["it ended with status 4: it cannot run here"]
    return [] if status in (_PASS, _FAIL, _SKIP) else [f"it ended with status {status}"]


def _quoted(failed: Sequence[Subtest], problems: Sequence[str]) -> str:
    lines = list(problems[:_QUOTED])
    for test in failed[:_QUOTED]:
        lines.append(f"not ok {test.name}: {test.reason}")
        lines += [f"    {line}" for line in test.details.splitlines()[-_QUOTED:]]
    if len(failed) > _QUOTED:
        lines.append(f"and {len(failed) - _QUOTED} more")
    return "\n".join(lines)


def _cause(status: int) -> str:
    if status == _KILLED:
        return "a completion or an interrupt never came: the last words tell of what"
    return ""
