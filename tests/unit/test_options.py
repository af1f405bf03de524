# SPDX-License-Identifier: GPL-2.0-or-later
"""Options from three places become settings, or one line that says why not."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

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
from viotest.scenario.options import (
    OPTIONS,
    STANDARD_ENDPOINTS,
    Kind,
    Raw,
    nearest,
    parse_settings,
    raw_from_config,
    raw_from_environment,
    scenario_config,
    unknown_variables,
)
from viotest.suite.catalog import NAMES

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def parse(**raw: list[str]) -> Scenario:
    values = {name.replace("_", "-"): value for name, value in raw.items()}
    return parse_settings(values, checks=NAMES).scenario


def test_no_options_are_the_defaults() -> None:
    assert parse_settings({}).scenario == Scenario()


def test_last_value_of_one_wins_and_many_add_up() -> None:
    scenario = parse(smp=["1", "4"], append=["a", "b"], mode=["type1", "type1v2"])
    assert scenario.smp == 4
    assert scenario.append == ("a", "b")
    assert scenario.modes == (Mode.TYPE1, Mode.TYPE1V2)


def test_mode_all_is_every_mode_and_whatever_is_offered() -> None:
    scenario = parse(mode=["all"])
    assert scenario.modes == tuple(Mode)
    assert scenario.any_mode
    assert parse(mode=["cdev-ioas", "all"]).any_mode
    assert not parse(mode=["cdev-ioas"]).any_mode
    assert not Scenario().any_mode


def test_mode_given_twice_is_one() -> None:
    assert parse(mode=["type1", "type1"]).modes == (Mode.TYPE1,)


def test_out_is_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert parse_settings({"out": ["a/b"]}).out == tmp_path / "a/b"


def test_flags() -> None:
    settings = parse_settings({"json": ["1"], "dry-run": ["1"]})
    assert (settings.json, settings.dry_run, settings.verbose) == (True, True, False)


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ({"machine": ["q53"]}, "--machine q53: unknown .*did you mean q35"),
        ({"accel": ["kvn"]}, "--accel kvn: unknown .*did you mean kvm"),
        ({"iommu": ["intel"]}, "--iommu intel: unknown .*known: viotest, qemu"),
        ({"mode": ["type1", "cdev"]}, "--mode cdev: unknown .*known: type1, type1v2"),
        ({"check": ["dma-*", "fault*x"]}, r"--check fault\*x: matches no check"),
        ({"smp": ["0"]}, "--smp 0: out of range .1 to 255"),
        ({"smp": ["1.5"]}, "--smp 1.5: not a whole number"),
        ({"mem": ["100"]}, "--mem 100: out of range"),
        ({"timeout": ["bot=1"]}, "--timeout bot: unknown .*did you mean boot"),
        ({"timeout": ["boot=x"]}, "--timeout boot=x: wanted boot=SECONDS"),
        ({"timeout": ["boot=0"]}, "--timeout boot=0: wanted 0 < SECONDS"),
        ({"timeout": ["boot=inf"]}, "--timeout boot=inf: wanted 0 < SECONDS"),
        ({"timeout": ["boot=nan"]}, "--timeout boot=nan: wanted 0 < SECONDS"),
        ({"boot-fail-is": ["good"]}, "--boot-fail-is good: the only value is bad"),
        ({"kernel": [""]}, "--kernel: is empty"),
        ({"out": [""]}, "--out: is empty"),
    ],
)
def test_wrong_value_is_named(raw: Raw, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        parse_settings(raw, checks=NAMES)


@pytest.mark.parametrize("text", ["²", "1_000_000_000", "0x200", " ", "9" * 5000])
def test_odd_number_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError):
        parse(mem=[text])


def test_timeouts_are_sorted_and_the_last_wins() -> None:
    scenario = parse(timeout=["check=5", "boot=3", "check=7"])
    assert scenario.timeouts == ((Phase.BOOT, 3.0), (Phase.CHECK, 7.0))
    assert scenario.timeout(Phase.CHECK, Accel.KVM) == 7.0
    assert scenario.timeout(Phase.LAUNCH, Accel.TCG) == 20.0
    assert scenario.timeout(Phase.LAUNCH, Accel.KVM) == 5.0


def test_environment_gives_every_kind() -> None:
    environ = {
        "VIOTEST_KERNEL": "debian:trixie",
        "VIOTEST_MODE": "type1,type1v2",
        "VIOTEST_APPEND": "a=1,2\nb",
        "VIOTEST_JSON": "yes",
        "VIOTEST_DRY_RUN": "0",
        "VIOTEST_SMP": "",
        "VIOTEST_CACHE": "/somewhere",
        "KERNEL": "no",
    }
    assert raw_from_environment(environ) == {
        "kernel": ["debian:trixie"],
        "mode": ["type1", "type1v2"],
        "append": ["a=1,2", "b"],
        "json": ["1"],
    }


def test_environment_variable_that_means_nothing_is_told() -> None:
    environ = {
        "VIOTEST_KERNAL": "x",
        "VIOTEST_ELSE": "x",
        "VIOTEST_CI": "1",
        "VIOTEST_CACHE": "/x",
        "VIOTEST_CONFIG": "x",
        "VIOTEST_DEBUG": "1",
        "VIOTESTING": "x",
    } | {option.variable: "x" for option in OPTIONS}
    assert unknown_variables(environ) == [
        "VIOTEST_ELSE is ignored, it is no option",
        "VIOTEST_KERNAL is ignored, it is no option; did you mean VIOTEST_KERNEL?",
    ]


def test_environment_flag_must_be_one_or_zero() -> None:
    with pytest.raises(UsageError, match="VIOTEST_JSON=perhaps: wanted 1 or 0"):
        raw_from_environment({"VIOTEST_JSON": "perhaps"})


def test_config_takes_strings_numbers_lists_and_flags() -> None:
    values = {"smp": 2, "mode": ["type1"], "check": "bind", "json": True}
    assert raw_from_config(values, "f") == {
        "smp": ["2"],
        "mode": ["type1"],
        "check": ["bind"],
        "json": ["1"],
    }
    assert raw_from_config({"json": False, "mode": []}, "f") == {}


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"kernle": "x"}, "f: unknown key 'kernle' .did you mean kernel"),
        ({"smp": [1]}, r"f: smp is \[1\]"),
        ({"smp": True}, "f: smp is True"),
        ({"smp": None}, "f: smp is None"),
        ({"mode": ["type1", ["x"]]}, "f: mode is"),
        ({"mode": {"a": 1}}, "f: mode is"),
        ({"json": "yes"}, "f: json is 'yes' .wanted: true or false"),
        ({"json": 1}, "f: json is 1"),
    ],
)
def test_wrong_config_is_named(values: Mapping[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        raw_from_config(values, "f")


FULL = Scenario(
    kernel="/boot/vmlinuz",
    modules="/lib/modules/6.12",
    qemu="/usr/bin/qemu",
    accel=Accel.TCG,
    iommu=Iommu.QEMU,
    modes=(Mode.TYPE1V2, Mode.TYPE1),
    checks=("dma-*", "bind"),
    smp=3,
    mem=1024,
    append=("quiet", "a=b c"),
    qemu_args=("-d", "int"),
    mutants=("ignore-unmap",),
    endpoints=(
        EndpointSpec(EndpointModel.QEMU_IGB, Place.BRIDGE),
        EndpointSpec(iommu=1),
        EndpointSpec(place=Place.PORT, iommu=1),
        EndpointSpec(),
    ),
    timeouts=((Phase.BOOT, 2.5),),
    boot_fail_is_bad=True,
)


@pytest.mark.parametrize("scenario", [Scenario(), FULL])
def test_scenario_file_reads_back_as_itself(scenario: Scenario) -> None:
    text = json.dumps(scenario_config(scenario))
    raw = raw_from_config(json.loads(text), "scenario.json")
    assert parse_settings(raw, checks=NAMES).scenario == scenario
    assert hash(scenario) == hash(scenario)


@pytest.mark.parametrize(
    ("value", "spec"),
    [
        ("dma-engine", EndpointSpec()),
        ("dma-engine@root", EndpointSpec()),
        ("ioat@port", EndpointSpec(EndpointModel.IOAT, Place.PORT)),
        ("nvme,iommu=2", EndpointSpec(EndpointModel.NVME, iommu=2)),
        (
            "dma-engine@bridge,iommu=1",
            EndpointSpec(place=Place.BRIDGE, iommu=1),
        ),
    ],
)
def test_endpoint_is_read(value: str, spec: EndpointSpec) -> None:
    settings = parse_settings({"endpoint": [value]})
    assert settings.scenario.endpoints == (spec,)
    assert parse_settings({"endpoint": [str(spec)]}) == settings


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("dma-engin", "did you mean dma-engine"),
        ("std", "did you mean standard"),
        ("standard@port", "takes no place"),
        ("ioat@prt", "did you mean port"),
        ("ioat@ foo", "--endpoint ioat@ foo: unknown place ' foo'"),
        ("ioat@", "known: root, port, hotplug, bridge"),
        ("ioat,iomu=1", "unknown key 'iomu'"),
        ("ioat,iommu=x", "iommu=x is no index"),
        ("ioat,iommu=-1", "iommu=-1 is no index"),
        ("ioat,iommu=", "iommu= is no index"),
        ("", "known: dma-engine"),
    ],
)
def test_wrong_endpoint_is_named(value: str, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_settings({"endpoint": [value]})
    assert words in f"{caught.value} {caught.value.hint}"


def test_standard_endpoints_leave_out_what_qemu_cannot_do() -> None:
    ours = parse_settings({"endpoint": ["standard"]}).scenario
    assert ours.endpoints == STANDARD_ENDPOINTS
    qemus = parse_settings({"endpoint": ["standard"], "iommu": ["qemu"]}).scenario
    assert set(ours.endpoints) - set(qemus.endpoints) == {
        EndpointSpec(iommu=1),
        EndpointSpec(place=Place.BRIDGE),
    }


def test_every_option_is_named_once_and_has_a_variable() -> None:
    assert len({option.name for option in OPTIONS}) == len(OPTIONS)
    assert len({option.variable for option in OPTIONS}) == len(OPTIONS)
    assert all(option.metavar or option.kind is Kind.FLAG for option in OPTIONS)


def test_nearest_without_a_guess_lists_what_there_is() -> None:
    assert nearest("zzz", ["q35", "virt"]) == "known: q35, virt"


def test_thorough_is_of_the_scenario() -> None:
    scenario = parse_settings({"thorough": ["1"]}).scenario
    assert scenario.thorough
    assert not parse_settings({}).scenario.thorough
    raw = raw_from_config(scenario_config(scenario), "file")
    assert parse_settings(raw).scenario == scenario


def test_workers_shape_the_run_and_reboots_the_scenario() -> None:
    settings = parse_settings({"workers": ["3"], "reboots": ["0"]})
    assert (settings.workers, settings.scenario.reboots) == (3, 0)
    assert parse_settings({}).scenario.reboots == 2
    config = scenario_config(settings.scenario)
    assert parse_settings(raw_from_config(config, "x")).scenario == settings.scenario


@pytest.mark.parametrize("raw", [{"workers": ["0"]}, {"reboots": ["-1"]}])
def test_number_of_guests_out_of_range_is_refused(raw: dict[str, list[str]]) -> None:
    with pytest.raises(UsageError, match="out of range"):
        parse_settings(raw)


@pytest.mark.parametrize("value", ["1000", "65537", "512", "33554432", "x"])
def test_log_records_must_be_a_power_of_two_in_range(value: str) -> None:
    with pytest.raises(UsageError, match="--log-records"):
        parse(log_records=[value])


def test_log_records() -> None:
    assert parse(log_records=["1048576"]).log_records == 1 << 20
