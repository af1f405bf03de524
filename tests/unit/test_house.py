# SPDX-License-Identifier: GPL-2.0-or-later
"""The gates of the house as tests, and the tests of the house's own rules."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from tools import rules
from tools.gates import GATES, ROOT, Gate, source_files

#: tests/core runs the core's own tests, program by program.
LINTERS = [gate for gate in GATES if gate.name != "core"]


@pytest.mark.parametrize("gate", LINTERS, ids=lambda gate: gate.name)
def test_gate(gate: Gate) -> None:
    argv = gate.argv()
    if argv is None:
        pytest.skip(f"{gate.tool} is not installed")
    done = subprocess.run(
        argv, cwd=ROOT, capture_output=True, text=True, errors="replace", check=False
    )
    if done.returncode:
        text = (done.stdout + done.stderr)[-20000:]
        pytest.fail(f"`make check-{gate.name}` fails:\n{text}", pytrace=False)


def python_function(nr_lines: int) -> str:
    body = "".join(f"    x{number} = {number}\n" for number in range(nr_lines - 1))
    return f"def f() -> None:\n{body}"


def c_function(nr_lines: int) -> str:
    return "int f(void)\n{\n" + "\tg();\n" * nr_lines + "}\n"


def test_python_function_at_ceiling_passes() -> None:
    source = python_function(rules.MAX_PYTHON_FUNCTION)
    assert not list(rules.check_python_lengths("a.py", source))


def test_python_function_above_ceiling_is_reported() -> None:
    source = python_function(rules.MAX_PYTHON_FUNCTION + 1)
    [problem] = rules.check_python_lengths("a.py", source)
    assert str(problem) == "a.py:1: f: 61 lines of code, at most 60"


def test_python_docstring_and_comments_are_free() -> None:
    free = '    """Say.\n\n    More.\n    """\n\n    # Why.\n'
    source = python_function(rules.MAX_PYTHON_FUNCTION)
    head, body = source.split("\n", 1)
    assert not list(rules.check_python_lengths("a.py", f"{head}\n{free}{body}"))


def test_python_string_of_many_lines_counts() -> None:
    text = "    x = '''\n" + "y\n" * rules.MAX_PYTHON_FUNCTION + "'''\n"
    source = f"def f() -> None:\n{text}"
    assert len(list(rules.check_python_lengths("a.py", source))) == 1


def test_c_function_length() -> None:
    short, long = c_function(rules.MAX_C_FUNCTION), c_function(rules.MAX_C_FUNCTION + 1)
    assert not list(rules.check_c_lengths("a.c", short))
    [problem] = rules.check_c_lengths("a.c", long)
    assert problem.line == 2


def test_file_length() -> None:
    c_file = "\n" * (rules.MAX_C_FILE + 1)
    python_file = "\n" * (rules.MAX_PYTHON_FILE + 1)
    assert len(list(rules.check_c_lengths("a.h", c_file))) == 1
    assert len(list(rules.check_python_lengths("a.py", python_file))) == 1


@pytest.mark.parametrize(
    ("source", "nr_problems"),
    [("a\n", 0), ("", 0), ("a \n", 1), ("a\r\n", 1), ("a", 1), ("a\n\n", 1)],
)
def test_line_ends(source: str, nr_problems: int) -> None:
    assert len(list(rules.check_line_ends("a.py", source))) == nr_problems


def test_licence_is_missed() -> None:
    named = f"#!/bin/sh\n# {rules.LICENCE}GPL-2.0-or-later\n"
    assert not list(rules.check_licence("run", named))
    assert len(list(rules.check_licence("run", "#!/bin/sh\n"))) == 1
    assert not list(rules.check_licence("README.md", "# viotest\n"))


@pytest.mark.parametrize(
    "line",
    [
        "deb http://deb." + "debian.org/debian trixie main",
        "index-url = https://py" + "pi.org/simple",
        "cd /ho" + "me/someone/viotest",
        "mirror: cache.example.net",
        f"cd {ROOT}",
    ],
)
def test_name_of_a_machine_is_reported(line: str) -> None:
    hosts = frozenset({"cache.example.net"})
    assert list(rules.check_names("a", line, hosts))


@pytest.mark.parametrize(
    "line", ["/root/.ssh/authorized_keys", "$HOME/.cache", "x/home/y", "Debian"]
)
def test_name_on_any_machine_passes(line: str) -> None:
    assert not list(rules.check_names("a", line, frozenset()))


def test_lock_pins_every_dependency_once() -> None:
    config = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = [*config["build-system"]["requires"], *config["project"]["dependencies"]]
    wanted += config["project"]["optional-dependencies"]["dev"]
    names = [re.split(r"[<>=~! ]", item, maxsplit=1)[0].lower() for item in wanted]
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    pins = [line.split("==")[0] for line in lines if not line.startswith("#")]
    assert len(pins) == len(set(pins))
    assert set(names) <= set(pins)


def test_host_packages_have_a_known_proof() -> None:
    proof = re.compile(r"[a-z0-9.+-]+ +(command:\S+|file:/\S+|python:[\w,]+|python\.h)")
    for line in (ROOT / "host-packages.txt").read_text().splitlines():
        assert not line or line.startswith("#") or proof.fullmatch(line), line


def test_top_folders_have_a_readme() -> None:
    folders = {Path(name).parts[0] for name in source_files() if "/" in name}
    folders = {name for name in folders if not name.startswith((".", "LICENSES"))}
    assert not [name for name in folders if not (ROOT / name / "README.md").exists()]
