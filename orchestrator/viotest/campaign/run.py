# SPDX-License-Identifier: GPL-2.0-or-later
"""One run, from settings to verdict: :func:`run`."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

from viotest.campaign.accel import AccelChoice, choose_accel
from viotest.campaign.causes import cause_of
from viotest.campaign.execution import Execution
from viotest.campaign.folder import (
    check_memory,
    check_out,
    kept_if_interrupted,
    make_folder,
    shown_path,
)
from viotest.campaign.plan import Assets, Plan
from viotest.campaign.proc import process_start_ns
from viotest.campaign.session import Session
from viotest.errors import UsageError, ViotestError
from viotest.provision import cache, nested
from viotest.provision.initramfs import provide_initramfs
from viotest.provision.kbuild.selftests import provide_selftests
from viotest.provision.kernel import BUILD, provide_kernel
from viotest.provision.modules import module_name
from viotest.provision.qemu import provide_qemu, provide_tree
from viotest.report.device_log import add_counters, summary
from viotest.report.junit import junit_xml
from viotest.report.results import Outcome as CheckOutcome
from viotest.report.results import RunResult, judge
from viotest.report.summary import Narrator
from viotest.report.timeline import Timeline
from viotest.scenario.model import Accel
from viotest.scenario.options import names_check, scenario_config
from viotest.scenario.topology import build_topology
from viotest.suite.catalog import CHECKS, NESTED, SELFTESTS

if TYPE_CHECKING:
    from viotest.campaign.execution import Executing, Outcome
    from viotest.provision.progress import Progress
    from viotest.report.results import Cause, CheckResult
    from viotest.report.summary import Terminal
    from viotest.scenario.model import Scenario
    from viotest.scenario.options import Settings

RESULTS = "results.json"
JUNIT = "junit.xml"
TIMELINE = "timeline.jsonl"

# A KVM that works boots in seconds; one that does not may say nothing at all.
_KVM_PROOF_TIMEOUT = 15.0


def provide(scenario: Scenario, progress: Progress) -> Assets:
    """Get everything that the guest is made of: from the cache, or fetched.

    :raise UsageError: When the scenario names something unusable.
    :raise UntestableError: When something cannot be had.
    """
    qemu = provide_qemu(scenario.qemu, progress)
    kernel = provide_kernel(scenario.kernel, scenario.modules, progress)
    replaced = {module_name(name): Path(name) for name in scenario.replace_modules}
    for path in replaced.values():
        if not path.is_file():
            raise UsageError(f"--replace-module {path}: no such file")
    initramfs = provide_initramfs(kernel, progress, replace_modules=replaced)
    selftests = _selftests(scenario, progress)
    tree = _nested(scenario, progress)
    return Assets(qemu, kernel, initramfs, selftests=selftests, nested=tree)


def _selftests(scenario: Scenario, progress: Progress) -> Path | None:
    # Without any the check is skipped, and says why.
    if scenario.kernel.startswith(BUILD) and names_check(scenario.checks, SELFTESTS):
        return provide_selftests(scenario.kernel, progress)
    return None


def _nested(scenario: Scenario, progress: Progress) -> Path | None:
    # In a smaller guest the check is skipped, which otherwise would not even boot.
    if scenario.mem >= nested.MEM and names_check(scenario.checks, NESTED):
        return provide_tree(progress)
    return None


def prepare(
    scenario: Scenario, progress: Progress, *, may_boot: bool = True
) -> tuple[Plan, AccelChoice]:
    """Plan a run.

    :param may_boot: A guest may be started to find out whether KVM works.
    :return: The plan, and why it uses the accelerator it does.
    """
    topology = build_topology(scenario)
    assets = provide(scenario, progress)

    def prove() -> str:
        progress.note("proving that KVM can boot a guest here")
        return prove_kvm(Plan(scenario, topology, assets, Accel.KVM))

    choice = choose_accel(
        scenario.accel, prove if may_boot else None, assets.qemu.version
    )
    return Plan(scenario, topology, assets, choice.chosen), choice


def prove_kvm(plan: Plan) -> str:
    """Boot a guest under KVM to its beacon; return why it did not come up, or ""."""
    with cache.scratch() as folder:
        session = Session(plan, folder, Timeline(folder / TIMELINE))
        try:
            with session:
                session.wait_for_beacon(_KVM_PROOF_TIMEOUT)
        except UsageError:
            raise
        except ViotestError as error:
            return cause_of(error, booted=False).text
    return ""


def dry_run(plan: Plan) -> str:
    """Return what a run would start: the argvs of the device and QEMU."""
    return plan.argv_text()


class _Reporter:
    """Shows checks as they end, unless the output is to be JSON."""

    def __init__(self, terminal: Terminal, *, quiet: bool) -> None:
        self._terminal = terminal
        self._quiet = quiet

    def banner(self, plan: Plan, choice: AccelChoice) -> None:
        if not self._quiet:
            self._terminal.prose(
                f"QEMU {plan.assets.qemu.version} ({plan.assets.qemu.origin}), kernel"
                f" {plan.assets.kernel.release}, {choice.chosen}: {choice.reason}",
                hang=2,
            )

    def check(self, result: CheckResult) -> None:
        if not self._quiet:
            self._terminal.check(result)

    def finish(self, result: RunResult, folder: Path) -> None:
        if self._quiet:
            self._terminal.line(json.dumps(result.to_json(), indent=2))
        else:
            self._terminal.finish(result, shown_path(folder))


def run(settings: Settings, progress: Progress, terminal: Terminal) -> int:
    """Carry out a run and show what comes of it.

    :param settings: What to run, where, and how to show it.
    :param progress: Where provisioning shows itself.
    :param terminal: Where the report goes.
    :return: The exit code: 0, 1 or 125.
    :raise UsageError: When the settings are wrong; nothing was started or made.
    :raise UntestableError: When an asset cannot be had.
    """
    start_ns = process_start_ns()
    if not settings.dry_run:
        check_out(settings.out, log_records=settings.scenario.log_records)
        check_memory(settings.scenario, guests=workers_of(settings))
    plan, choice = prepare(settings.scenario, progress, may_boot=not settings.dry_run)
    if settings.dry_run:
        terminal.line(dry_run(plan).rstrip())
        return 0
    reporter = _Reporter(terminal, quiet=settings.json)
    reporter.banner(plan, choice)
    folder = make_folder(settings.out)
    with kept_if_interrupted(folder):
        show = Narrator(start_ns) if settings.verbose else None
        timeline = Timeline(folder / TIMELINE, show=show)
        timeline.record("run", "start", {}, start_ns)
        execution = _execution(settings, plan, folder, timeline, reporter, start_ns)
        outcome = execution.run()
        result = run_result(outcome, plan, choice, start_ns)
        (folder / RESULTS).write_text(json.dumps(result.to_json(), indent=2) + "\n")
        (folder / JUNIT).write_text(junit_xml(result))
        if outcome.interrupted:
            raise KeyboardInterrupt
    reporter.finish(result, folder)
    return result.verdict.exit_code


def workers_of(settings: Settings) -> int:
    """Return how many workers a run uses: a mode is the least that one can have."""
    return min(settings.workers, len(settings.scenario.modes))


def _execution(
    settings: Settings,
    plan: Plan,
    folder: Path,
    timeline: Timeline,
    reporter: _Reporter,
    start_ns: int,
) -> Executing:
    workers = workers_of(settings)
    if workers == 1:
        return Execution(plan, folder, timeline, reporter.check)
    # Late: most runs do without xdist.
    from viotest.campaign.parallel import ParallelExecution

    return ParallelExecution(
        plan,
        folder,
        timeline,
        reporter.check,
        workers=workers,
        narrate_from_ns=start_ns if settings.verbose else None,
    )


def run_result(
    outcome: Outcome, plan: Plan, choice: AccelChoice, start_ns: int
) -> RunResult:
    """Return what a run came to.

    :param outcome: What its execution came to.
    :param plan: What a guest was.
    :param choice: Which accelerator, and why.
    :param start_ns: When the run began.
    """
    scenario, assets = plan.scenario, plan.assets
    required = [check.name for check in CHECKS if check.required]
    booted = any(guest.booted for guest in outcome.guests)
    verdict, cause = judge(
        outcome.checks,
        [] if scenario.checks else required,
        _telling(outcome),
        broken_is_bad=scenario.boot_fail_is_bad and not booted,
        not_run=outcome.not_run,
        any_mode=scenario.any_mode,
    )
    return RunResult(
        verdict=verdict,
        cause=cause,
        scenario=scenario_config(scenario),
        qemu={"version": assets.qemu.version, "origin": assets.qemu.origin},
        kernel={
            "spec": assets.kernel.spec,
            "release": assets.kernel.release,
            "pvh": assets.kernel.pvh,
        },
        accel={"chosen": str(choice.chosen), "reason": choice.reason},
        phases=_phases(outcome, start_ns),
        checks=outcome.checks,
        device=_device_summary(outcome),
        clock=outcome.guests[0].clock if outcome.guests else {},
        cpu=_cpu(outcome),
        seconds=(time.monotonic_ns() - start_ns) / 1e9,
        guests=outcome.guests,
        not_run=outcome.not_run,
    )


# Which of the losses explains the verdict: that of the first check that failed, if it
# was lost in it, else the first of all.
def _telling(outcome: Outcome) -> Cause | None:
    failed = [c.reason for c in outcome.checks if c.outcome is CheckOutcome.FAIL]
    for loss in outcome.losses:
        if failed[:1] == [loss.text]:
            return loss
    return outcome.losses[0] if outcome.losses else None


def _phases(outcome: Outcome, start_ns: int) -> dict[str, float]:
    names = ("launched", "kernel", "beacon", "ssh", "first-check")
    firsts = [g.marks for g in outcome.guests]
    found = {
        name: min(marks[name] for marks in firsts if name in marks)
        for name in names
        if any(name in marks for marks in firsts)
    }
    return {n: (ns - start_ns) / 1e9 for n, ns in (found | outcome.marks).items()}


def _device_summary(outcome: Outcome) -> dict[str, object] | None:
    counted = [g.counters for g in outcome.guests if g.counters is not None]
    return summary(add_counters(counted)) if counted else None


def _cpu(outcome: Outcome) -> dict[str, float]:
    if "verdict" not in outcome.marks:
        return {}
    both = {
        name: sum(guest.cpu.get(name, 0.0) for guest in outcome.guests)
        for name in ("device", "qemu")
    }
    return {"orchestrator": outcome.cpu} | both
