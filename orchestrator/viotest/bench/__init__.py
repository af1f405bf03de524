# SPDX-License-Identifier: GPL-2.0-or-later
"""Benchmarks: each figure a ratio of two things measured in turns, in one run."""
