# SPDX-License-Identifier: GPL-2.0-or-later
"""``viotest`` with other checks: ``python run_with_suite.py FOLDER ARGUMENTS...``.

The folder's tests have names of the catalog and do to the guest what no check does.
"""

from __future__ import annotations

import functools
import sys
from pathlib import Path
from unittest import mock

from viotest.campaign import checks
from viotest.cli.main import main

if __name__ == "__main__":
    put_checks = functools.partial(checks.put_checks, suite=Path(sys.argv[1]))
    with mock.patch.object(checks, "put_checks", put_checks):
        raise SystemExit(main(sys.argv[2:]))
