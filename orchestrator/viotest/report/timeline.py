# SPDX-License-Identifier: GPL-2.0-or-later
"""Everything that happened in a run, on one clock.

A :class:`Timeline` is fed from any thread and writes each event to
``timeline.jsonl`` at once, so that a killed run leaves what it saw. At the end of a
run :meth:`Timeline.finish` merges in what arrives late (the device's request log,
the guest's dmesg) and puts the file in the order of CLOCK_MONOTONIC.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from viotest.errors import UntestableError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path


@dataclass(frozen=True, order=True)
class Event:
    """One thing that happened."""

    #: Host CLOCK_MONOTONIC, nanoseconds.
    ns: int
    #: ``run``, ``qemu``, ``device``, ``console``, ``dmesg``, ``guest``, ``check``.
    source: str
    event: str
    data: Mapping[str, object] = field(compare=False, default_factory=dict)
    #: The worker that it happened in; empty for the run itself.
    worker: str = ""

    def to_json(self) -> str:
        """Return one line of ``timeline.jsonl``, without the newline."""
        row = {"ns": self.ns, "source": self.source, "event": self.event}
        worker = {"worker": self.worker} if self.worker else {}
        return json.dumps(row | worker | {"data": dict(self.data)}, ensure_ascii=True)


def read_events(path: Path) -> Iterator[Event]:
    """Yield the events of a ``timeline.jsonl``, in the order of the file.

    Whoever wrote it may have been killed: nothing is there then, or the last line is
    not whole.

    :param path: The file.
    """
    try:
        text = path.read_text()
    except OSError:
        return
    for line in text.splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            return
        worker = row.get("worker", "")
        yield Event(row["ns"], row["source"], row["event"], row["data"], worker)


class Timeline:
    """Collects events; thread-safe.

    :param path: ``timeline.jsonl``, created with mode 0600.
    :param show: Called with every event as it happens, from the thread that tells it.
    :param worker: Whose timeline it is; empty: the run's.
    """

    def __init__(
        self,
        path: Path,
        *,
        show: Callable[[Event], None] | None = None,
        worker: str = "",
    ) -> None:
        self._path = path
        self._show = show
        self._worker = worker
        self._lock = threading.Lock()
        self._events: list[Event] = []
        self._file = os.fdopen(
            os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600),
            "w",
        )

    def record(
        self, source: str, event: str, data: Mapping[str, object], ns: int
    ) -> None:
        """Add an event.

        :param source: Who says so.
        :param event: What happened, a short name.
        :param data: JSON-serialisable details.
        :param ns: When, CLOCK_MONOTONIC nanoseconds; 0 for now.
        """
        entry = Event(ns or time.monotonic_ns(), source, event, data, self._worker)
        with self._lock:
            self._events.append(entry)
            self._append(entry)
            if self._show is not None:
                self._show(entry)

    def _append(self, entry: Event) -> None:
        if self._file.closed:
            return
        try:
            self._file.write(entry.to_json() + "\n")
            self._file.flush()
        except OSError:
            # A full disk must not end the thread that tells of an event: it may be
            # the one that drains the guest's console. finish() says what is wrong.
            self._drop_file()

    def _drop_file(self) -> None:
        with contextlib.suppress(OSError):  # its buffer still cannot be written
            self._file.close()

    def mark(self, event: str, **data: object) -> int:
        """Add an event of the run itself, now; return its time in nanoseconds."""
        ns = time.monotonic_ns()
        self.record("run", event, data, ns)
        return ns

    def events(self) -> list[Event]:
        """Return what has happened so far, in order of time."""
        with self._lock:
            return sorted(self._events)

    def merge(self, events: Iterable[Event]) -> None:
        """Add what others have kept, such as the workers of a run."""
        with self._lock:
            self._events.extend(events)

    def finish(self, late: Iterable[Event] = ()) -> None:
        """Merge late events, write the file in order of time, and close it.

        Events that are recorded afterwards are kept in memory only.

        :param late: What sources kept for themselves. It is complete, so it takes
            the place of what the same sources told while it happened.
        :raise UntestableError: When the file cannot be written.
        """
        late = list(late)
        if self._worker:
            late = [dataclasses.replace(e, worker=self._worker) for e in late]
        complete = {event.source for event in late}
        with self._lock:
            self._drop_file()
            self._events = [e for e in self._events if e.source not in complete]
            self._events.extend(late)
            self._events.sort()
            self._write()

    def _write(self) -> None:
        partial = self._path.with_suffix(".partial")
        try:
            with partial.open("w") as out:
                partial.chmod(0o600)
                out.writelines(entry.to_json() + "\n" for entry in self._events)
            partial.replace(self._path)
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise UntestableError(
                f"cannot write {self._path}: {error.strerror}"
            ) from error
