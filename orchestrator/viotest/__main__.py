# SPDX-License-Identifier: GPL-2.0-or-later
"""Where ``viotest`` begins: Ctrl-C ends it quietly before it has been imported, too."""

from __future__ import annotations

# Nothing that takes time to import: until main(), Ctrl-C is a traceback.
import os
import signal

#: As a shell reports a program that died of SIGINT; stops ``git bisect run``.
EXIT_INTERRUPTED = 130


# No exception: one that comes up in a callback of the import system is printed and
# lost. Nothing has been started that would have to be ended.
def _leave(*_: object) -> None:
    os._exit(EXIT_INTERRUPTED)


def main(argv: list[str] | None = None) -> int:
    """Import the command line, and run it; see :func:`viotest.cli.main.main`."""
    # Not if our parent told us to ignore it (nohup, ``&``).
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _leave)
    from viotest.cli.main import main as command

    return command(argv)


if __name__ == "__main__":
    raise SystemExit(main())
