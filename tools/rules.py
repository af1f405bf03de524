# SPDX-License-Identifier: GPL-2.0-or-later
"""Check the rules of the house that no off-the-shelf linter knows.

Ceilings on the length of functions and on the length and size of files, clean line
ends, a licence line in every source file, and no name of a machine: no path of the
one it was written on and no host that packages come from, because neither exists on
the reader's. Run it from the root: `python -m tools.rules`.
"""

from __future__ import annotations

import ast
import io
import os
import re
import sys
import tokenize
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from tools.gates import ROOT, source_files

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_PYTHON_FUNCTION = 60
MAX_PYTHON_FILE = 600
MAX_C_FUNCTION = 80
MAX_C_FILE = 500

#: No binary belongs here: what is larger is an asset, or built.
MAX_SIZE = 512 * 1024

LICENCE = "SPDX-License-Identifier: "

#: Kinds of file that hold no comment, or are another project's text.
UNLICENSED = (".md", ".json", ".patch", ".diff", ".typed", ".txt", ".svg", ".png")

#: Texts of the licence itself.
LICENCE_TEXTS = ("COPYING", "LICENSES/")

REGISTRY = re.compile(
    r"\b(?:deb|ftp|security|snapshot|archive|ports)[\w.-]*\.(?:debian|ubuntu)\.(?:org|com)"
    r"|\bpyp[i][\w.-]*\.org\b|\b[\w.-]*\.pythonhosted\.org|\bregistry\.npm\w+\.org"
)
HOME = re.compile(r"(?<![\w.-])/(?:home|Users)/\w+")
NOT_CODE = frozenset({
    tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT,
    tokenize.DEDENT, tokenize.ENCODING, tokenize.ENDMARKER,
})  # fmt: skip


@dataclass(frozen=True)
class Problem:
    """One broken rule and where."""

    path: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.text}"


def check_python_lengths(path: str, source: str) -> Iterator[Problem]:
    """Find Python functions and files above the ceilings.

    A function's length is its lines that hold code: comments, blank lines and
    docstrings are free.
    """
    lines = source.count("\n")
    if lines > MAX_PYTHON_FILE:
        yield Problem(path, lines, f"{lines} lines, at most {MAX_PYTHON_FILE}")
    code = _code_lines(source)
    for node in ast.walk(ast.parse(source, path)):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        length = len(code & _body_lines(node))
        if length > MAX_PYTHON_FUNCTION:
            text = f"{node.name}: {length} lines of code, at most {MAX_PYTHON_FUNCTION}"
            yield Problem(path, node.lineno, text)


def _code_lines(source: str) -> set[int]:
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in NOT_CODE:
            lines.update(range(token.start[0], token.end[0] + 1))
    return lines


def _body_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> set[int]:
    lines = set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    if ast.get_docstring(node, clean=False) is not None:
        text = node.body[0]
        lines -= set(range(text.lineno, (text.end_lineno or text.lineno) + 1))
    return lines


def check_c_lengths(path: str, source: str) -> Iterator[Problem]:
    """Find C functions and files above the ceilings.

    In kernel style a brace in the first column opens or closes a function, or
    a type, which may be as long as it must be.
    """
    lines = source.splitlines()
    if len(lines) > MAX_C_FILE:
        yield Problem(path, len(lines), f"{len(lines)} lines, at most {MAX_C_FILE}")
    start = 0
    for number, line in enumerate(lines, 1):
        if line == "{":
            start = number
        elif line == "}" and start:
            length = number - start - 1
            if length > MAX_C_FUNCTION:
                text = f"function of {length} lines, at most {MAX_C_FUNCTION}"
                yield Problem(path, start, text)
            start = 0


def check_line_ends(path: str, source: str) -> Iterator[Problem]:
    """Find blanks and carriage returns at line ends, and an unfinished last line."""
    if path.startswith(LICENCE_TEXTS) or path.endswith((".patch", ".diff")):
        return
    for number, line in enumerate(source.split("\n"), 1):
        if line != line.rstrip():
            yield Problem(path, number, "blank at the end of the line")
    if source and (not source.endswith("\n") or source.endswith("\n\n")):
        yield Problem(path, source.count("\n"), "the file must end with one newline")


def check_licence(path: str, source: str) -> Iterator[Problem]:
    """Find a source file whose first lines do not name its licence."""
    if path.endswith(UNLICENSED) or path.startswith(LICENCE_TEXTS) or not source:
        return
    if not any(LICENCE in line for line in source.splitlines()[:3]):
        yield Problem(path, 1, f"no {LICENCE.rstrip(': ')} line")


def check_names(path: str, source: str, hosts: frozenset[str]) -> Iterator[Problem]:
    """Find names that mean something on one machine only.

    :param hosts: those that this machine fetches packages from.
    """
    for number, line in enumerate(source.splitlines(), 1):
        found = HOME.search(line) or REGISTRY.search(line)
        if found:
            yield Problem(path, number, f"name of a machine: {found.group()}")
        for name in (*hosts, os.fspath(ROOT)):
            if name in line:
                yield Problem(path, number, f"name of this machine: {name}")


def configured_hosts() -> frozenset[str]:
    """Tell the hosts that apt and pip of this machine are set up to use."""
    apt = Path("/etc/apt")
    files = [*apt.glob("sources.list*"), *apt.glob("*.d/*"), Path("/etc/pip.conf")]
    texts = [value for name, value in os.environ.items() if name.startswith("PIP_")]
    for file in files:
        if file.is_file() and os.access(file, os.R_OK):
            texts.append(file.read_text(errors="replace"))
    urls = re.findall(r"https?://[^\s\"';]+", "\n".join(texts))
    names = {urlsplit(url).hostname or "" for url in urls}
    return frozenset(name for name in names if "." in name)


def check_tree() -> Iterator[Problem]:
    """Find every broken rule in the files of the project."""
    hosts = configured_hosts()
    for path in source_files():
        size = (ROOT / path).stat().st_size
        if size > MAX_SIZE:
            yield Problem(path, 1, f"{size} bytes, at most {MAX_SIZE}")
        try:
            # newline: carriage returns are to be seen.
            with (ROOT / path).open(newline="") as file:
                source = file.read()
        except UnicodeDecodeError:
            continue  # a picture
        yield from check_line_ends(path, source)
        yield from check_licence(path, source)
        yield from check_names(path, source, hosts)
        if path.endswith((".py", ".pyi")):
            yield from check_python_lengths(path, source)
        elif path.endswith((".c", ".h")):
            yield from check_c_lengths(path, source)


def main() -> int:
    """Print every problem; 1 if there is one."""
    problems = list(check_tree())
    for problem in problems:
        print(problem)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
