# SPDX-License-Identifier: GPL-2.0-or-later
"""Debian packages through a private apt root: no root rights, signatures checked.

:class:`Apt` uses the host's own mirror and download settings (proxy, certificates),
but its own lists and an empty package database, so it may fetch from suites that the
host does not follow. Errors: :class:`AptError`.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from viotest.errors import UntestableError
from viotest.provision import cache
from viotest.provision.sources import (
    Source,
    acquire_settings,
    find_mirror,
    parse_deb822,
    parse_one_line,
    shell_assignments,
    sources_list,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from viotest.provision.progress import Progress, Step

#: Every suite that something of ours comes from.
SUITES = ("trixie", "trixie-backports", "bookworm-backports")
KEYRINGS = (
    "/usr/share/keyrings/debian-archive-keyring.gpg",
    "/usr/share/keyrings/debian-archive-keyring.pgp",
)
#: Package lists younger than this are not fetched again.
LISTS_LIFETIME = 3600.0
_URI_LINE = re.compile(r"'(?P<uri>[^']+)' (?P<file>\S+) (?P<size>\d+)")


class AptError(UntestableError):
    """apt could not find or fetch a package."""


@dataclass(frozen=True)
class Deb:
    """A package of one version, as the index describes it."""

    name: str
    version: str
    #: Bytes to download.
    size: int


class Apt:
    """A private apt root in the cache.

    :param progress: Where downloads are shown and warnings go.
    """

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._root = cache.cache_root() / "apt"

    @contextlib.contextmanager
    def session(self) -> Iterator[AptSession]:
        """Hold the apt root: configured, locked, and with package lists.

        :return: A context manager that gives an :class:`AptSession`.
        :raise AptError: When the host has no apt, no Debian mirror or no keyring.
        """
        if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
            what = "apt-get and dpkg-deb are needed to fetch QEMU, kernels and tools"
            raise AptError(what, hint="install the packages apt and dpkg")
        with (
            cache.lock("apt", self._progress, what="package lists"),
            cache.scratch() as tmp,
        ):
            self._configure(tmp)
            session = AptSession(self._root, tmp / "apt.conf", self._progress)
            session.update(max_age=LISTS_LIFETIME)
            yield session

    def _configure(self, tmp: Path) -> None:
        for folder in ("lists/partial", "archives/partial"):
            (self._root / folder).mkdir(parents=True, exist_ok=True)
        (tmp / "status").touch()
        keyring = next((path for path in KEYRINGS if Path(path).exists()), None)
        if keyring is None:
            hint = "install the package debian-archive-keyring"
            raise AptError("Debian's archive keys are not installed", hint=hint)
        mirror = find_mirror(_host_sources())
        if mirror is None:
            what = "apt on this host knows no Debian mirror"
            hint = "add one with the component main to /etc/apt/sources.list.d"
            raise AptError(what, hint=hint)
        (tmp / "sources.list").write_text(sources_list(mirror, SUITES, keyring))
        # Proxy settings may hold a password: the file is as private as its folder.
        (tmp / "apt.conf").write_text(self._config_text(tmp))

    def _config_text(self, tmp: Path) -> str:
        return f"""
{acquire_settings(_run(["apt-config", "dump"], None).stdout)}
Acquire::Languages "none";
Acquire::GzipIndexes "true";
Acquire::Check-Valid-Until "false";
Acquire::AllowInsecureRepositories "false";
Acquire::AllowDowngradeToInsecureRepositories "false";
Acquire::AllowWeakRepositories "false";
APT::Get::AllowUnauthenticated "false";
APT::Architecture "amd64";
APT::Architectures {{ "amd64"; }};
APT::Install-Recommends "false";
APT::Sandbox::User "root";
Dir::State "{self._root}";
Dir::State::lists "{self._root}/lists";
Dir::State::status "{tmp}/status";
Dir::State::extended_states "{tmp}/extended_states";
Dir::Cache "{self._root}";
Dir::Cache::archives "{self._root}/archives";
Dir::Log "{tmp}";
Dir::Etc::main "/dev/null";
Dir::Etc::parts "/dev/null";
Dir::Etc::sourcelist "{tmp}/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
"""


class AptSession:
    """The commands of a configured apt root. Made by :meth:`Apt.session`."""

    def __init__(self, root: Path, config: Path, progress: Progress) -> None:
        self._lists = root / "lists"
        self._stamp = root / "updated"
        self._config = config
        self._progress = progress

    def update(self, *, max_age: float = 0.0) -> None:
        """Fetch the package lists; a failure is a warning, old lists are kept.

        :param max_age: Do nothing when they are younger than this many seconds.
        """
        with contextlib.suppress(FileNotFoundError):
            if 0 <= time.time() - self._stamp.stat().st_mtime < max_age:
                return
        with self._progress.step("fetching Debian's package lists") as step:
            result = self._apt(["apt-get", "update"], step=step)
        problems = _problems(result.stderr)
        if problems:
            self._progress.warn(f"package lists are not up to date: {problems}")
        elif result.returncode == 0:
            self._stamp.touch()
        for suite in expired_suites(self._lists, time.time()):
            self._progress.warn(f"the package list of {suite} has expired")

    def candidates(self, names: Sequence[str], suite: str) -> list[Deb]:
        """Return packages as a suite has them now.

        :param names: Exact package names.
        :param suite: The suite to take each from.
        :raise AptError: When the suite has no such package.
        """
        wanted = [f"{name}/{suite}" for name in names]
        return self._debs(["apt-get", "download", "--print-uris", *wanted], names)

    def exact(self, names: Sequence[str], version: str) -> list[Deb]:
        """Return packages of one exact version.

        :raise AptError: When that version is in no suite any more.
        """
        wanted = [f"{name}={version}" for name in names]
        return self._debs(["apt-get", "download", "--print-uris", *wanted], names)

    def closure(self, names: Sequence[str], suite: str) -> list[Deb]:
        """Return packages with everything that they depend on.

        :param suite: Preferred for every one of them (backports need that).
        :raise AptError: When the dependencies cannot be met.
        """
        options = ["-t", suite, "--print-uris", "--yes"]
        return self._debs(["apt-get", "install", *options, *names], names)

    def depends(self, deb: Deb) -> list[str]:
        """Return the names that a package depends on, first alternatives only."""
        result = self._apt(["apt-cache", "show", f"{deb.name}={deb.version}"])
        match = re.search(r"^Depends: (.*)$", result.stdout, re.MULTILINE)
        words = match[1].split(",") if match else []
        return [re.split(r"[ :|(]", word.strip(), maxsplit=1)[0] for word in words]

    def fetch(self, debs: Sequence[Deb], folder: Path, what: str) -> list[Path]:
        """Download packages; their hashes are checked against the signed index.

        :param debs: What to download.
        :param folder: Where to; exists.
        :param what: What they are for, for a person.
        :return: The files, in no particular order.
        :raise AptError: When the download fails.
        """
        # Unpacked they take about four times as much.
        cache.require_space(folder, 5 * sum(deb.size for deb in debs))
        wanted = [f"{deb.name}={deb.version}" for deb in debs]
        with self._progress.step(f"fetching {what}") as step:
            result = self._apt(["apt-get", "download", *wanted], cwd=folder, step=step)
        if result.returncode != 0:
            problems = _problems(result.stderr) or f"apt-get exit {result.returncode}"
            self._stamp.unlink(missing_ok=True)
            raise AptError(f"cannot fetch {what}: {problems}")
        files = list(folder.glob("*.deb"))
        assert len(files) == len(debs), (files, debs)
        return files

    def _debs(self, argv: Sequence[str], names: Sequence[str]) -> list[Deb]:
        result = self._apt(argv)
        if result.returncode != 0:
            # The lists may be older than the mirror's; the next try fetches them.
            self._stamp.unlink(missing_ok=True)
            what = f"no package {', '.join(names)}: {_problems(result.stderr)}"
            raise AptError(what, hint="is a Debian mirror reachable?")
        return [parse_print_uris(line) for line in _URI_LINE.finditer(result.stdout)]

    def _apt(
        self, argv: Sequence[str], *, cwd: Path | None = None, step: Step | None = None
    ) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "APT_CONFIG": str(self._config), "LC_ALL": "C"}
        if step is None:
            return _run(argv, environment, cwd=cwd)
        return _run_with_status(argv, environment, cwd, step)


def parse_print_uris(match: re.Match[str]) -> Deb:
    """Return the package that a line of ``--print-uris`` describes.

    :param match: A match of quoted address, file name and size.
    """
    name, version, _ = match["file"].split("_", 2)
    return Deb(name, unquote(version), int(match["size"]))


def expired_suites(lists: Path, now: float) -> list[str]:
    """Return the suites whose signed index says that it is too old.

    :param lists: apt's folder of lists.
    :param now: Seconds since the epoch.
    """
    from email.utils import parsedate_to_datetime

    expired = []
    for path in sorted(lists.glob("*_InRelease")):
        head = path.read_text("utf-8", "replace")[:4096]
        until = re.search(r"^Valid-Until: (.+)$", head, re.MULTILINE)
        suite = re.search(r"^Codename: (.+)$", head, re.MULTILINE)
        try:
            when = parsedate_to_datetime(until[1]).timestamp() if until else now
        except ValueError:
            when = now
        if when < now:
            expired.append(suite[1] if suite else path.name)
    return expired


def _host_sources() -> Iterator[Source]:
    command = ["apt-config", "shell", "list", "Dir::Etc::sourcelist/f"]
    command += ["parts", "Dir::Etc::sourceparts/d"]
    where = shell_assignments(_run(command, None).stdout)
    for path in (Path(where.get("list", "")), *sorted(Path(where["parts"]).iterdir())):
        if path.suffix not in (".list", ".sources") or not path.is_file():
            continue
        text = path.read_text("utf-8", "replace")
        yield from (parse_deb822 if path.suffix == ".sources" else parse_one_line)(text)


def _problems(stderr: str) -> str:
    lines = [line[3:] for line in stderr.splitlines() if line[:3] in ("E: ", "W: ")]
    shown = "; ".join(lines[:2])
    return f"{shown}; and {len(lines) - 2} more" if len(lines) > 2 else shown


def _run(
    argv: Sequence[str], environment: dict[str, str] | None, *, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        argv,
        env=environment,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )


def _run_with_status(
    argv: Sequence[str], environment: dict[str, str], cwd: Path | None, step: Step
) -> subprocess.CompletedProcess[str]:
    # apt reports "dlstatus:1:PERCENT:text" on a descriptor of our choice.
    read_end, write_end = os.pipe()
    command = [*argv[:1], "-o", f"APT::Status-Fd={write_end}", *argv[1:]]
    with os.fdopen(read_end, encoding="utf-8", errors="replace") as status:
        process = subprocess.Popen(
            command,
            env=environment,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            pass_fds=(write_end,),
        )
        os.close(write_end)
        # Read beside: either pipe may fill up first.
        reader = threading.Thread(target=_show_status, args=(status, step))
        reader.start()
        try:
            _, stderr = process.communicate()
        except BaseException:
            process.kill()
            process.wait()
            raise
        finally:
            reader.join()
    return subprocess.CompletedProcess(command, process.returncode, "", stderr)


def _show_status(status: Iterator[str], step: Step) -> None:
    for line in status:
        fields = line.split(":", 3)
        if fields[0] == "dlstatus" and len(fields) > 2:
            with contextlib.suppress(ValueError):
                step.update(float(fields[2]), 100.0)
