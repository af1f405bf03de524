# SPDX-License-Identifier: GPL-2.0-or-later
"""A virtio-iommu, and endpoints behind it, served to QEMU over vfio-user.

The C core does messages, rings, translation and DMA; this package configures it,
watches it, and answers the monitor. It never imports viotest.
"""

import logging

logging.getLogger(__name__).addHandler(logging.NullHandler())
