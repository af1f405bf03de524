# SPDX-License-Identifier: GPL-2.0-or-later
"""Scores a virtio-iommu against the specification, row by row, without a guest.

The layers, each knowing only those before it: ``wire`` (bytes), ``lab`` (what a row
may touch), ``driver`` (requests and DMA in a row's words), ``rows``, ``score``,
``output``. Beside them ``qtest``, ``pci``, ``virtqueue``, ``virtio``, ``engine`` and
``target`` make a lab of a real QEMU. Errors: ``errors``.
"""
