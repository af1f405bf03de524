# SPDX-License-Identifier: GPL-2.0-or-later
"""Deliberate defects, of the kernel and of the device, and what is to notice them.

:func:`kernel_mutants` reads the patches of guest-images/mutants, :func:`device_mutants`
asks the device for its own. :func:`judge_trial` tells whether the suite has noticed.
"""

from __future__ import annotations

import enum
import fnmatch
import re
import subprocess
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from viotest.errors import UntestableError
from viotest.suite.aims import DEVICE_AIMS, Aim
from viotest.suite.catalog import NAMES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

#: ``Key: value`` in the text before a patch's changes.
_FIELD = re.compile(r"^(Mutant|Aims|Modes|Fixed-by|Wanted|Unobservable): +(.+)$")
_TARGET = re.compile(r"^\+\+\+ b/(\S+)", re.MULTILINE)
_RELEASE = re.compile(r"(\d+)\.(\d+)")

Version = tuple[int, int]


class Kind(enum.StrEnum):
    """Whose defect it is."""

    KERNEL = "kernel"
    DEVICE = "device"


class Fate(enum.StrEnum):
    """What became of a mutant."""

    #: A check that is aimed at it failed.
    KILLED = "killed"
    #: Nothing that is aimed at it failed.
    SURVIVED = "survived"
    #: It cannot be seen, or not here; the reason is given.
    EXPLAINED = "explained"
    #: It could not be built, or the run could not be made.
    UNTESTED = "untested"


@dataclass(frozen=True)
class Mutant:
    """One deliberate defect."""

    kind: Kind
    name: str
    #: What is broken, one line.
    title: str
    aim: Aim
    #: The commit that mended it, if it was in a released kernel.
    fixed_by: str = ""
    #: The modes of which one is needed to reach it; empty: any.
    modes: tuple[str, ...] = ()
    patch: Path | None = None
    #: The files that the patch changes.
    files: tuple[str, ...] = ()

    @property
    def checks(self) -> list[str]:
        """The checks of the catalog that are aimed at it."""
        return [
            name
            for name in NAMES
            if any(fnmatch.fnmatchcase(name, pattern) for pattern in self.aim.checks)
        ]


@dataclass(frozen=True)
class Trial:
    """What became of one mutant, and how it was found out."""

    mutant: Mutant
    fate: Fate
    #: Checks that failed and are aimed at it.
    caught: tuple[str, ...] = ()
    #: Checks that failed, too.
    others: tuple[str, ...] = ()
    #: The outcome of every check that was put: the worst over modes and sizes.
    outcomes: Mapping[str, str] | None = None
    #: One line: the first failure, or why there is none.
    text: str = ""
    seconds: float = 0.0
    #: Below the out folder; empty if there was no run.
    folder: str = ""


def parse_version(release: str) -> Version:
    """Return the version of a kernel's release: (6, 12) of ``6.12.95+deb12``."""
    found = _RELEASE.match(release)
    if found is None:
        raise UntestableError(f"{release!r} is no release of a kernel")
    return int(found[1]), int(found[2])


def kernel_mutants(version: Version) -> list[Mutant]:
    """Return the kernel mutants, each by the patch that fits a kernel.

    :param version: The kernel's. ``NAME@7.3.patch`` is for 7.3 and later, and
        ``NAME.patch`` for those before, or for all.
    """
    folder = Path(str(resources.files("viotest.guest_images"))) / "mutants"
    chosen: dict[str, tuple[Version, Path]] = {}
    for path in sorted(folder.glob("*.patch")):
        name, _, since = path.stem.partition("@")
        first = parse_version(since) if since else (0, 0)
        if first <= version and first >= chosen.get(name, ((0, 0), path))[0]:
            chosen[name] = (first, path)
    return [parse_patch(path) for _, (_, path) in sorted(chosen.items())]


def parse_patch(path: Path) -> Mutant:
    """Read a kernel mutant.

    :param path: A patch whose text says ``Mutant: NAME`` and ``Aims: PATTERN...``, or
        ``Wanted: ...`` where nothing is aimed at it yet, or ``Unobservable: ...``.
    :raise UntestableError: When it does not.
    """
    text = path.read_text()
    fields: dict[str, str] = {}
    for line in text.partition("\n--- ")[0].splitlines():
        if found := _FIELD.match(line):
            fields[found[1]] = found[2]
    if fields.get("Mutant") != path.stem.partition("@")[0]:
        raise UntestableError(f"{path}: its text does not say Mutant: {path.stem}")
    aim = Aim(
        checks=tuple(fields.get("Aims", "").split()),
        wanted=fields.get("Wanted", ""),
        unobservable=fields.get("Unobservable", ""),
    )
    return Mutant(
        kind=Kind.KERNEL,
        name=fields["Mutant"],
        title=text.partition("\n")[0],
        aim=aim,
        fixed_by=fields.get("Fixed-by", ""),
        modes=tuple(fields.get("Modes", "").split()),
        patch=path,
        files=tuple(_TARGET.findall(text)),
    )


def device_mutants(command: Sequence[str]) -> list[Mutant]:
    """Return the device's mutants.

    :param command: How ``viotest-device`` is started.
    :raise UntestableError: When it does not list them, or one that nobody aims at.
    """
    listed = subprocess.run(
        [*command, "mutants"], capture_output=True, text=True, check=False
    )
    if listed.returncode:
        raise UntestableError(f"viotest-device mutants: {listed.stderr.strip()}")
    found = []
    for line in listed.stdout.splitlines():
        name, _, title = line.partition(" ")
        aim = DEVICE_AIMS.get(name)
        if aim is None:
            raise UntestableError(f"suite/aims.py does not know the mutant {name}")
        found.append(Mutant(Kind.DEVICE, name, title.strip(), aim))
    return found


def unreachable(
    mutant: Mutant, modes: Iterable[str], *, only_iommu: bool = False
) -> str:
    """Return why a mutant cannot be put on trial here; empty if it can.

    :param modes: The modes of the runs.
    :param only_iommu: The kernel's virtio-iommu is all that can be rebuilt.
    """
    modes = list(modes)
    if mutant.modes and not set(mutant.modes) & set(modes):
        needed = " or ".join(mutant.modes)
        return f"reached in mode {needed} only, not in {', '.join(modes)}"
    foreign = [name for name in mutant.files if not name.endswith("/virtio-iommu.c")]
    if only_iommu and foreign:
        return f"of this kernel {foreign[0]} cannot be rebuilt; build:... can"
    return ""


def judge_trial(mutant: Mutant, results: Mapping[str, Any], folder: str) -> Trial:
    """Tell what became of a mutant.

    A kill counts only by a check that is aimed at the defect: that something else
    breaks, or that the guest does not boot, is no proof that the suite can see it.

    :param results: ``results.json`` of its run.
    :param folder: Where the run is, below the out folder.
    """
    outcomes = worst_outcomes(results["checks"])
    failed = [name for name in NAMES if outcomes.get(name) == "fail"]
    caught = tuple(name for name in failed if name in mutant.checks)
    cause = results["cause"] or {"category": "", "text": ""}
    named = bool(mutant.aim.cause) and mutant.aim.cause in cause["text"]
    text = f"{cause['category']}: {cause['text']}" if cause["text"] else "all passed"
    if caught:
        fate, text = Fate.KILLED, first_failure(results["checks"], caught)
    elif named:
        fate = Fate.KILLED
    elif mutant.aim.unobservable:
        fate, text = Fate.EXPLAINED, mutant.aim.unobservable
    elif results["verdict"] == "UNTESTED" and cause["category"] == "infra":
        fate = Fate.UNTESTED
    else:
        fate = Fate.SURVIVED
        text = f"wanted: {mutant.aim.wanted}" if mutant.aim.wanted else text
    return Trial(
        mutant=mutant,
        fate=fate,
        caught=caught,
        others=tuple(name for name in failed if name not in caught),
        outcomes=outcomes,
        text=text,
        seconds=float(results["seconds"]),
        folder=folder,
    )


_WORST = ("fail", "error", "skip", "pass")


def worst_outcomes(checks: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Return the worst outcome of each check over modes and sizes."""
    worst: dict[str, str] = {}
    for check in checks:
        name, outcome = check["name"], check["outcome"]
        worst[name] = min(worst.get(name, outcome), outcome, key=_WORST.index)
    return worst


def first_failure(checks: Iterable[Mapping[str, Any]], names: Sequence[str]) -> str:
    """Return the first failure of one of some checks, as a line."""
    return next(
        f"{check['id']}: {check['reason']}"
        for check in checks
        if check["name"] in names and check["outcome"] == "fail"
    )
