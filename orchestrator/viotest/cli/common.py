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


def check_mutants(mutants: Sequence[str], *, elsewhere: str | None = None) -> None:
    """Refuse a device mutant that there is not, or that would change nothing.

    :param elsewhere: The option by which the virtio-iommu is not ours, if it is not.
    :raise UsageError: When there is no such mutant, or it is one of our virtio-iommu's.
    :raise UntestableError: When the device cannot be asked.
    """
    # The names live in the device, and only there.
    if not mutants:
        return
    known = _list_mutants()
    for name in mutants:
        check_choice("--device-mutant", name, known)
    if elsewhere is None:
        return
    of_endpoints = _list_mutants("--of-endpoints")
    for name in mutants:
        if name not in of_endpoints:
            raise UsageError(
                f"--device-mutant {name}: a defect of our virtio-iommu, and with"
                f" {elsewhere} there is none",
                hint=f"with {elsewhere}: {', '.join(of_endpoints)}",
            )


def _list_mutants(*options: str) -> list[str]:
    from viotest.campaign.plan import device_command

    command = [*device_command(), "mutants", *options]
    listed = subprocess.run(command, capture_output=True, text=True, check=False)
    if listed.returncode:
        raise UntestableError(f"viotest-device mutants: {listed.stderr.strip()}")
    return [line.split()[0] for line in listed.stdout.splitlines() if line.strip()]


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
