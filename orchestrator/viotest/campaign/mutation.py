# SPDX-License-Identifier: GPL-2.0-or-later
"""Puts the suite to the test: one run per mutant, several at once.

:class:`Campaign` makes the runs, each a ``viotest run`` of its own below one folder,
and :func:`exit_code` tells what they came to.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from viotest.campaign.mutants import (
    Fate,
    Kind,
    Mutant,
    Trial,
    judge_trial,
    unreachable,
    worst_outcomes,
)
from viotest.errors import UntestableError, ViotestError
from viotest.scenario.model import Mode
from viotest.scenario.options import ALL_MODES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

#: Long enough for any check of a guest that is well, and no longer: some mutants hang
#: it, in each mode and again after a reboot.
_CHECK_TIMEOUT = 20


@dataclass(frozen=True)
class Trials:
    """How mutants are put on trial."""

    kernel: str
    #: The out folder, made and empty.
    out: Path
    #: How many runs at once.
    jobs: int
    #: Only the checks that are aimed at the mutant, instead of all.
    quick: bool
    modes: tuple[str, ...]
    #: More arguments of each ``viotest run``.
    arguments: tuple[str, ...] = ()

    @property
    def reached(self) -> tuple[str, ...]:
        """The modes by name; ``all`` is every one that there is."""
        return tuple(map(str, Mode)) if ALL_MODES in self.modes else self.modes


@dataclass(frozen=True)
class Clean:
    """What there is without any mutant."""

    #: The results of the whole suite, then of the checks that it only puts by name, if
    #: a mutant needs any.
    runs: tuple[Mapping[str, Any], ...]

    @property
    def decisive(self) -> Mapping[str, Any]:
        """The results of the first run that did not pass, or of the first."""
        return next((r for r in self.runs if r["verdict"] != "PASS"), self.runs[0])

    @property
    def verdict(self) -> str:
        """``PASS`` if every run passed."""
        return str(self.decisive["verdict"])

    @property
    def seconds(self) -> float:
        """How long the runs took."""
        return float(sum(results["seconds"] for results in self.runs))

    @property
    def outcomes(self) -> dict[str, str]:
        """The worst outcome of each check that was put."""
        return worst_outcomes([c for results in self.runs for c in results["checks"]])


class Campaign:
    """Makes the runs.

    :param trials: How.
    :param command: How ``viotest`` is started, up to its arguments.
    """

    def __init__(
        self, trials: Trials, command: Sequence[str] = (sys.executable, "-m")
    ) -> None:
        self._trials = trials
        self._command = [*command, "viotest.cli.child", str(os.getpid())]
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[str]] = set()
        self._stopped = False
        self._clean: Clean | None = None

    def run_clean(self, mutants: Sequence[Mutant] = ()) -> Clean:
        """Run the whole suite with no mutant, and whatever else is to catch one.

        :param mutants: Those to be tried. Checks that the suite only puts by name get
            a second run, if nothing else is aimed at one of them.
        :raise UntestableError: When there is no result.
        """
        self._clean = Clean((self._run("clean", ()),))
        named = {name for mutant in mutants for name in self._by_name(mutant)}
        if named:
            chosen = [f"--check={name}" for name in sorted(named)]
            results = self._run("clean-by-name", chosen)
            self._clean = Clean((*self._clean.runs, results))
        return self._clean

    def try_all(
        self, mutants: Sequence[Mutant], show: Callable[[Trial, int, float], None]
    ) -> list[Trial]:
        """Put mutants on trial.

        :param show: Called with each trial as it ends, how many have ended, and how
            many seconds the rest may take.
        :return: The trials, in the order of the mutants.
        """
        started = time.monotonic()
        done: dict[str, Trial] = {}
        with concurrent.futures.ThreadPoolExecutor(self._trials.jobs) as pool:
            futures = [pool.submit(self.try_one, mutant) for mutant in mutants]
            try:
                for future in concurrent.futures.as_completed(futures):
                    trial = future.result()
                    done[trial.mutant.name] = trial
                    mean = (time.monotonic() - started) / len(done)
                    show(trial, len(done), mean * (len(mutants) - len(done)))
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                self.stop()
                raise
        return [done[mutant.name] for mutant in mutants]

    def try_one(self, mutant: Mutant) -> Trial:
        """Put one mutant on trial; what goes wrong is in the trial."""
        if reason := self._reason(mutant):
            return Trial(mutant, Fate.EXPLAINED, text=reason)
        if self._trials.quick and not mutant.checks and not mutant.aim.cause:
            return Trial(mutant, Fate.SURVIVED, text=f"wanted: {mutant.aim.wanted}")
        folder = f"{mutant.kind}-{mutant.name}"
        chosen = mutant.checks if self._trials.quick else self._by_name(mutant)
        trial = self._put(mutant, chosen, folder)
        if trial.fate is Fate.SURVIVED and _ended_before(trial):
            alone = self._put(mutant, mutant.checks, f"{folder}-alone")
            trial = _together(trial, alone)
        if trial.fate is Fate.SURVIVED and self._never_put(mutant):
            names = ", ".join(mutant.checks)
            text = f"skipped on this kernel without the mutant, too: {names}"
            return dataclasses.replace(trial, fate=Fate.EXPLAINED, text=text)
        return trial

    def _put(self, mutant: Mutant, chosen: Sequence[str], folder: str) -> Trial:
        started = time.monotonic()
        checks = [f"--check={name}" for name in chosen]
        try:
            results = self._run(folder, [*checks, *self._arguments(mutant)])
        except ViotestError as error:
            seconds = time.monotonic() - started
            return Trial(mutant, Fate.UNTESTED, text=str(error), seconds=seconds)
        return judge_trial(mutant, results, folder)

    # The checks that are aimed at it, if the suite puts none of them unasked.
    def _by_name(self, mutant: Mutant) -> list[str]:
        if self._clean is None or self._reason(mutant):
            return []
        suite = worst_outcomes(self._clean.runs[0]["checks"])
        return [] if suite.keys() & set(mutant.checks) else mutant.checks

    # Why no run could catch it; empty if one could.
    def _reason(self, mutant: Mutant) -> str:
        debian = self._trials.kernel.startswith("debian:")
        reason = unreachable(mutant, self._trials.reached, only_iommu=debian)
        return reason or mutant.aim.unobservable

    # Nothing that is aimed at it can be asked of this kernel in these modes.
    def _never_put(self, mutant: Mutant) -> bool:
        if self._clean is None or not mutant.checks:
            return False
        outcomes = self._clean.outcomes
        return all(outcomes.get(name, "skip") == "skip" for name in mutant.checks)

    @property
    def running(self) -> int:
        """How many runs are going on."""
        return len(self._running)

    def stop(self) -> None:
        """End the runs that are going on, and start no other."""
        with self._lock:
            self._stopped = True
            running = list(self._running)
        for process in running:
            process.send_signal(signal.SIGINT)

    def _arguments(self, mutant: Mutant) -> list[str]:
        # What hangs once hangs again; what is left is worth one more guest.
        arguments = ["--reboots", "1", "--timeout", f"check={_CHECK_TIMEOUT}"]
        if mutant.kind is Kind.DEVICE:
            return [*arguments, "--device-mutant", mutant.name]
        modules = self._build(mutant)
        return [*arguments, *(f"--replace-module={module}" for module in modules)]

    def _build(self, mutant: Mutant) -> list[str]:
        kernel = self._trials.kernel
        command = ["kernel", "module", "--kernel", kernel, "--patch", f"{mutant.patch}"]
        said, status = self._call(command)
        if status:
            raise UntestableError(f"cannot build {mutant.name}: {_last(said)}")
        return [line for line in said.splitlines() if line.endswith(".ko")]

    def _run(self, folder: str, arguments: Sequence[str]) -> Mapping[str, Any]:
        trials = self._trials
        out = trials.out / folder
        modes = [f"--mode={mode}" for mode in trials.modes]
        where = ["--kernel", trials.kernel, "--out", f"{out}"]
        command = ["run", *where, *modes, *trials.arguments, *arguments]
        said, status = self._call(command)
        try:
            results = json.loads((out / "results.json").read_text())
        except (OSError, ValueError) as error:
            what = f"no result of viotest run (exit {status}): {_last(said)}"
            raise UntestableError(what) from error
        (out / "stdout.txt").write_text(said)
        assert isinstance(results, dict)
        return results

    def _call(self, arguments: Sequence[str]) -> tuple[str, int]:
        with self._lock:
            if self._stopped:
                raise UntestableError("interrupted")
            process = subprocess.Popen(
                [*self._command, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                # Ctrl-C is ours to pass on.
                start_new_session=True,
            )
            self._running.add(process)
        try:
            said, _ = process.communicate()
        except BaseException:
            process.send_signal(signal.SIGINT)
            process.communicate()
            raise
        finally:
            with self._lock:
                self._running.discard(process)
        return said, process.returncode


# Other checks hung, and used up the guests, before one that is aimed at it was put.
def _ended_before(trial: Trial) -> bool:
    outcomes = trial.outcomes or {}
    return bool(trial.others) and not outcomes.keys() & set(trial.mutant.checks)


# What came of the whole suite, and then of the aimed checks alone, which decide.
def _together(suite: Trial, alone: Trial) -> Trial:
    return dataclasses.replace(
        alone,
        others=tuple(dict.fromkeys((*suite.others, *alone.others))),
        outcomes={**(suite.outcomes or {}), **(alone.outcomes or {})},
        seconds=suite.seconds + alone.seconds,
    )


def _last(said: str) -> str:
    return said.strip().rpartition("\n")[2] or "it said nothing"


def exit_code(clean: Clean | None, trials: Sequence[Trial]) -> int:
    """Return 0 if each mutant was caught or explained, and nothing else failed.

    :param clean: What there is without a mutant; None if nothing was run.
    :return: 1 for a survivor or a clean kernel that fails, 125 for what could not be
        tested.
    """
    fates = {trial.fate for trial in trials}
    verdicts = [results["verdict"] for results in clean.runs] if clean else []
    if Fate.SURVIVED in fates or "FAIL" in verdicts:
        return 1
    if Fate.UNTESTED in fates or any(verdict != "PASS" for verdict in verdicts):
        return 125
    return 0
