# SPDX-License-Identifier: GPL-2.0-or-later
"""What a guest asked of its virtio-iommu, kept in a file and asked again.

- :mod:`~viotest.trace.model`, :mod:`~viotest.trace.form`: a trace, and its file
- :mod:`~viotest.trace.record`: from a device's request log to a trace
- :mod:`~viotest.trace.replay`: from a trace to differences, on any target
- :mod:`~viotest.trace.target`, :mod:`~viotest.trace.ring`: the targets themselves
"""
