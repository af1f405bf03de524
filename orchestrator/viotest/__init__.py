# SPDX-License-Identifier: GPL-2.0-or-later
"""viotest: does VFIO passthrough behind a virtio-iommu work, and if not, why?"""

__version__ = "0.1.0"
