# SPDX-License-Identifier: GPL-2.0-or-later
"""Build the C core as viotest_device._core; all the rest is in pyproject.toml."""

from setuptools import setup

setup(cffi_modules=["device/viotest_device/_build.py:ffibuilder"])
