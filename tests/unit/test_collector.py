# SPDX-License-Identifier: GPL-2.0-or-later
"""Checks become results: a suite of our own, and a guest that ends as it is told."""

from __future__ import annotations

import contextlib
import uuid
from typing import TYPE_CHECKING, cast

import pytest

from viotest.campaign.checks import put_checks
from viotest.errors import UntestableError
from viotest.machine.watch import GuestLostError, Loss, LossKind
from viotest.report.results import Category, Cause, CheckResult, Outcome
from viotest.report.timeline import Timeline
from viotest.scenario.model import EndpointSpec, Mode, Phase, Scenario
from viotest.scenario.topology import build_topology

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from viotest.campaign.guests import Guests
    from viotest.guest.kernel_log import Splat
    from viotest.report.device_log import DeviceRecord
    from viotest.scenario.model import Topology

HEADER = """
import errno
import pytest
from viotest.errors import UntestableError
from viotest.guest.probe import ProbeError
from viotest.machine.watch import GuestLostError, Loss, LossKind
from viotest.suite.judgement import CheckFailed
from viotest.suite.conftest import pytest_generate_tests

def lost(kind):
    return GuestLostError(Loss(kind, f"it was {kind}", 1), ["console"])
"""


class FakeLog:
    """A device that was asked nothing."""

    def head(self) -> int:
        return 0

    def records(self, after: int = 0) -> Iterator[DeviceRecord]:
        return iter(())


class FakeSession:
    """What the collector needs of a session; a guest that is up."""

    def __init__(self, scenario: Scenario, timeline: Timeline) -> None:
        self.scenario = scenario
        self.timeline = timeline
        self.broken: Cause | None = None
        self.booted = True
        self.phases: list[Phase] = []
        self.marks: dict[str, int] = {}
        #: Raised by the look after each check.
        self.dead: GuestLostError | None = None
        #: What the kernel says next that it should not.
        self.splats: list[Splat] = []
        self.kernel_lines: tuple[str, ...] = ()
        self.log = FakeLog()

    def device_log(self) -> FakeLog:
        return self.log

    @property
    def topology(self) -> Topology:
        return build_topology(self.scenario)

    def probe(self) -> None:
        """Wait for the guest, as a real one would have to."""

    def mark(self, name: str) -> None:
        self.marks[name] = self.timeline.mark(name)

    def new_splats(self) -> list[Splat]:
        found, self.splats = self.splats, []
        return found

    @contextlib.contextmanager
    def phase(self, phase: Phase, *, scale: float = 1.0) -> Iterator[None]:
        self.phases.append(phase)
        yield

    def check_alive(self, *, timeout: float = 0.0) -> None:
        if self.dead is not None:
            raise self.dead

    def console_tail(self) -> Sequence[str]:
        return ("console",)


class FakeGuests:
    """What the collector needs of the guests of a run."""

    def __init__(self, scenario: Scenario, timeline: Timeline) -> None:
        self.scenario = scenario
        self.timeline = timeline
        self.session: FakeSession | None = None
        self.failures: list[Cause] = []
        self.folder = ""
        self.used: list[str] = []
        #: Every guest so far.
        self.all: list[FakeSession] = []
        #: Why there is no other one.
        self.refusal: UntestableError | None = None

    #: What repeats the run.
    command = "viotest run --config F"

    def start(self) -> None:
        if self.refusal is not None:
            raise self.refusal
        self.session = FakeSession(self.scenario, self.timeline)
        self.all.append(self.session)
        self.folder = f"guest-{len(self.all)}"

    renew = start

    def use(self, mode: str) -> None:
        self.used.append(mode)


class Bench:
    """Puts suites to fake sessions."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "pytest.log"
        self.shown: list[CheckResult] = []
        self.not_run: Sequence[str] = ()
        self.make(Scenario(reboots=0))

    def make(self, scenario: Scenario) -> None:
        timeline = Timeline(self.folder / "timeline.jsonl")
        self.guests = FakeGuests(scenario, timeline)
        self.guests.start()

    @property
    def session(self) -> FakeSession:
        """The first guest."""
        return self.guests.all[0]

    def put(self, text: str) -> Sequence[CheckResult]:
        suite = self.folder / "suite"
        suite.mkdir()
        # pytest imports a module of one name once in a process.
        (suite / f"test_{uuid.uuid4().hex}.py").write_text(HEADER + text)
        self.not_run = put_checks(
            cast("Guests", self.guests),
            show=self.shown.append,
            log=self.log,
            suite=suite,
        )
        return self.shown

    def ended(self) -> list[object]:
        events = self.guests.timeline.events()
        return [
            event.data["id"]
            for event in events
            if (event.source, event.event) == ("check", "end")
        ]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def outcomes(results: Sequence[CheckResult]) -> list[tuple[str, Outcome]]:
    return [(result.id, result.outcome) for result in results]


def test_checks_come_in_the_order_of_the_catalog(bench: Bench) -> None:
    names = ["test_unmap", "test_bind", "test_group"]
    results = bench.put("".join(f"def {name}():\n    pass\n" for name in names))
    passed = Outcome.PASS
    assert outcomes(results) == [("group", passed), ("bind", passed), ("unmap", passed)]
    assert [result.required for result in results] == [False, True, True]
    assert bench.ended() == ["group", "bind", "unmap"]
    assert bench.session.phases == [Phase.CHECK] * 3


SELFTESTS = """
from viotest.report.results import Outcome, Subtest
from viotest.suite.context import SUBTESTS

@pytest.mark.parametrize("program", ["a", "b"])
def test_selftests(request, program):
    request.node.stash[SUBTESTS] = (Subtest(f"{program}.x", Outcome.FAIL, "why"),)
    if program == "b":
        raise CheckFailed("1 of 1 tests failed")

def test_bind():
    pass
"""


def test_check_on_request_comes_when_it_is_named(bench: Bench) -> None:
    bench.make(Scenario(endpoints=(EndpointSpec(), EndpointSpec())))
    assert [result.id for result in bench.put(SELFTESTS)] == ["bind"]


def test_subtests_belong_to_their_own_check(bench: Bench) -> None:
    bench.make(Scenario(checks=("selftests", "bind")))
    results = bench.put(SELFTESTS)
    assert [(r.id, r.outcome, [t.name for t in r.subtests]) for r in results] == [
        ("bind", Outcome.PASS, []),
        ("selftests[a]", Outcome.PASS, ["a.x"]),
        ("selftests[b]", Outcome.FAIL, ["b.x"]),
    ]


def test_modes_come_one_after_the_other(bench: Bench) -> None:
    bench.make(Scenario(modes=(Mode.TYPE1V2, Mode.TYPE1)))
    results = bench.put(
        "def test_open(mode): pass\ndef test_flr(mode): pass\ndef test_bind(): pass\n"
    )
    assert [(result.id, result.mode) for result in results] == [
        ("bind", ""),
        ("open[type1v2]", "type1v2"),
        ("flr[type1v2]", "type1v2"),
        ("open[type1]", "type1"),
        ("flr[type1]", "type1"),
    ]


def test_check_comes_in_its_modes_only(bench: Bench) -> None:
    bench.make(Scenario(modes=(Mode.TYPE1, Mode.CDEV_IOAS)))
    text = "def test_reattach(mode): pass\ndef test_open(mode): pass\n"
    ids = ["open[type1]", "open[cdev-ioas]", "reattach[cdev-ioas]"]
    assert [result.id for result in bench.put(text)] == ids


def test_check_without_a_mode_is_not_there(bench: Bench) -> None:
    text = "def test_reattach(mode): pass\ndef test_open(mode): pass\n"
    assert [result.id for result in bench.put(text)] == ["open[type1v2]"]


@pytest.mark.parametrize(
    ("patterns", "ids"),
    [
        (("dma-*",), ["dma-read[type1v2]", "dma-copy[type1v2]"]),
        (("bind", "dma-read"), ["bind", "dma-read[type1v2]"]),
        (("*copy*type1v2*",), ["dma-copy[type1v2]"]),
        (("dma-copy[type1v2]",), ["dma-copy[type1v2]"]),
    ],
)
def test_patterns_choose(
    bench: Bench, patterns: tuple[str, ...], ids: list[str]
) -> None:
    bench.make(Scenario(checks=patterns))
    results = bench.put(
        "def test_dma_copy(mode): pass\ndef test_dma_read(mode): pass\n"
        "def test_bind(): pass\n"
    )
    assert [result.id for result in results] == ids


@pytest.mark.parametrize(
    ("scenario", "ids"),
    [
        (Scenario(), ["bind"]),
        (Scenario(thorough=True), ["bind", "map-64k", "rebind-often"]),
        (
            Scenario(endpoints=(EndpointSpec(), EndpointSpec())),
            ["bind", "rebind-often"],
        ),
        (Scenario(checks=("map-*",)), ["map-64k"]),
    ],
)
def test_long_checks_are_asked_for(
    bench: Bench, scenario: Scenario, ids: list[str]
) -> None:
    bench.make(scenario)
    text = "def test_map_64k(): pass\ndef test_bind(): pass\n"
    results = bench.put(text + "def test_rebind_often(): pass\n")
    assert [result.id for result in results] == ids


def test_failure_comes_with_evidence_and_a_command(bench: Bench) -> None:
    text = (
        "def test_flr(mode):\n    raise CheckFailed('wrong', seen='2')\n"
        "def test_bind():\n    raise CheckFailed('no', expected='1', step='look')\n"
    )
    bind, flr = bench.put(text)
    assert bind.details.splitlines() == [
        "expected 1",
        "device   nothing was asked of it, and no endpoint did anything",
        "next     look",
    ]
    assert flr.details.splitlines() == [
        "expected a function level reset stops and clears the endpoint",
        "seen     2",
        "device   nothing was asked of it, and no endpoint did anything",
        "next     viotest run --config F --check flr --mode type1v2",
    ]


RAISES: list[tuple[str, Outcome, str, bool]] = [
    ("CheckFailed('wrong', expected='1', seen='2')", Outcome.FAIL, "wrong", False),
    (
        "ProbeError('bind', 'bind', errno.EINVAL, 'text')",
        Outcome.FAIL,
        "bind failed with EINVAL: cache coherency not advertised",
        False,
    ),
    ("pytest.skip.Exception('no kprobes')", Outcome.SKIP, "no kprobes", False),
    (
        "ZeroDivisionError('oops\\nmore')",
        Outcome.ERROR,
        "viotest itself: ZeroDivisionError: oops",
        False,
    ),
    ("UntestableError('disk full')", Outcome.ERROR, "disk full", True),
    ("lost(LossKind.GUEST_PANIC)", Outcome.FAIL, "it was guest-panic", True),
    ("lost(LossKind.DEADLINE)", Outcome.FAIL, "it was deadline", True),
    ("lost(LossKind.QEMU_EXITED)", Outcome.ERROR, "it was qemu-exited", True),
    ("lost(LossKind.DEVICE_STALLED)", Outcome.ERROR, "it was device-stalled", True),
]


@pytest.mark.parametrize("where", ["body", "fixture"])
@pytest.mark.parametrize(("error", "outcome", "reason", "broken"), RAISES)
def test_error_has_an_outcome(
    bench: Bench, where: str, error: str, outcome: Outcome, reason: str, broken: bool
) -> None:
    raising = f"    raise {error}\n"
    results = bench.put(
        "@pytest.fixture\ndef thing():\n"
        + (raising if where == "fixture" else "    pass\n")
        + "def test_bind(thing):\n"
        + (raising if where == "body" else "    pass\n")
        + "def test_flr():\n    pass\n"
    )
    assert (results[0].outcome, results[0].reason) == (outcome, reason)
    assert (bench.session.broken is not None) is broken
    # Nobody is asked any more once the guest is lost, and there is to be no other.
    assert [result.id for result in results[1:]] == ([] if broken else ["flr"])
    assert bench.not_run == (["flr"] if broken else [])


def test_guest_that_died_quietly_is_noticed_after_the_check(bench: Bench) -> None:
    loss = Loss(LossKind.GUEST_PANIC, "it panicked", 1)
    bench.session.dead = GuestLostError(loss, ["console"])
    results = bench.put("def test_bind(): pass\ndef test_flr(): pass\n")
    assert outcomes(results) == [("bind", Outcome.FAIL)]
    assert bench.session.broken == Cause(Category.FAIL, "it panicked", ("console",))


def test_failed_boot_is_no_result_of_a_check(bench: Bench) -> None:
    bench.session.booted = False
    results = bench.put("def test_bind():\n    raise lost(LossKind.GUEST_PANIC)\n")
    assert not results
    assert bench.session.broken is not None
    assert bench.session.broken.category is Category.BOOT_FAIL


def test_teardown_that_fails_is_a_failure_of_its_own(bench: Bench) -> None:
    results = bench.put(
        "@pytest.fixture\ndef thing():\n    yield\n    raise CheckFailed('left over')\n"
        "def test_bind(thing): pass\n"
    )
    assert [result.outcome for result in results] == [Outcome.PASS, Outcome.FAIL]


def test_ctrl_c_ends_the_checks(bench: Bench) -> None:
    with pytest.raises(KeyboardInterrupt):
        bench.put("def test_bind():\n    raise KeyboardInterrupt\n")


def test_suite_that_cannot_be_read_is_untestable(bench: Bench) -> None:
    with pytest.raises(UntestableError, match=r"see .*pytest\.log"):
        bench.put("this is no Python\n")


def test_output_of_pytest_goes_to_its_log(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    bench.put("def test_bind():\n    print('from a check')\n")
    assert "from a check" in bench.log.read_text()
    assert capsys.readouterr().out == ""


def test_configuration_of_the_user_is_left_alone(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    (bench.folder / "pytest.ini").write_text("[pytest]\naddopts = --nonsense\n")
    monkeypatch.setenv("PYTEST_ADDOPTS", "--more-nonsense")
    monkeypatch.chdir(bench.folder)
    assert outcomes(bench.put("def test_bind(): pass\n")) == [("bind", Outcome.PASS)]


def test_failure_of_a_check_whose_device_died_is_no_failure(bench: Bench) -> None:
    bench.session.dead = GuestLostError(Loss(LossKind.DEVICE_EXITED, "dead", 1), [])
    (result,) = bench.put("def test_bar():\n    raise CheckFailed('all ones')\n")
    assert (result.outcome, result.reason) == (Outcome.ERROR, "dead")


LOST = "    raise lost(LossKind.GUEST_PANIC)\n"
#: A fixture that lives as long as the guest, and tells which one it is of.
OF_THE_GUEST = """
@pytest.fixture(scope="session")
def guest(request):
    from viotest.suite.context import CONTEXT
    session = request.config.stash[CONTEXT]
    yield session
    print("closed", id(session))

def same(guest, request):
    from viotest.suite.context import CONTEXT
    return guest is request.config.stash[CONTEXT]
"""


def test_lost_guest_is_replaced_for_what_is_left(bench: Bench) -> None:
    bench.make(Scenario(reboots=1))
    results = bench.put(
        OF_THE_GUEST
        + "def test_bind(guest):\n"
        + LOST
        + "def test_open(guest, request):\n    assert same(guest, request)\n"
        "def test_flr(guest, request):\n    assert same(guest, request)\n"
    )
    assert outcomes(results) == [
        ("bind", Outcome.FAIL),
        ("open", Outcome.PASS),
        ("flr", Outcome.PASS),
    ]
    assert [result.guest for result in results] == ["guest-1", "guest-2", "guest-2"]
    assert not bench.not_run
    # The fixtures of the lost guest were ended before the next one came.
    assert bench.log.read_text().count("closed") == 2


def test_lost_guests_are_replaced_so_often_in_each_mode(bench: Bench) -> None:
    bench.make(Scenario(modes=(Mode.TYPE1, Mode.TYPE1V2), reboots=1))
    results = bench.put(
        "def test_open(mode):\n"
        + LOST
        + "def test_bar(mode):\n"
        + LOST
        # Nobody is left for it.
        + "def test_flr(mode): pass\n"
    )
    assert [result.id for result in results] == [
        "open[type1]",
        "bar[type1]",
        "open[type1v2]",
    ]
    assert bench.not_run == ["flr[type1]", "bar[type1v2]", "flr[type1v2]"]
    assert len(bench.guests.all) == 3


def test_guest_that_cannot_be_replaced_ends_the_checks(bench: Bench) -> None:
    bench.make(Scenario(reboots=5))
    bench.guests.refusal = UntestableError("no memory")
    results = bench.put("def test_bind():\n" + LOST + "def test_flr(): pass\n")
    assert outcomes(results) == [("bind", Outcome.FAIL)]
    assert bench.guests.failures == [Cause(Category.INFRA, "no memory")]
    assert bench.not_run == ["flr"]


SAYS = """
def say(request):
    from viotest.guest.kernel_log import Splat
    from viotest.suite.context import CONTEXT
    lines = ("WARNING: CPU: 0 PID: 1 at drivers/iommu/x.c:1", "Call Trace:")
    request.config.stash[CONTEXT].splats = [Splat(lines[0], lines)]
"""


def test_complaint_of_the_kernel_fails_the_check_and_taints_the_guest(
    bench: Bench,
) -> None:
    bench.make(Scenario(reboots=1))
    results = bench.put(
        SAYS + "def test_bind(request):\n    say(request)\ndef test_flr(): pass\n"
    )
    assert outcomes(results) == [("bind", Outcome.FAIL), ("flr", Outcome.PASS)]
    said = "WARNING: CPU: 0 PID: 1 at drivers/iommu/x.c:1"
    assert results[0].reason == f"the guest's kernel said: {said}"
    assert "dmesg    Call Trace:" in results[0].details
    assert [result.guest for result in results] == ["guest-1", "guest-2"]


def test_complaint_beside_a_failure_is_quoted_with_it(bench: Bench) -> None:
    (result,) = bench.put(
        SAYS
        + "def test_bind(request):\n    say(request)\n"
        + "    raise CheckFailed('wrong', expected='1', seen='2')\n"
    )
    assert result.reason == "wrong"
    assert result.details.startswith("expected 1")
    assert "dmesg    WARNING: CPU: 0" in result.details


def test_guest_that_only_complained_serves_on_without_another(bench: Bench) -> None:
    results = bench.put(
        SAYS + "def test_bind(request):\n    say(request)\ndef test_flr(): pass\n"
    )
    assert outcomes(results) == [("bind", Outcome.FAIL), ("flr", Outcome.PASS)]
    assert len(bench.guests.all) == 1
