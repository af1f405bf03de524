# SPDX-License-Identifier: GPL-2.0-or-later
"""The host's apt sources: which mirror is Debian's, and what else is taken over."""

from __future__ import annotations

import pytest

from viotest.provision.sources import (
    Source,
    acquire_settings,
    find_mirror,
    parse_deb822,
    parse_one_line,
    shell_assignments,
    sources_list,
)

ONE_LINE = """\
# deb http://off.example/debian trixie main
deb-src http://source.example/debian trixie main
deb http://vendor.example/apt cloud-bookworm main
deb [signed-by=/k/debian-archive.gpg] http://m.example/debian bookworm main x # y
deb http://m.example/debian-security bookworm-security main
nonsense
deb
"""
DEB822 = """\
Types: deb
# a comment
URIs: http://one.example/debian http://two.example/debian
Suites: bookworm bookworm-updates
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .

Types: deb
URIs: http://off.example/debian
Suites: trixie
Components: main
Enabled: no

Types: deb-src
URIs: http://source.example/debian
Suites: trixie
Components: main
"""


def test_one_line_sources() -> None:
    sources = list(parse_one_line(ONE_LINE))
    assert [source.suite for source in sources] == [
        "cloud-bookworm",
        "bookworm",
        "bookworm-security",
    ]
    keyring = "/k/debian-archive.gpg"
    mirror = "http://m.example/debian"
    assert sources[1] == Source(mirror, "bookworm", ("main", "x"), keyring)


def test_deb822_sources() -> None:
    sources = list(parse_deb822(DEB822))
    assert [(source.uri, source.suite) for source in sources] == [
        ("http://one.example/debian", "bookworm"),
        ("http://one.example/debian", "bookworm-updates"),
        ("http://two.example/debian", "bookworm"),
        ("http://two.example/debian", "bookworm-updates"),
    ]


def test_deb822_continuation_first_is_harmless() -> None:
    assert list(parse_deb822(" lost line\nTypes: deb\n")) == []


def test_mirror_prefers_the_one_with_debian_keys() -> None:
    first = Source("http://vendor.example", "trixie", ("main",))
    second = Source("http://m.example", "trixie", ("main",), "/debian-archive-x.gpg")
    assert find_mirror([first, second]) == "http://m.example"
    assert find_mirror([first]) == "http://vendor.example"


@pytest.mark.parametrize(
    "source",
    [
        Source("http://m.example", "trixie-security", ("main",)),
        Source("http://m.example", "trixie", ("contrib",)),
        Source("cdrom:[Debian]", "trixie", ("main",)),
    ],
)
def test_no_mirror_among_others(source: Source) -> None:
    assert find_mirror([source]) is None


def test_sources_list_names_the_keys() -> None:
    text = sources_list("http://m.example/debian", ["a", "b"], "/k.gpg")
    assert text.splitlines() == [
        "deb [signed-by=/k.gpg arch=amd64] http://m.example/debian a main",
        "deb [signed-by=/k.gpg arch=amd64] http://m.example/debian b main",
    ]


def test_acquire_settings_keep_proxies_and_drop_weakening() -> None:
    kept = [
        'Acquire::http::Proxy "http://p.example:3128";',
        'Acquire::Retries "5";',
        'Acquire::Check-Date "false";',
    ]
    dropped = [
        'Acquire "";',
        'Acquire::AllowInsecureRepositories "1";',
        'Acquire::AllowWeakRepositories "1";',
        'Acquire::Check-Valid-Until "false";',
        'Acquire::Languages:: "de";',
        'Acquire::IndexTargets::deb::Packages::MetaKey "x";',
        'APT::Get::AllowUnauthenticated "1";',
        'Acquire::http::Proxy "a"; APT::Get::AllowUnauthenticated "1";',
    ]
    assert acquire_settings("\n".join(dropped + kept)).splitlines() == kept


def test_shell_assignments() -> None:
    text = "list='/etc/apt/sources.list'\nparts='/a b/'\n"
    expected = {"list": "/etc/apt/sources.list", "parts": "/a b/"}
    assert shell_assignments(text) == expected
