# SPDX-License-Identifier: GPL-2.0-or-later
"""Where the command begins: an interrupt meets it while it is being imported."""

from __future__ import annotations

import subprocess
import sys

import pytest

from viotest import __version__

#: Sends itself SIGINT when a module is about to be imported.
PROGRAM = """
import os, signal, sys

class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == sys.argv[1]:
            os.kill(os.getpid(), signal.SIGINT)

signal.signal(signal.SIGINT, getattr(signal, sys.argv[2]))
sys.meta_path.insert(0, Interrupt())
from viotest.__main__ import main
raise SystemExit(main(["--version"]))
"""


@pytest.mark.parametrize(
    ("handler", "returncode", "stdout"),
    [
        ("default_int_handler", 130, ""),
        # What our parent wants to be ignored (nohup) is.
        ("SIG_IGN", 0, f"{__version__}\n"),
    ],
)
@pytest.mark.parametrize("module", ["viotest.cli.main", "viotest.scenario.options"])
def test_interrupt_while_importing_is_quiet(
    module: str, handler: str, returncode: int, stdout: str
) -> None:
    argv = [sys.executable, "-c", PROGRAM, module, handler]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (returncode, stdout, "")
