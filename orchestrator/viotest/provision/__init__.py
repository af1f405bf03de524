# SPDX-License-Identifier: GPL-2.0-or-later
"""QEMU, kernels and guest images: made or fetched once, then served from a cache.

Every ``provide_*`` function returns at once when the cache can answer, needs no
network then, and may be called by many processes at the same time.
"""
