# SPDX-License-Identifier: GPL-2.0-or-later
"""``viotest run``: the options of one run, from three places."""

from __future__ import annotations

import argparse
import fnmatch
import json
import os
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

from viotest.cli.common import check_mutants
from viotest.cli.parser import Parser
from viotest.errors import UsageError
from viotest.scenario.options import (
    OPTIONS,
    Kind,
    Raw,
    parse_settings,
    raw_from_config,
    raw_from_environment,
)
from viotest.suite.catalog import CHECKS, NAMES

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from viotest.scenario.model import Scenario
    from viotest.scenario.options import Settings

#: Read from the working directory if ``--config`` is not given.
DEFAULT_CONFIG = "viotest.toml"


def add_run_parser(commands: Any) -> argparse.ArgumentParser:
    """Add ``run`` to the subcommands of ``viotest``.

    :return: Its parser, for commands that make a run on the way.
    """
    parser: argparse.ArgumentParser = commands.add_parser(
        "run",
        help="boot a guest, pass a device through, judge it",
        description="Boot a guest, pass a device through, judge it.",
        epilog=_epilog(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--config",
        metavar="FILE",
        help=f"read options from a TOML or JSON file (default: ./{DEFAULT_CONFIG}, if"
        " there is one; also VIOTEST_CONFIG)",
    )
    for option in OPTIONS:
        _add_option(parser, option.name, option.kind, option.metavar, option.help)
    options = ["--config", *(f"--{option.name}" for option in OPTIONS)]
    parser.set_defaults(call=run_command, options=options)
    return parser


def _add_option(
    parser: argparse.ArgumentParser, name: str, kind: Kind, metavar: str, text: str
) -> None:
    short = {"verbose": ["-v"], "workers": ["-n"]}.get(name, [])
    flags = [*short, f"--{name}"]
    help_text = text.replace("%", "%%")
    if kind is Kind.FLAG:
        parser.add_argument(
            *flags, dest=name, action="append_const", const="1", help=help_text
        )
    else:
        parser.add_argument(
            *flags, dest=name, action="append", metavar=metavar, help=help_text
        )


def _epilog() -> str:
    width = max(len(check.name) for check in CHECKS)
    rows = [
        f"  {check.name:{width}}  {check.title}{' (required)' * check.required}"
        for check in CHECKS
    ]
    return "\n".join(
        [
            "checks:",
            *rows,
            "",
            "Every option may stand in the configuration file and in the environment",
            "(VIOTEST_KERNEL=..., VIOTEST_MODE=type1,type1v2); the command line wins.",
            "",
            "exit status: 0 each required check passed; 1 a check failed, or the guest",
            "panicked or hung while it ran; 2 wrong usage; 125 could not be tested.",
        ]
    )


def read_config(path: Path) -> Raw:
    """Read options from a configuration file.

    :param path: TOML, or JSON if its name ends in ``.json``.
    :raise UsageError: When it cannot be read, or holds something unknown.
    """
    try:
        text = path.read_text(encoding="utf-8")
        values = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except OSError as error:
        raise UsageError(f"--config {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"--config {path}: malformed: {error}") from error
    if not isinstance(values, dict):
        raise UsageError(f"--config {path}: malformed: not a table of options")
    return raw_from_config(values, f"--config {path}")


def _config_raw(named: str | None) -> Raw:
    name = named or os.environ.get("VIOTEST_CONFIG")
    if name:
        return read_config(Path(name))
    default = Path(DEFAULT_CONFIG)
    return read_config(default) if default.is_file() else {}


def _check_modes(scenario: Scenario) -> None:
    # Of what was asked for by name, something must be askable.
    chosen = [
        check
        for check in CHECKS
        if any(fnmatch.filter([check.name], pattern) for pattern in scenario.checks)
    ]
    if chosen and not any(check.modes_among(scenario.modes) for check in chosen):
        modes = ", ".join(chosen[0].modes)
        raise UsageError(
            f"--check {chosen[0].name}: not in the modes of this run",
            hint=f"--mode {modes}",
        )


def _settings(arguments: argparse.Namespace) -> Settings:
    given = vars(arguments)
    raw = _config_raw(given["config"]) | raw_from_environment(os.environ)
    raw |= {o.name: given[o.name] for o in OPTIONS if given[o.name] is not None}
    settings = parse_settings(raw, checks=NAMES)
    _check_modes(settings.scenario)
    iommu = settings.scenario.iommu
    elsewhere = None if iommu == "viotest" else f"--iommu {iommu}"
    check_mutants(settings.scenario.mutants, elsewhere=elsewhere)
    return settings


def scenario_from(argv: Sequence[str]) -> Scenario:
    """Return the scenario that ``viotest run ARGV`` would carry out.

    For commands that boot guests of their own; how a run shows itself is ignored.

    :raise UsageError: When an option is wrong.
    """
    parser = Parser(prog="viotest")
    add_run_parser(parser.add_subparsers())
    arguments = parser.parse_args(["run", *argv])
    return _settings(arguments).scenario


def run_command(arguments: argparse.Namespace) -> int:
    """Carry out ``viotest run``.

    :return: The exit code.
    :raise ViotestError: As :func:`viotest.campaign.run.run`.
    """
    settings = _settings(arguments)
    from viotest.campaign.run import run
    from viotest.provision.progress import TerminalProgress
    from viotest.report.summary import Terminal

    return run(settings, TerminalProgress(), Terminal(sys.stdout))
