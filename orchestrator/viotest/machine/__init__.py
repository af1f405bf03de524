# SPDX-License-Identifier: GPL-2.0-or-later
"""QEMU, the device server, and the watch over both.

``launch.start_machine()`` is the way in; everything else is a part of it.
May import ``viotest.scenario`` and ``viotest.errors``, nothing else of viotest.
"""

import logging

# Who uses the package and wants no log is to see none. The first loggers are below.
logging.getLogger("viotest").addHandler(logging.NullHandler())
