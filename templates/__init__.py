# SPDX-License-Identifier: GPL-2.0-or-later
"""Jinja templates, as package data; read them by ``importlib.resources``."""
