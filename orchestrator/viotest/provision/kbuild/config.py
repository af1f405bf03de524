# SPDX-License-Identifier: GPL-2.0-or-later
"""A minimal configuration: the kernel's own tinyconfig, and fragments on top.

The main function is :func:`merged`. A fragment's option that Kconfig did not take is an
error that names it: a guest without it would fail later, elsewhere.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from viotest.errors import UsageError
from viotest.provision import assets

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

#: What tinyconfig is made of, as far as a tree has it.
TINY = (
    "kernel/configs/tiny-base.config",
    "kernel/configs/tiny.config",
    "arch/x86/configs/tiny.config",
)
#: Our own fragments, in the folder ``guest-images/kernel``.
FRAGMENTS = ("boot", "passthrough", "endpoints", "observe")
#: Options of ours that not every kernel has: what they asked for is there without.
RENAMED = frozenset(
    {
        # Before 7.3 it is what selects CONFIG_SYSCTL.
        "CONFIG_PROC_SYSCTL",
    }
)
_LINE = re.compile(r"(CONFIG_\w+)=(.+)|# (CONFIG_\w+) is not set")


@dataclass(frozen=True)
class Fragment:
    """A file of options."""

    name: str
    text: str
    #: Value by option; ``n`` when not set.
    options: Mapping[str, str]


def read_fragment(path: Path) -> Fragment:
    """Read a fragment.

    :param path: A file of lines as in ``.config``; ``#`` begins a comment.
    :raise UsageError: When it cannot be read, or a line is no option.
    """
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        what = error.strerror if isinstance(error, OSError) else "not text"
        raise UsageError(f"cannot read the fragment {path}: {what}") from error
    options = {}
    for number, line in enumerate(text.splitlines(), 1):
        match = _LINE.fullmatch(line.strip())
        if match:
            options[match[1] or match[3]] = match[2] or "n"
        elif line.strip() and not line.startswith("#"):
            what = f"{path}:{number}: {line.strip()!r} is no option"
            raise UsageError(what, hint="as in CONFIG_EXT4_FS=y")
    return Fragment(path.name, text, options)


def read_fragments(extra: Iterable[Path]) -> tuple[Fragment, ...]:
    """Return our own fragments, then those of the user, which win.

    :param extra: The user's files.
    :raise UsageError: As :func:`read_fragment`.
    """
    folder = assets.guest_images() / "kernel"
    ours = [folder / f"{name}.config" for name in FRAGMENTS]
    return tuple(read_fragment(path) for path in (*ours, *extra))


def merged(tree: Path, fragments: Sequence[Fragment]) -> str:
    """Return what ``KCONFIG_ALLCONFIG`` is to hold; a later line wins.

    :param tree: The kernel's source.
    :param fragments: What comes on top of tinyconfig.
    """
    tiny = [tree / name for name in TINY if (tree / name).is_file()]
    texts = [path.read_text("utf-8") for path in tiny]
    return "\n".join((*texts, *(fragment.text for fragment in fragments), ""))


def require_taken(
    tree: Path, fragments: Sequence[Fragment], config: Mapping[str, str]
) -> None:
    """Require that the configuration has what the fragments ask for.

    :param tree: The kernel's source, to say why it has not.
    :param fragments: In order: a later one may take back what an earlier one asks for.
    :param config: What Kconfig made of them.
    :raise UsageError: When an option is different; names it.
    """
    wanted = {
        name: (value.strip('"'), fragment.name)
        for fragment in fragments
        for name, value in fragment.options.items()
    }
    for name, (value, where) in wanted.items():
        got = config.get(name, "n")
        if got != value and (name not in RENAMED or name in config):
            what = f"{where}: {name}={value} did not stick: the kernel has {got}"
            raise UsageError(what, hint=_reason(tree, name))


def _reason(tree: Path, name: str) -> str:
    symbol = name.removeprefix("CONFIG_")
    entry = re.compile(rf"^\s*(menu)?config {symbol}$", re.MULTILINE)
    for path in sorted(tree.rglob("Kconfig*")):
        match = entry.search(path.read_text("utf-8", "replace"))
        if match:
            where = path.relative_to(tree)
            return f"see its dependencies in {where}"
    return "this kernel has no such option"
