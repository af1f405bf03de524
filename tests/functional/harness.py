# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs ``viotest`` as its users do, and looks at what it leaves: :class:`Viotest`."""

from __future__ import annotations

import json
import os
import re
import signal
import stat
import subprocess
import sys
import threading
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from viotest.provision.cache import cache_root

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

#: In the environment of every process of a test: whose it is.
MARKER = "TEST_OF_VIOTEST"

#: Longer than any run under emulation on a busy host.
RUN_TIMEOUT = 180.0
#: What the kernel and the watch of each process may need to end an orphan.
GONE_TIMEOUT = 5.0

#: The folders of a run's workers and of guests that took another's place.
GUEST_FOLDER = re.compile(r"(worker-gw\d+)?/?(guest-\d+)?")
#: Every file that the folder of a run or of a guest may hold.
RUN_FILES = frozenset(
    {
        "argv.txt",
        "console.log",
        "device.bin",
        "device.log",
        "device.toml",
        "junit.xml",
        "pytest.log",
        "qemu.log",
        "results.json",
        "scenario.json",
        "timeline.jsonl",
        "viot.bin",
    }
)

_COMMAND = Path(sys.executable).parent / "viotest"
_POLL = 0.01


@dataclass(frozen=True)
class Finished:
    """A run that has ended."""

    returncode: int
    stdout: str
    stderr: str
    #: The run folder; need not exist.
    out: Path

    @property
    def lines(self) -> list[str]:
        """The lines of stdout."""
        return self.stdout.splitlines()

    @property
    def results(self) -> dict[str, Any]:
        """The value of ``results.json``."""
        value = json.loads((self.out / "results.json").read_text())
        assert isinstance(value, dict)
        return value

    @property
    def timeline(self) -> list[dict[str, Any]]:
        """The events of ``timeline.jsonl``."""
        text = (self.out / "timeline.jsonl").read_text()
        return [json.loads(line) for line in text.splitlines()]

    def events(self, source: str, event: str) -> list[dict[str, Any]]:
        """Return the events of the timeline with this source and name."""
        wanted = (source, event)
        return [e for e in self.timeline if (e["source"], e["event"]) == wanted]

    def qemu_argv(self) -> str:
        """Return the line of ``argv.txt`` that starts QEMU."""
        [line] = [
            line
            for line in (self.out / "argv.txt").read_text().splitlines()
            if "-nodefaults" in line
        ]
        return line

    def expect(self, verdict: str, returncode: int) -> dict[str, Any]:
        """Fail unless the run ended so; return its results."""
        said = f"{self.stdout}\n{self.stderr}"
        assert self.returncode == returncode, said
        assert self.results["verdict"] == verdict, said
        return self.results


class Run:
    """A ``viotest`` process that goes on while the test does something to it.

    :param popen: The process, stdout piped.
    :param out: The run folder.
    :param errors: The file that takes stderr.
    """

    def __init__(self, popen: subprocess.Popen[str], out: Path, errors: Path) -> None:
        self.popen = popen
        self.out = out
        self._errors = errors
        self._lines: list[str] = []
        self._changed = threading.Condition()
        self._ended = False
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.popen.stdout is not None
        for line in self.popen.stdout:
            with self._changed:
                self._lines.append(line)
                self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def wait_for_line(self, pattern: str, timeout: float = RUN_TIMEOUT) -> str:
        """Return the first line of stdout that matches, as soon as it is there."""

        def found() -> list[str]:
            return [line for line in self._lines if re.search(pattern, line)]

        with self._changed:
            self._changed.wait_for(lambda: found() or self._ended, timeout)
            matches = found()
            said = "".join(self._lines) + self._errors.read_text()
            assert matches, f"no line matches {pattern!r} in:\n{said}"
            return matches[0]

    def child(self, name: str) -> int:
        """Return the process id of ``qemu`` or ``device``, which must be there."""
        return wait_for(lambda: self._find_child(name), f"the process of {name}")

    def _find_child(self, name: str) -> int | None:
        word = {"qemu": b"-nodefaults", "device": b"serve"}[name]
        found = (pid for pid in children(self.popen.pid) if word in words(pid))
        return next(found, None)

    def finish(self, timeout: float = RUN_TIMEOUT) -> Finished:
        """Wait for its end."""
        self.popen.wait(timeout)
        self._reader.join(timeout)
        return Finished(
            self.popen.returncode,
            "".join(self._lines),
            self._errors.read_text(),
            self.out,
        )


class Viotest:
    """Starts ``viotest run`` in a folder of the test's own.

    :param folder: An empty folder; run folders are kept in it for a look afterwards.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._id = uuid.uuid4().hex
        self._tmp = folder / "tmp"
        self._tmp.mkdir()
        self._outs: list[Path] = []
        #: The command itself.
        self.command = _COMMAND
        self.env = {k: v for k, v in os.environ.items() if not _is_option(k)}
        self.env |= {MARKER: self._id, "TMPDIR": os.fspath(self._tmp)}

    def start(
        self,
        *args: str,
        out: Path | None = None,
        accel: str = "tcg",
        command: Sequence[str] = (os.fspath(_COMMAND),),
        env: dict[str, str] | None = None,
        default_out: bool = False,
    ) -> Run:
        """Start ``viotest run`` and return at once.

        :param args: Its arguments.
        :param out: Its run folder; default: a new one.
        :param accel: Its accelerator; empty: what it takes by itself.
        :param command: What to start instead of ``viotest``.
        :param env: More environment variables.
        :param default_out: Let it choose its run folder.
        """
        out = out or self.folder / f"run{len(self._outs)}"
        self._outs.append(out)
        errors = self.folder / f"stderr{len(self._outs)}"
        chosen = ["--accel", accel] if accel else []
        where = [] if default_out else ["--out", os.fspath(out)]
        argv = [*command, "run", *where, *chosen, *args]
        with errors.open("w") as stderr:
            popen = subprocess.Popen(
                argv,
                cwd=self.folder,
                env=self.env | (env or {}),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                # A process group of its own, for Ctrl-C.
                start_new_session=True,
            )
        return Run(popen, out, errors)

    def run(self, *args: str, **kwargs: Any) -> Finished:
        """Run ``viotest run`` to its end; parameters as :meth:`start`."""
        return self.start(*args, **kwargs).finish()

    def private_cache(self) -> dict[str, str]:
        """Return the environment of a cache for what only this test makes.

        What is large and never changes is shared with the real one.
        """
        own = self.folder / "cache"
        own.mkdir()
        for kind in ("qemu", "userland", "probe"):
            (own / kind).symlink_to(cache_root() / kind)
        return {"VIOTEST_CACHE": os.fspath(own)}

    def processes(self) -> list[int]:
        """Return every process of this test that is alive."""
        mark = f"{MARKER}={self._id}".encode()
        return [pid for pid in _pids() if mark in _environ(pid) and _alive(pid)]

    def expect_gone(self, timeout: float = GONE_TIMEOUT) -> None:
        """Fail unless every process of this test ends in time; then end the rest."""
        deadline = time.monotonic() + timeout
        while (left := self.processes()) and time.monotonic() < deadline:
            time.sleep(_POLL)  # the end of someone else's child is no event
        what = [b" ".join(words(pid))[:200] for pid in left]
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        assert not left, f"still running: {what}"

    def expect_nothing_left(self) -> None:
        """Fail if a process, a socket or a temporary file of this test is left."""
        self.expect_gone()
        left = [p for p in self.folder.rglob("*") if stat.S_ISSOCK(p.lstat().st_mode)]
        bound = Path("/proc/net/unix").read_text()
        assert not left, f"sockets: {left}"
        assert os.fspath(self.folder) not in bound
        left = list(self._tmp.iterdir())
        assert not left, f"temporary files: {left}"
        for out in self._outs:
            for path in out.rglob("*"):
                inner = os.fspath(path.relative_to(out))
                folder = GUEST_FOLDER.fullmatch(inner) and path.is_dir()
                known = path.name in RUN_FILES and path.is_file()
                assert folder or known, f"in {out}: {inner}"


def wait_for(look: Callable[[], int | None], what: str, timeout: float = 30.0) -> int:
    """Look until there is something to be seen.

    For what tells nobody when it happens: a process of another process.
    """
    deadline = time.monotonic() + timeout
    while (seen := look()) is None:
        assert time.monotonic() < deadline, f"no {what} within {timeout} s"
        time.sleep(_POLL)
    return seen


def _is_option(name: str) -> bool:
    return name.startswith("VIOTEST_") and name != "VIOTEST_CACHE"


def _pids() -> Iterator[int]:
    for path in Path("/proc").iterdir():
        if path.name.isdigit():
            yield int(path.name)


def _read(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""  # gone, or another user's


def _environ(pid: int) -> list[bytes]:
    return _read(pid, "environ").split(b"\0")


def words(pid: int) -> list[bytes]:
    """Return the argv of a process; empty when it is gone."""
    return _read(pid, "cmdline").split(b"\0")


def _stat(pid: int) -> list[bytes]:
    return _read(pid, "stat").rpartition(b")")[2].split()


def children(parent: int) -> list[int]:
    """Return the process ids of a process's children."""
    return [pid for pid in _pids() if _stat(pid)[1:2] == [str(parent).encode()]]


def _alive(pid: int) -> bool:
    fields = _stat(pid)
    return bool(fields) and fields[0] not in (b"Z", b"X")
