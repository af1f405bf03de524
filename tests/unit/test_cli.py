# SPDX-License-Identifier: GPL-2.0-or-later
"""The command line, up to the run itself, which is left out."""

from __future__ import annotations

import signal
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from viotest import __version__
from viotest.campaign import run as run_module
from viotest.campaign.folder import kept_if_interrupted, make_folder
from viotest.cli import parser as parser_module
from viotest.cli.main import main
from viotest.errors import UntestableError
from viotest.scenario.options import OPTIONS, Settings

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def _no_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for option in OPTIONS:
        monkeypatch.delenv(option.variable, raising=False)
    monkeypatch.delenv("VIOTEST_CONFIG", raising=False)
    # Handlers would outlive the test.
    monkeypatch.setattr(signal, "signal", lambda *_: None)


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[Settings]:
    """Every settings that a run was asked to carry out."""
    asked: list[Settings] = []

    def fake_run(settings: Settings, *_: object) -> int:
        asked.append(settings)
        return 0

    monkeypatch.setattr(run_module, "run", fake_run)
    return asked


def refused(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """Return the one line with which wrong usage is refused."""
    assert main(argv) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    return err


def test_command_line_beats_environment_beats_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seen: list[Settings]
) -> None:
    (tmp_path / "viotest.toml").write_text("smp = 2\nmem = 300\nappend = ['file']\n")
    monkeypatch.setenv("VIOTEST_SMP", "3")
    monkeypatch.setenv("VIOTEST_APPEND", "environment")
    assert main(["run", "--smp", "4"]) == 0
    scenario = seen[0].scenario
    assert (scenario.smp, scenario.mem, scenario.append) == (4, 300, ("environment",))


def test_config_may_be_named_in_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seen: list[Settings]
) -> None:
    (tmp_path / "viotest.toml").write_text("smp = 2\n")
    (tmp_path / "other.json").write_text('{"smp": 5}')
    monkeypatch.setenv("VIOTEST_CONFIG", "other.json")
    assert main(["run"]) == 0
    assert seen[0].scenario.smp == 5


def test_every_option_is_in_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["run", "--help"])
    assert end.value.code == 0
    text = capsys.readouterr().out
    assert all(f"--{option.name}" in text for option in OPTIONS)


@pytest.mark.parametrize("command", ["run", "mutants", "conformance", "bench"])
def test_help_fits_a_terminal(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(parser_module, "width_of", lambda _: 80)
    with pytest.raises(SystemExit):
        main([command, "--help"])
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80


def test_repeated_options_add_up(seen: list[Settings]) -> None:
    argv = ["run", "--check", "bind", "--check", "dma-*", "--qemu-arg=-S", "-v"]
    assert main(argv) == 0
    assert seen[0].scenario.checks == ("bind", "dma-*")
    assert seen[0].scenario.qemu_args == ("-S",)
    assert seen[0].verbose


def test_unknown_option_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(capsys, "run", "--kernle", "x")
    assert line == "viotest: unknown argument --kernle (did you mean --kernel?)\n"


def test_option_is_never_abbreviated(capsys: pytest.CaptureFixture[str]) -> None:
    assert "--kern" in refused(capsys, "run", "--kern", "x")


@pytest.mark.parametrize("argv", [[], ["rnu"], ["run", "--smp"], ["run", "extra"]])
def test_wrong_usage_is_one_line(
    argv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    refused(capsys, *argv)


def test_unknown_mutant_names_the_nearest(
    capsys: pytest.CaptureFixture[str], seen: list[Settings]
) -> None:
    line = refused(capsys, "run", "--device-mutant", "ignore-unmpa")
    assert "did you mean ignore-unmap?" in line
    assert not seen


@pytest.mark.parametrize(
    "argv",
    [
        ["run", "--iommu", "qemu"],
        ["conformance", "--target", "qemu"],
    ],
)
def test_mutant_that_would_change_nothing_is_refused(
    argv: list[str], capsys: pytest.CaptureFixture[str], seen: list[Settings]
) -> None:
    mutants = ["--device-mutant", "drop-interrupt", "--device-mutant", "ignore-unmap"]
    line = refused(capsys, *argv, *mutants)
    assert "ignore-unmap: a defect of our virtio-iommu" in line
    assert " ".join(argv[1:]) in line
    assert "drop-interrupt" in line
    assert not seen


def test_mutant_of_endpoints_goes_with_any_iommu(seen: list[Settings]) -> None:
    argv = ["run", "--iommu", "qemu", "--device-mutant", "drop-interrupt"]
    assert main(argv) == 0
    assert seen[0].scenario.mutants == ("drop-interrupt",)


@pytest.mark.parametrize(
    ("argv", "code"), [(["run"], 0), (["trace", "show", "no-such-file"], 2)]
)
def test_unknown_variable_is_a_warning(
    argv: list[str],
    code: int,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    seen: list[Settings],
) -> None:
    monkeypatch.setenv("VIOTEST_KERNAL", "x")
    assert main(argv) == code
    assert len(seen) == (argv == ["run"])
    assert capsys.readouterr().err.startswith(
        "viotest: warning: VIOTEST_KERNAL is ignored, it is no option;"
        " did you mean VIOTEST_KERNEL?\n"
    )


@pytest.mark.parametrize("argv", [["run"], ["trace", "show", "x"], ["kernel", "list"]])
def test_deleted_working_directory_is_named(
    argv: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert "the working directory has been deleted" in refused(capsys, *argv)


def test_dry_run_needs_no_room(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = SimpleNamespace(argv_text=lambda: "viotest-device serve\n")
    monkeypatch.setattr(run_module, "prepare", lambda *_, **__: (plan, None))
    # Nothing can be made there, whoever asks.
    assert main(["run", "--dry-run", "--out", "/proc/x", "--mem", "1000000"]) == 0
    assert capsys.readouterr().out == "viotest-device serve\n"
    assert "--out /proc/x" in refused(capsys, "run", "--out", "/proc/x")


def test_untestable_is_125(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> int:
        raise UntestableError("no QEMU", hint="fetch one")

    monkeypatch.setattr(run_module, "run", fail)
    assert main(["run"]) == 125
    assert capsys.readouterr().err == "viotest: no QEMU (fetch one)\n"


def test_interrupt_is_130(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(run_module, "run", interrupt)
    assert main(["run"]) == 130
    err = capsys.readouterr().err
    assert err == "viotest: interrupted; nothing was left running\n"


def interrupted_run(settings: Settings, *_: object) -> int:
    """Be a run that is interrupted after it has made its folder."""
    with kept_if_interrupted(make_folder(settings.out)):
        raise KeyboardInterrupt


def test_interrupted_run_names_its_folder(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run_module, "run", interrupted_run)
    assert main(["run", "--out", "mine"]) == 130
    assert capsys.readouterr().err == (
        "viotest: interrupted; nothing was left running; what was recorded until then"
        " is in mine\n"
    )


def test_interrupted_recording_names_no_folder_that_is_gone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run_module, "run", interrupted_run)
    assert main(["trace", "record", "--", "--accel", "tcg"]) == 130
    assert capsys.readouterr().err == "viotest: interrupted; nothing was left running\n"
    assert main(["trace", "record", "--", "--out", "kept"]) == 130
    assert "is in kept\n" in capsys.readouterr().err


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out.strip() == __version__
