# SPDX-License-Identifier: GPL-2.0-or-later
"""``viotest`` as the child of another: ``python -m viotest.cli.child PID ARGUMENTS``.

It dies with the process PID, which must be its parent, whatever ends that.
"""

from __future__ import annotations

import sys

from viotest.__main__ import main
from viotest.campaign.proc import die_with

if __name__ == "__main__":
    die_with(int(sys.argv[1]))
    raise SystemExit(main(sys.argv[2:]))
