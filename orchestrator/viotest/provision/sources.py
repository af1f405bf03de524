# SPDX-License-Identifier: GPL-2.0-or-later
"""Find the host's own Debian mirror in its apt sources, one-line and deb822.

The project names no mirror: :func:`find_mirror` returns the address that the host uses
for Debian's ``main``, and :func:`sources_list` makes sources for other suites of it.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

#: Names under which Debian's main archive is configured, without ``-updates`` etc.
DEBIAN_SUITES = frozenset(
    {"stable", "oldstable", "oldoldstable", "testing", "unstable", "sid"}
    | {"bullseye", "bookworm", "trixie", "forky", "duke"}
)
#: Transports that need a person or a disc.
_UNUSABLE = ("cdrom:",)


@dataclass(frozen=True)
class Source:
    """One configured archive."""

    uri: str
    suite: str
    components: tuple[str, ...]
    #: The ``Signed-By`` value, or an empty string.
    signed_by: str = ""


def parse_one_line(text: str) -> Iterator[Source]:
    """Yield the binary archives of a ``sources.list`` file.

    :param text: The file. Lines that apt would refuse are left out.
    """
    for line in text.splitlines():
        match = re.match(
            r"deb\s+(?:\[(?P<options>[^]]*)\]\s*)?(?P<rest>.+)", line.strip()
        )
        if match is None:
            continue
        words = match["rest"].split("#", 1)[0].split()
        options = dict(
            option.split("=", 1)
            for option in (match["options"] or "").split()
            if "=" in option
        )
        if len(words) > 1:
            uri, suite, *components = words
            signed_by = options.get("signed-by", "")
            yield Source(uri, suite, tuple(components), signed_by)


def parse_deb822(text: str) -> Iterator[Source]:
    """Yield the binary archives of a ``.sources`` file.

    :param text: The file.
    """
    for stanza in re.split(r"\n\s*\n", text):
        fields = _deb822_fields(stanza)
        enabled = fields.get("enabled", "yes").lower() not in ("no", "false", "0")
        if not enabled or "deb" not in fields.get("types", "").split():
            continue
        components = tuple(fields.get("components", "").split())
        signed_by = fields.get("signed-by", "")
        for uri in fields.get("uris", "").split():
            for suite in fields.get("suites", "").split():
                yield Source(uri, suite, components, signed_by)


def find_mirror(sources: Iterable[Source]) -> str | None:
    """Return the address of Debian's main archive, or None.

    :param sources: What the host has configured. One that names Debian's own keyring
        wins over one that does not; else the first wins.
    """
    found = [
        source
        for source in sources
        if source.suite.rstrip("/") in DEBIAN_SUITES
        and "main" in source.components
        and not source.uri.startswith(_UNUSABLE)
    ]
    found.sort(key=lambda source: "debian-archive" not in source.signed_by)
    return found[0].uri if found else None


def sources_list(mirror: str, suites: Iterable[str], keyring: str) -> str:
    """Return a ``sources.list`` for suites of one mirror.

    :param mirror: The archive's address.
    :param suites: Names of suites.
    :param keyring: The only keys that may sign them.
    """
    return "".join(
        f"deb [signed-by={keyring} arch=amd64] {mirror} {suite} main\n"
        for suite in suites
    )


def acquire_settings(dump: str) -> str:
    """Return the host's download settings (proxies, certificates, retries).

    :param dump: What ``apt-config dump`` prints.
    :return: Lines for a configuration file. What would weaken the check of signatures
        or change which indexes are fetched is left out.
    """
    dropped = re.compile(
        r"Acquire(::(IndexTargets|Languages|GzipIndexes|Check-Valid-Until|Changelogs"
        r"|Allow\w+|PDiffs|cdrom)\b.*)?$",
        re.IGNORECASE,
    )
    lines = []
    for line in dump.splitlines():
        match = re.fullmatch(r'(Acquire[^ "]*) "([^"]*)";', line)
        if match and not dropped.match(match[1]):
            lines.append(line)
    return "\n".join(lines)


def shell_assignments(text: str) -> Mapping[str, str]:
    """Parse what ``apt-config shell`` prints.

    :param text: Lines of ``NAME='value'``.
    """
    pairs = (word.split("=", 1) for word in shlex.split(text) if "=" in word)
    return {name: value for name, value in pairs}


def _deb822_fields(stanza: str) -> dict[str, str]:
    fields: dict[str, str] = {}
    name = ""
    for line in stanza.splitlines():
        if line.startswith("#"):
            continue
        if line[:1].isspace():
            # A key may be given in the file itself; its lines are of no use here.
            fields[name] = f"{fields.get(name, '')} {line.strip()}"
        elif ":" in line:
            name, value = line.split(":", 1)
            name = name.strip().lower()
            fields[name] = value.strip()
    return fields
