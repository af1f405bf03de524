# SPDX-License-Identifier: GPL-2.0-or-later
"""The core's headers, as package data: the guest's probe is built against them."""
