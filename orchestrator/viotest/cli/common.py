# SPDX-License-Identifier: GPL-2.0-or-later
"""What several commands check before they start anything."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from viotest.errors import UntestableError, UsageError
from viotest.scenario.options import check_choice

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Instead of a file's name.
STDOUT = "-"


def check_mutants(mutants: Sequence[str]) -> None:
    """Refuse a device mutant that there is not.

    :raise UsageError: When there is no such mutant.
    :raise UntestableError: When the device cannot be asked.
    """
    # The names live in the device, and only there.
    if not mutants:
        return
    from viotest.campaign.plan import device_command

    command = [*device_command(), "mutants"]
    listed = subprocess.run(command, capture_output=True, text=True, check=False)
    if listed.returncode:
        raise UntestableError(f"viotest-device mutants: {listed.stderr.strip()}")
    known = [line.split()[0] for line in listed.stdout.splitlines() if line.strip()]
    for name in mutants:
        check_choice("--device-mutant", name, known)


def check_writable(name: str | None) -> None:
    """Refuse a file that could not be written: a result that cannot be kept is lost.

    :param name: None, or :data:`STDOUT`, is fine.
    :raise UsageError: When it could not.
    """
    if name is None or name == STDOUT:
        return
    path = Path(name)
    if path.is_dir() or not path.parent.is_dir():
        raise UsageError(f"{name}: is no file that could be written")
