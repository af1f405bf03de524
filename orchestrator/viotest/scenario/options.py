# SPDX-License-Identifier: GPL-2.0-or-later
"""The options of a run, once: what the command line, the environment and the
configuration file all accept.

:data:`OPTIONS` is the table; :func:`parse_settings` turns raw strings into a frozen
:class:`Settings` or raises :class:`~viotest.errors.UsageError`.
"""

from __future__ import annotations

import difflib
import enum
import fnmatch
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from viotest.errors import UsageError
from viotest.scenario.model import (
    Accel,
    EndpointModel,
    EndpointSpec,
    Iommu,
    Mode,
    Phase,
    Place,
    Scenario,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

_Enum = TypeVar("_Enum", bound=enum.StrEnum)

#: Machines that can be built; a new one is a record in ``viotest.machine.arch``.
MACHINES = ("q35",)

#: What ``--mode`` takes for all of them.
ALL_MODES = "all"

#: Less memory than this and the kernel, the initramfs and the checks' buffers
#: do not fit (MiB).
MIN_MEM = 192

#: What the device's log may hold: 64 KiB, and 1 GiB.
MIN_LOG_RECORDS = 1 << 10
MAX_LOG_RECORDS = 1 << 24


class Kind(enum.Enum):
    """How often an option may be given, and whether it takes a value."""

    ONE = "one"
    MANY = "many"
    FLAG = "flag"


@dataclass(frozen=True)
class Option:
    """One option of ``viotest run``."""

    #: As written after ``--`` and in the configuration file.
    name: str
    kind: Kind
    metavar: str
    help: str

    @property
    def variable(self) -> str:
        """The environment variable, e.g. ``VIOTEST_BOOT_FAIL_IS``."""
        return "VIOTEST_" + self.name.replace("-", "_").upper()


OPTIONS: tuple[Option, ...] = (
    Option(
        "kernel",
        Kind.ONE,
        "KERNEL",
        "debian:trixie (default), debian:trixie-backports, debian:bookworm-backports,"
        " build:NAME (see viotest kernel list), a bzImage or vmlinux, or a built tree",
    ),
    Option("modules", Kind.ONE, "DIR", "the lib/modules/RELEASE of a kernel file"),
    Option(
        "replace-module",
        Kind.MANY,
        "FILE.ko",
        "use this module instead of the kernel's own of that name (see viotest"
        " kernel module)",
    ),
    Option(
        "qemu",
        Kind.ONE,
        "PATH",
        "qemu-system binary; default: a suitable one on PATH, else Debian's",
    ),
    Option("machine", Kind.ONE, "MACHINE", f"{', '.join(MACHINES)} (default)"),
    Option("accel", Kind.ONE, "ACCEL", "auto (default), kvm or tcg"),
    Option("iommu", Kind.ONE, "IOMMU", "viotest (default) or qemu: whose virtio-iommu"),
    Option(
        "mode",
        Kind.MANY,
        "MODE",
        f"how to enter VFIO: {', '.join(Mode)}; may be repeated (default: type1v2);"
        f" {ALL_MODES}: every one that the kernel offers",
    ),
    Option("check", Kind.MANY, "GLOB", "only the checks that match; may be repeated"),
    Option(
        "thorough",
        Kind.FLAG,
        "",
        "the checks too that take half a minute and more under emulation",
    ),
    Option("out", Kind.ONE, "DIR", "run folder to make (default: viotest-runs/TIME)"),
    Option("smp", Kind.ONE, "N", "virtual CPUs (default: 1)"),
    Option("mem", Kind.ONE, "MIB", "guest memory in MiB (default: 512)"),
    Option("append", Kind.MANY, "ARG", "append to the guest's kernel command line"),
    Option("qemu-arg", Kind.MANY, "ARG", "append to QEMU's argv"),
    Option(
        "timeout",
        Kind.MANY,
        "PHASE=SECONDS",
        f"deadline of a phase: {', '.join(Phase)}; may be repeated",
    ),
    Option(
        "boot-fail-is",
        Kind.ONE,
        "bad",
        "a kernel that does not boot is bad (exit 1) instead of untestable (125)",
    ),
    Option(
        "device-mutant",
        Kind.MANY,
        "NAME",
        "switch on a deliberate defect of the device (viotest-device mutants)",
    ),
    Option(
        "reboots",
        Kind.ONE,
        "N",
        "boot another guest for the checks that are left when one is lost or its"
        " kernel has complained, N times in each mode (default: 2)",
    ),
    Option(
        "workers",
        Kind.ONE,
        "N",
        "spread the modes over N workers with a guest each (default: 1)",
    ),
    Option(
        "endpoint",
        Kind.MANY,
        "MODEL[@PLACE][,iommu=N]",
        "an endpoint; may be repeated (default: dma-engine). Models:"
        f" {', '.join(EndpointModel)}; places: {', '.join(Place)} (default: root);"
        " N: which virtio-iommu translates it (default: 0). standard: a set that"
        " every check finds what it needs in",
    ),
    Option(
        "poll",
        Kind.ONE,
        "US",
        "how long our virtio-iommu may look at its ring before it sleeps, in"
        " microseconds (default: 20; 0: not at all)",
    ),
    Option(
        "log-records",
        Kind.ONE,
        "N",
        "records that the device's log keeps, 64 bytes each, a power of two"
        f" (default: {Scenario.log_records})",
    ),
    Option(
        "dry-run",
        Kind.FLAG,
        "",
        "print the exact argv of the device and QEMU, start nothing",
    ),
    Option("json", Kind.FLAG, "", "print results.json instead of the table"),
    Option("verbose", Kind.FLAG, "", "say what is done while it is done"),
)
#: Lists whose values may hold commas themselves.
_FREE_TEXT = ("append", "endpoint", "qemu-arg", "replace-module")

#: The name of :data:`STANDARD_ENDPOINTS`.
STANDARD = "standard"
#: One of everything that a check asks for, in one guest.
STANDARD_ENDPOINTS = (
    EndpointSpec(),
    EndpointSpec(),
    EndpointSpec(place=Place.PORT),
    EndpointSpec(place=Place.HOTPLUG),
    EndpointSpec(place=Place.BRIDGE),
    EndpointSpec(place=Place.BRIDGE),
    EndpointSpec(EndpointModel.IOAT),
    EndpointSpec(EndpointModel.NVME),
    # Left out behind QEMU's IOMMU, as are those behind the bridge.
    EndpointSpec(iommu=1),
)
_BY_NAME = {option.name: option for option in OPTIONS}

#: Environment variables that are no options.
_OTHER_VARIABLES = ("VIOTEST_CACHE", "VIOTEST_CI", "VIOTEST_CONFIG", "VIOTEST_DEBUG")

#: Raw values by option name; a flag that is set has one value, ``"1"``.
Raw = dict[str, list[str]]


@dataclass(frozen=True)
class Settings:
    """A scenario, and how one run of it is to be carried out and shown."""

    scenario: Scenario
    out: Path | None = None
    dry_run: bool = False
    json: bool = False
    verbose: bool = False
    #: How many workers share the modes.
    workers: int = 1


def nearest(value: str, valid: Iterable[str]) -> str:
    """Return ``; did you mean X?`` and the valid values, for an error's hint."""
    choices = list(valid)
    close = difflib.get_close_matches(value, choices, n=1, cutoff=0.3)
    guess = f"did you mean {close[0]}? " if close else ""
    return f"{guess}known: {', '.join(choices)}"


def raw_from_environment(environ: Mapping[str, str]) -> Raw:
    """Read the options from ``VIOTEST_*``.

    Lists are separated by newlines, and by commas where no value can hold one.
    Variables that are no option are left alone: see :func:`unknown_variables`.
    """
    found: Raw = {}
    for option in OPTIONS:
        text = environ.get(option.variable)
        if not text:
            continue
        if option.kind is Kind.MANY:
            free = "\n" in text or option.name in _FREE_TEXT
            separator = "\n" if free else ","
            found[option.name] = [part for part in text.split(separator) if part]
        else:
            found.update(_one(option, text, option.variable))
    return found


def unknown_variables(environ: Mapping[str, str]) -> list[str]:
    """Return a line about each ``VIOTEST_*`` variable that means nothing.

    That is no error: the environment is not ours alone.
    """
    prefix = "VIOTEST_"
    known = [option.variable for option in OPTIONS] + list(_OTHER_VARIABLES)
    rests = [name.removeprefix(prefix) for name in known]
    found = []
    for name in sorted(environ):
        if name.startswith(prefix) and name not in known:
            rest = name.removeprefix(prefix)
            close = difflib.get_close_matches(rest, rests, n=1, cutoff=0.7)
            guess = f"; did you mean {prefix}{close[0]}?" if close else ""
            found.append(f"{name} is ignored, it is no option{guess}")
    return found


def raw_from_config(values: Mapping[str, object], where: str) -> Raw:
    """Read the options from a parsed configuration file.

    :param values: Option names to strings, numbers, booleans or lists of strings.
    :param where: The file, for errors.
    :raise UsageError: When a key is unknown or a value has the wrong type.
    """
    found: Raw = {}
    for name, value in values.items():
        option = _BY_NAME.get(name)
        if option is None:
            raise UsageError(
                f"{where}: unknown key {name!r}", hint=nearest(name, _BY_NAME)
            )
        many = option.kind is Kind.MANY
        parts = value if many and isinstance(value, list) else [value]
        flag = option.kind is Kind.FLAG
        for part in parts:
            # A bool is an int too, but no number of anything.
            if isinstance(part, bool) != flag or not isinstance(
                part, str | int | float
            ):
                raise UsageError(
                    f"{where}: {name} is {value!r}",
                    hint="wanted: true or false" if flag else "wanted: a string",
                )
            if not flag:
                found.setdefault(name, []).append(str(part))
            elif part:
                found[name] = ["1"]
    return found


def _one(option: Option, text: str, where: str) -> Raw:
    if option.kind is Kind.ONE:
        return {option.name: [text]}
    if text.lower() in ("1", "true", "yes", "on"):
        return {option.name: ["1"]}
    if text.lower() in ("0", "false", "no", "off"):
        return {}
    raise UsageError(f"{where}={text}: wanted 1 or 0")


def parse_settings(raw: Raw, *, checks: Sequence[str] = ()) -> Settings:
    """Turn raw option values into settings.

    :param raw: Merged raw values, as from the functions above.
    :param checks: The names of all checks, to refuse a pattern that matches none.
    :raise UsageError: When a value is wrong; names the nearest valid one.
    """
    values = _Values(raw)
    boot_fail_is = values.text("boot-fail-is", "")
    if boot_fail_is not in ("", "bad"):
        raise UsageError(f"--boot-fail-is {boot_fail_is}: the only value is bad")
    iommu = Iommu(values.choice("iommu", list(Iommu), Iommu.VIOTEST))
    scenario = Scenario(
        kernel=values.text("kernel", Scenario.kernel),
        modules=values.text("modules", "") or None,
        replace_modules=values.many("replace-module"),
        qemu=values.text("qemu", Scenario.qemu),
        machine=values.choice("machine", MACHINES, Scenario.machine),
        accel=Accel(values.choice("accel", list(Accel), Accel.AUTO)),
        iommu=iommu,
        modes=_modes(values.many("mode")) or Scenario.modes,
        checks=_checks(values.many("check"), checks),
        smp=values.integer("smp", Scenario.smp, 1, 255),
        mem=values.integer("mem", Scenario.mem, MIN_MEM, 1 << 20),
        append=values.many("append"),
        qemu_args=values.many("qemu-arg"),
        mutants=values.many("device-mutant"),
        endpoints=_endpoints(values.many("endpoint"), iommu) or Scenario.endpoints,
        poll_us=values.integer("poll", Scenario.poll_us, 0, 100),
        log_records=_log_records(values),
        timeouts=_timeouts(values.many("timeout")),
        boot_fail_is_bad=boot_fail_is == "bad",
        thorough="thorough" in raw,
        reboots=values.integer("reboots", Scenario.reboots, 0, 100),
    )
    out = values.text("out", "")
    return Settings(
        scenario,
        out=Path(out).absolute() if out else None,
        dry_run="dry-run" in raw,
        json="json" in raw,
        verbose="verbose" in raw,
        workers=values.integer("workers", Settings.workers, 1, 64),
    )


class _Values:
    def __init__(self, raw: Raw) -> None:
        self._raw = raw

    def many(self, name: str) -> tuple[str, ...]:
        return tuple(self._raw.get(name, ()))

    def text(self, name: str, default: str) -> str:
        values = self._raw.get(name)
        if values and not values[-1]:
            raise UsageError(f"--{name}: is empty")
        return values[-1] if values else default

    def choice(self, name: str, valid: Sequence[str], default: str) -> str:
        return check_choice(f"--{name}", self.text(name, default), valid)

    def integer(self, name: str, default: int, low: int, high: int) -> int:
        text = self.text(name, str(default))
        try:
            value = int(text)
        except ValueError as error:
            raise UsageError(f"--{name} {text}: not a whole number") from error
        if not low <= value <= high:
            raise UsageError(f"--{name} {value}: out of range", hint=f"{low} to {high}")
        return value


def check_choice(option: str, value: str, valid: Sequence[str]) -> str:
    """Return ``value`` if it is valid.

    :raise UsageError: When it is not; the hint names the nearest valid value.
    """
    if value not in valid:
        raise UsageError(f"{option} {value}: unknown", hint=nearest(value, valid))
    return value


def _log_records(values: _Values) -> int:
    low, high = MIN_LOG_RECORDS, MAX_LOG_RECORDS
    number = values.integer("log-records", Scenario.log_records, low, high)
    if number & (number - 1):
        nearest_power = 1 << number.bit_length()
        raise UsageError(
            f"--log-records {number}: not a power of two", hint=f"try {nearest_power}"
        )
    return number


def _modes(values: Iterable[str]) -> tuple[Mode, ...]:
    modes: list[Mode] = []
    for value in values:
        check_choice("--mode", value, (*Mode, ALL_MODES))
        modes += Mode if value == ALL_MODES else [Mode(value)]
    return tuple(dict.fromkeys(modes))


def _checks(patterns: tuple[str, ...], known: Sequence[str]) -> tuple[str, ...]:
    for pattern in patterns:
        if known and not any(names_check([pattern], name) for name in known):
            raise UsageError(
                f"--check {pattern}: matches no check", hint=nearest(pattern, known)
            )
    return patterns


def _endpoints(values: Iterable[str], iommu: Iommu) -> tuple[EndpointSpec, ...]:
    found: list[EndpointSpec] = []
    for value in values:
        if value == STANDARD:
            found += _standard(iommu)
        else:
            found.append(parse_endpoint(value))
    return tuple(found)


def _standard(iommu: Iommu) -> list[EndpointSpec]:
    if iommu is Iommu.VIOTEST:
        return list(STANDARD_ENDPOINTS)
    # QEMU makes one virtio-iommu, and that does not know the endpoints behind a
    # PCIe-to-PCI bridge by their own ids, by which Linux asks (docs/topology.md).
    return [
        spec
        for spec in STANDARD_ENDPOINTS
        if spec.place is not Place.BRIDGE and not spec.iommu
    ]


def parse_endpoint(value: str) -> EndpointSpec:
    """Read ``MODEL[@PLACE][,iommu=N]``.

    :raise UsageError: When it is not that; the hint names the nearest valid word.
    """
    what, *rest = value.split(",")
    model, at, place = what.partition("@")
    # The name of the set belongs in the hint, though it is no model.
    check_choice("--endpoint", model, [*EndpointModel, STANDARD])
    if model == STANDARD:
        raise UsageError(f"--endpoint {value}: {STANDARD} takes no place and no key")
    if at and place not in list(Place):
        raise UsageError(
            f"--endpoint {value}: unknown place {place!r}",
            hint=nearest(place, list(Place)),
        )
    iommu = 0
    for part in rest:
        key, _, number = part.partition("=")
        if key != "iommu":
            raise UsageError(f"--endpoint {value}: unknown key {key!r}", hint="iommu=N")
        if not (number.isascii() and number.isdecimal() and len(number) < 3):
            raise UsageError(f"--endpoint {value}: iommu={number} is no index")
        iommu = int(number)
    return EndpointSpec(EndpointModel(model), Place(place) if at else Place.ROOT, iommu)


def _timeouts(values: Iterable[str]) -> tuple[tuple[Phase, float], ...]:
    found: dict[Phase, float] = {}
    for value in values:
        name, _, seconds = value.partition("=")
        phase = Phase(check_choice("--timeout", name, list(Phase)))
        try:
            found[phase] = float(seconds)
        except ValueError as error:
            raise UsageError(f"--timeout {value}: wanted {phase}=SECONDS") from error
        if not 0 < found[phase] < 86400:
            raise UsageError(f"--timeout {value}: wanted 0 < SECONDS < 86400")
    return tuple(sorted(found.items()))


def scenario_config(scenario: Scenario) -> dict[str, object]:
    """Return the configuration that :func:`raw_from_config` reads as ``scenario``.

    What a run writes into its folder: ``viotest run --config`` repeats it.
    """
    config: dict[str, object] = {
        "kernel": scenario.kernel,
        "replace-module": list(scenario.replace_modules),
        "qemu": scenario.qemu,
        "machine": scenario.machine,
        "accel": str(scenario.accel),
        "iommu": str(scenario.iommu),
        "mode": [str(mode) for mode in scenario.modes],
        "check": list(scenario.checks),
        "smp": scenario.smp,
        "mem": scenario.mem,
        "append": list(scenario.append),
        "qemu-arg": list(scenario.qemu_args),
        "timeout": [f"{phase}={seconds}" for phase, seconds in scenario.timeouts],
        "device-mutant": list(scenario.mutants),
        "reboots": scenario.reboots,
        "thorough": scenario.thorough,
        "endpoint": [str(spec) for spec in scenario.endpoints],
        "poll": scenario.poll_us,
        "log-records": scenario.log_records,
    }
    if scenario.modules is not None:
        config["modules"] = scenario.modules
    if scenario.boot_fail_is_bad:
        config["boot-fail-is"] = "bad"
    return config


def names_check(patterns: Iterable[str], name: str) -> bool:
    """Return whether one of ``--check``'s patterns may mean a check, or a part of it.

    :param patterns: Shell patterns of names or ids, or an id itself: ``open[type1]``.
    :param name: The check's name.
    """
    return any(
        fnmatch.fnmatchcase(name, part)
        for pattern in patterns
        for part in (pattern, pattern.partition("[")[0])
    )
