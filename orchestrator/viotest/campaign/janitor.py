# SPDX-License-Identifier: GPL-2.0-or-later
"""Tidies a run folder when nobody else can any more: :func:`start_janitor`."""

from __future__ import annotations

import contextlib
import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# It waits for the end of our pipe, which comes with ours, whatever ends us; the
# processes that might still make files die of the same event.
_SCRIPT = """
read -r _
for name in *; do [ ! -S "$name" ] && [ ! -p "$name" ] || rm -f -- "$name"; done
for name; do [ ! -e "$name" ] || rm -f -- "$name"; done
"""


@contextlib.contextmanager
def start_janitor(folder: Path, *files: str) -> Iterator[None]:
    """See to it that sockets, FIFOs and some files leave the folder with us.

    SIGKILL gives the orchestrator no time for that, and sockets and FIFOs exist, for
    a moment, while QEMU connects to them.

    :param folder: The run folder.
    :param files: What else is to go.
    """
    janitor = subprocess.Popen(
        ["/bin/sh", "-c", _SCRIPT, "viotest-janitor", *files],
        cwd=folder,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        # Ctrl-C is not meant for it.
        start_new_session=True,
    )
    assert janitor.stdin is not None
    try:
        yield
    finally:
        janitor.stdin.close()
        janitor.wait()
