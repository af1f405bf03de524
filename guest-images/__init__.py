# SPDX-License-Identifier: GPL-2.0-or-later
"""What guests are made of: the probe's source and kernel mutants."""
