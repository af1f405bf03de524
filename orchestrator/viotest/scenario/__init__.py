# SPDX-License-Identifier: GPL-2.0-or-later
"""What a run is, as values: no I/O, no processes."""
