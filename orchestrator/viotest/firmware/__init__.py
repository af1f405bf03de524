# SPDX-License-Identifier: GPL-2.0-or-later
"""Tables that tell the guest which endpoints a virtio-iommu translates."""
