# SPDX-License-Identifier: GPL-2.0-or-later
"""One run, from settings to verdict: :func:`run`."""

from __future__ import annotations

import contextlib
import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from viotest.campaign.accel import AccelChoice, choose_accel
from viotest.campaign.causes import cause_of
from viotest.campaign.folder import check_memory, check_out, make_folder
from viotest.campaign.plan import Assets, Plan
from viotest.campaign.proc import process_start_ns
from viotest.campaign.session import Session
from viotest.errors import UsageError, ViotestError
from viotest.provision import cache
from viotest.provision.initramfs import provide_initramfs
from viotest.provision.kernel import provide_kernel
from viotest.provision.modules import module_name
from viotest.provision.qemu import provide_qemu
from viotest.report.device_log import summary, timeline_events
from viotest.report.junit import junit_xml
from viotest.report.results import Category, Cause, RunResult, judge
from viotest.report.summary import Narrator
from viotest.report.timeline import Event, Timeline
from viotest.scenario.model import Accel
from viotest.scenario.options import scenario_config
from viotest.scenario.topology import build_topology
from viotest.suite.catalog import CHECKS

if TYPE_CHECKING:
    from viotest.provision.progress import Progress
    from viotest.report.results import CheckResult
    from viotest.report.summary import Terminal
    from viotest.scenario.model import Scenario
    from viotest.scenario.options import Settings

RESULTS = "results.json"
JUNIT = "junit.xml"
PYTEST_LOG = "pytest.log"
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
    return Assets(qemu, kernel, initramfs)


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
            self._terminal.line(
                f"QEMU {plan.assets.qemu.version} ({plan.assets.qemu.origin}), kernel"
                f" {plan.assets.kernel.release}, {choice.chosen}: {choice.reason}"
            )

    def check(self, result: CheckResult) -> None:
        if not self._quiet:
            self._terminal.check(result)

    def finish(self, result: RunResult, folder: Path) -> None:
        if self._quiet:
            self._terminal.line(json.dumps(result.to_json(), indent=2))
        else:
            self._terminal.finish(result, shown_path(folder))


def shown_path(path: Path) -> str:
    """Return a path as short as it can be typed from here."""
    with contextlib.suppress(ValueError):
        return os.fspath(path.relative_to(Path.cwd()))
    return os.fspath(path)


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
    check_out(settings.out, log_records=settings.scenario.log_records)
    check_memory(settings.scenario)
    plan, choice = prepare(settings.scenario, progress, may_boot=not settings.dry_run)
    if settings.dry_run:
        terminal.line(dry_run(plan).rstrip())
        return 0
    reporter = _Reporter(terminal, quiet=settings.json)
    reporter.banner(plan, choice)
    folder = make_folder(settings.out)
    show = Narrator(start_ns) if settings.verbose else None
    timeline = Timeline(folder / TIMELINE, show=show)
    timeline.record("run", "start", {}, start_ns)
    execution = _Execution(plan, folder, timeline, reporter)
    execution.run()
    result = execution.result(choice, start_ns)
    (folder / RESULTS).write_text(json.dumps(result.to_json(), indent=2) + "\n")
    (folder / JUNIT).write_text(junit_xml(result))
    if execution.interrupted:
        raise KeyboardInterrupt
    reporter.finish(result, folder)
    return result.verdict.exit_code


class _Execution:
    """The part of a run in which processes exist."""

    def __init__(
        self, plan: Plan, folder: Path, timeline: Timeline, reporter: _Reporter
    ) -> None:
        self._plan = plan
        self._folder = folder
        self._timeline = timeline
        self._reporter = reporter
        self._session = Session(plan, folder, timeline)
        self._checks: list[CheckResult] = []
        self._broken: Cause | None = None
        self._dmesg: list[Event] = []
        self._cpu: dict[str, float] = {}
        #: The user did not want to wait for the end.
        self.interrupted = False

    def run(self) -> None:
        """Boot, check, end; what breaks is kept as the cause.

        The timeline is completed whatever happens.
        """
        try:
            with self._session as session:
                self._put_checks(session)
                session.mark("verdict")
                self._cpu = session.cpu_seconds()
                session.tie_clock()
                self._dmesg = [
                    Event(ns, "dmesg", "line", {"text": text})
                    for ns, text in session.guest_dmesg()
                ]
        except KeyboardInterrupt:
            self.interrupted = True
            self._broken = Cause(Category.INFRA, "interrupted")
        except UsageError:
            raise
        except ViotestError as error:
            # A teardown that went wrong does not make the first cause unsaid.
            cause = cause_of(error, booted=self._session.booted)
            self._broken = self._session.broken or cause
        finally:
            self._session.mark("end")
            self._timeline.finish([*self._dmesg, *self._device_events()])
        self._broken = self._broken or self._session.broken

    def _put_checks(self, session: Session) -> None:
        # Late: the guest boots while Python imports pytest.
        from viotest.campaign.checks import put_checks

        put_checks(session, show=self._take, log=self._folder / PYTEST_LOG)

    def _take(self, result: CheckResult) -> None:
        self._checks.append(result)
        self._reporter.check(result)

    def _device_events(self) -> list[Event]:
        with contextlib.suppress(ViotestError):  # the device never came up
            return list(timeline_events(self._session.device_log()))
        return []

    def _device_summary(self) -> dict[str, object] | None:
        with contextlib.suppress(ViotestError):  # the device never came up
            return summary(self._session.device_log().counters())
        return None

    def result(self, choice: AccelChoice, start_ns: int) -> RunResult:
        """Return what the run came to."""
        scenario, assets = self._plan.scenario, self._plan.assets
        required = [check.name for check in CHECKS if check.required]
        wanted = [] if scenario.checks else required
        verdict, cause = judge(
            self._checks,
            wanted,
            self._broken,
            broken_is_bad=scenario.boot_fail_is_bad and not self._session.booted,
            any_mode=scenario.any_mode,
        )
        marks = self._session.marks
        names = ("launched", "kernel", "beacon", "ssh", "first-check", "verdict", "end")
        phases = {n: (marks[n] - start_ns) / 1e9 for n in names if n in marks}
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
            phases=phases,
            checks=self._checks,
            device=self._device_summary(),
            clock=self._session.clock,
            cpu=self._cpu,
            seconds=(time.monotonic_ns() - start_ns) / 1e9,
        )
