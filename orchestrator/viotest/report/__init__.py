# SPDX-License-Identifier: GPL-2.0-or-later
"""What a run leaves behind: the timeline, results.json, and what a person sees."""
