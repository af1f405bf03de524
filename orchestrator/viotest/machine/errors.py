# SPDX-License-Identifier: GPL-2.0-or-later
"""The errors of this package.

Tree::

    UntestableError
     └── MachineError
          ├── LaunchError              a process did not come up
          ├── MonitorError             a monitor refused, or fell silent
          └── AbnormalShutdownError    a process had to be killed
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from viotest.errors import UntestableError

if TYPE_CHECKING:
    from collections.abc import Sequence


class MachineError(UntestableError):
    """A process that this package owns, or its monitor, failed."""


class LaunchError(MachineError):
    """A process did not come up.

    :param what: One line: which process, and how it ended.
    :param argv: How it was started.
    :param status: How it ended, in words.
    :param output: The end of what it printed; may be empty.
    """

    def __init__(
        self, what: str, *, argv: Sequence[str], status: str, output: str
    ) -> None:
        last = output.strip().rpartition("\n")[2]
        super().__init__(f"{what}: {last}" if last else what)
        #: How the process was started.
        self.argv = tuple(argv)
        #: How it ended, in words.
        self.status = status
        #: The end of what it printed.
        self.output = output


class MonitorError(MachineError):
    """A monitor could not be reached, refused a command, or fell silent.

    :param what: One line: the monitor, the command and the reason.
    :param command: The command; empty while connecting.
    :param error_class: QMP's error class when the peer refused, else empty.
    """

    def __init__(self, what: str, *, command: str = "", error_class: str = "") -> None:
        super().__init__(what)
        #: The command; empty while connecting.
        self.command = command
        #: ``GenericError`` and the like when the peer refused; else empty.
        self.error_class = error_class


class AbnormalShutdownError(MachineError):
    """A process did not end when asked to, and was killed."""
