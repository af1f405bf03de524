# SPDX-License-Identifier: GPL-2.0-or-later
"""The checks that viotest puts to a kernel: pytest tests that ship with it.

``tests/`` at the top of the source tree is another thing: it tests viotest.
"""
