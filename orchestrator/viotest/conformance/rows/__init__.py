# SPDX-License-Identifier: GPL-2.0-or-later
"""The rows: what the specification asks of a virtio-iommu, :data:`ROWS`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from viotest.conformance.rows.attach import ATTACH, DETACH
from viotest.conformance.rows.faults import FAULTS
from viotest.conformance.rows.features import CONFIGURATION, FEATURES
from viotest.conformance.rows.general import OPERATION
from viotest.conformance.rows.mapping import MAP, UNMAP
from viotest.conformance.rows.probe import PROBE, RESV_MEM

if TYPE_CHECKING:
    from viotest.conformance.row import Row

_SECTIONS = (
    FEATURES,
    CONFIGURATION,
    OPERATION,
    ATTACH,
    DETACH,
    MAP,
    UNMAP,
    PROBE,
    RESV_MEM,
    FAULTS,
)

#: Every row, in the order of the specification.
ROWS: tuple[Row, ...] = tuple(row for section in _SECTIONS for row in section.rows)
