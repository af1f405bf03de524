# SPDX-License-Identifier: GPL-2.0-or-later
"""The guest's OS, reached over SSH.

``guest.Guest`` is the way in. May import ``viotest.machine`` and what that may.
"""
