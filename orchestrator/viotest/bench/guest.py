# SPDX-License-Identifier: GPL-2.0-or-later
"""VFIO maps and unmaps in guests: ours against QEMU's virtio-iommu.

All guests are up at once and measured in turns, so that whatever else the host does
meanwhile falls on all of them. Before anything counts, each endpoint proves by DMA
that its mappings work, and afterwards our device's counters must agree: Linux does
not look at the status of MAP and UNMAP, so a device that refused all of them would
only look fast.
"""

from __future__ import annotations

import contextlib
import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from viotest.bench.pin import pin
from viotest.bench.table import Aim, Bound, Section, compare
from viotest.campaign.run import TIMELINE, prepare
from viotest.campaign.session import Session
from viotest.errors import UntestableError
from viotest.provision import cache
from viotest.report.timeline import Timeline
from viotest.scenario.model import EndpointModel, EndpointSpec, Iommu
from viotest.suite.binding import bind
from viotest.suite.edu import prove_edu
from viotest.suite.judgement import CheckFailed
from viotest.suite.passthrough import PAGE, Passthrough
from viotest.suite.steps import dma_copy
from viotest.trace.form import write_trace
from viotest.trace.record import Recording

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from viotest.provision.progress import Progress
    from viotest.scenario.model import EndpointFunction, Scenario

#: What is measured of each.
OPERATIONS = ("map", "unmap")
#: Above every reserved range, and not where the proofs map.
_IOVA = 0x2_0000_0000
#: Turns that do not count: translated code, warm caches, the polling's habits.
_WARM_UP = 200
#: For one turn under emulation on a busy host.
_TURN_TIMEOUT = 120.0

_PINNED = "our virtio-iommu and its guest's CPUs are on different processors"
_NOT_PINNED = "too few processors to keep our virtio-iommu off its guest's CPUs"

_AIM_QEMU = Aim(Bound.AT_MOST, 1.0)
_AIM_SAME_ENDPOINT = Aim(Bound.AT_MOST, 0.2)


@dataclass(frozen=True)
class Options:
    """How to measure."""

    scenario: Scenario
    rounds: int = 10
    count: int = 2000
    #: Another polling window for one more guest of ours, microseconds; 0: none.
    also_poll_us: int = 0


@dataclass
class Subject:
    """One endpoint in one guest, and what was measured of it."""

    name: str
    session: Session
    endpoint: EndpointFunction
    prove: Callable[[Passthrough], None]
    #: Median ns of each round, by operation.
    samples: dict[str, list[float]] = field(
        default_factory=lambda: {name: [] for name in OPERATIONS}
    )

    @contextlib.contextmanager
    def opened(self) -> Iterator[Passthrough]:
        """The endpoint, open in the guest."""
        mode = self.session.scenario.modes[0]
        pt = Passthrough(self.session.probe(), self.endpoint, mode)
        pt.open()
        yield pt
        pt.close()

    def set_up(self) -> None:
        """Bind the endpoint, and prove that what is mapped is what DMA reaches.

        :raise UntestableError: When it is not so.
        """
        bound = bind(self.session.probe(), self.endpoint, traced=False)
        if bound.error is not None:
            raise UntestableError(f"{self.name}: {bound.error}")
        try:
            with self.opened() as pt:
                self.prove(pt)
        except CheckFailed as failure:
            raise UntestableError(
                f"{self.name}: mappings do not work, their times mean nothing",
                hint=str(failure),
            ) from failure

    def take_turn(self, count: int) -> None:
        """Measure ``count`` maps and unmaps of one page."""
        with self.opened() as pt:
            self._call(pt, _WARM_UP)
            seen = self._call(pt, count)
        for name in OPERATIONS:
            self.samples[name].append(_median(seen, f"{name}_ns"))

    @staticmethod
    def _call(pt: Passthrough, count: int) -> Mapping[str, object]:
        return pt.probe.call(
            "bench-map", iova=_IOVA, size=PAGE, count=count, timeout=_TURN_TIMEOUT
        )


def _median(seen: Mapping[str, object], key: str) -> float:
    timing = seen.get(key)
    if isinstance(timing, dict) and isinstance(value := timing.get("median"), int):
        return float(value)
    raise UntestableError(f"bench-map: {key} is {timing!r}")


class Ledger:
    """Our device's counters over the measurement, and what they must agree with.

    :param name: Whose they are, for a person.
    :param before: The counters before.
    """

    def __init__(self, name: str, before: Mapping[str, int]) -> None:
        self._name = name
        self._before = dict(before)

    def settle(self, after: Mapping[str, int], expected: int) -> str:
        """Check the counters; return what they tell about notifications.

        :param after: The counters now.
        :param expected: How many maps, and how many unmaps, the guest did at least.
        :raise UntestableError: When the device did not do them, or refused some.
        """
        grown = {key: after[key] - self._before[key] for key in self._before}
        for operation in OPERATIONS:
            if grown[operation] < expected:
                raise UntestableError(
                    f"{self._name}: the guest did {expected} {operation}s, its"
                    f" virtio-iommu saw {grown[operation]}"
                )
        if grown["request-errors"]:
            raise UntestableError(
                f"{self._name}: {grown['request-errors']} requests were refused, which"
                " Linux does not notice; their times mean nothing"
            )
        share = grown["kicks"] / (grown["map"] + grown["unmap"])
        return f"{self._name}: {share:.0%} of the requests needed a notification"


def measure(options: Options, progress: Progress, trace: Path | None = None) -> Section:
    """Boot the guests and measure them in turns.

    :param trace: Where to write what the guest on ours asked of it, up to the end of
        the first round.
    :raise UntestableError: When a guest or its device does not do what is measured.
    :raise GuestLostError: When a guest ends meanwhile.
    :raise ProbeError: When the guest's kernel refuses a step.
    """
    with contextlib.ExitStack() as stack:
        subjects = _subjects(options, progress, stack)
        ours = [one for one in subjects if one.session.scenario.iommu is Iommu.VIOTEST]
        with progress.step("binding, and proving the mappings by DMA"):
            for subject in subjects:
                subject.set_up()
        pinned = [pin(one.session) for one in subjects]
        ledgers = [
            Ledger(one.name, one.session.device_log().counters()) for one in ours
        ]
        with progress.step(f"measuring {options.rounds} rounds") as step:
            for i in range(options.rounds):
                for subject in subjects:
                    subject.take_turn(options.count)
                if trace and i == 0:
                    _record(ours[0], trace)
                step.update(i + 1, options.rounds)
        expected = options.rounds * (options.count + _WARM_UP)
        notes = [
            ledger.settle(one.session.device_log().counters(), expected)
            for ledger, one in zip(ledgers, ours, strict=True)
        ]
        notes += [_device_share(one) for one in ours]
        notes.append(_PINNED if all(pinned) else _NOT_PINNED)
    return section(
        {one.name: one.samples for one in subjects}, options, notes=tuple(notes)
    )


OURS = "ours"
OURS_ALSO = "ours, polling"
QEMU_EDU = "virtio-iommu-pci with edu"
QEMU_SAME = "virtio-iommu-pci with our endpoint"


def _subjects(
    options: Options, progress: Progress, stack: contextlib.ExitStack
) -> list[Subject]:
    engine, edu = EndpointSpec(), EndpointSpec(EndpointModel.QEMU_EDU)
    scenario = dataclasses.replace(options.scenario, endpoints=(engine,))
    ours = dataclasses.replace(scenario, iommu=Iommu.VIOTEST)
    theirs = dataclasses.replace(scenario, iommu=Iommu.QEMU, endpoints=(engine, edu))
    sessions = {OURS: _start(ours, progress, stack)}
    if options.also_poll_us:
        also = dataclasses.replace(ours, poll_us=options.also_poll_us)
        sessions[OURS_ALSO] = _start(also, progress, stack)
    sessions[QEMU_EDU] = sessions[QEMU_SAME] = _start(theirs, progress, stack)
    subjects = []
    for name, session in sessions.items():
        is_edu = name == QEMU_EDU
        subjects.append(
            Subject(
                name,
                session,
                session.topology.endpoints[1 if is_edu else 0],
                prove_edu if is_edu else _prove_ours,
            )
        )
    return subjects


def _start(
    scenario: Scenario, progress: Progress, stack: contextlib.ExitStack
) -> Session:
    plan, _ = prepare(scenario, progress)
    folder = stack.enter_context(cache.scratch())
    return stack.enter_context(Session(plan, folder, Timeline(folder / TIMELINE)))


def _prove_ours(pt: Passthrough) -> None:
    dma_copy(pt, PAGE, 0)


# After one round: later on, the log may have lost the beginning.
def _record(subject: Subject, trace: Path) -> None:
    recording = Recording(subject.session.folder)
    try:
        write_trace(trace, recording.header, recording.items())
    except OSError as error:
        raise UntestableError(f"{trace}: {error.strerror}") from error


# What the requests took between the ring and the ring; the log's tail is enough.
def _device_share(subject: Subject) -> str:
    durations = sorted(
        record.duration_ns
        for record in subject.session.device_log().records()
        if record.kind in OPERATIONS
    )
    median = durations[len(durations) // 2]
    return f"{subject.name}: the device itself takes {median} ns of each (median)"


def section(
    samples: Mapping[str, Mapping[str, Sequence[float]]],
    options: Options,
    *,
    notes: tuple[str, ...] = (),
) -> Section:
    """Return the section a of what was measured.

    :param samples: Name of a subject, operation, a sample for each round.
    """
    ours = {OURS: options.scenario.poll_us}
    if OURS_ALSO in samples:
        ours[OURS_ALSO] = options.also_poll_us
    rows = [
        compare(
            f"{operation}, window {window} us, against {theirs}",
            samples[name][operation],
            samples[theirs][operation],
            aim,
        )
        for name, window in ours.items()
        for theirs, aim in ((QEMU_EDU, _AIM_QEMU), (QEMU_SAME, _AIM_SAME_ENDPOINT))
        for operation in OPERATIONS
    ]
    command = f"viotest bench guest --rounds {options.rounds} --count {options.count}"
    command += f" --also-poll {options.also_poll_us}"
    smp = options.scenario.smp
    return Section(
        key="a",
        title=f"VFIO {options.scenario.modes[0]} in the guest, one page of 4 KiB,"
        f" smp={smp}: medians of {options.count}, {options.rounds} rounds",
        unit="ns",
        theirs="theirs",
        command=command,
        rows=tuple(rows),
        notes=notes,
    )
