# SPDX-License-Identifier: GPL-2.0-or-later
"""What a kernel must have for each way into VFIO, and whether it has it.

The table is :data:`NEEDS`; the main class is :class:`Ways`.
"""

from __future__ import annotations

import errno
import posixpath
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from viotest.guest.probe import ProbeError
from viotest.scenario.model import Mode
from viotest.suite.judgement import CheckFailed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from viotest.guest.probe import Probe


@dataclass(frozen=True)
class Need:
    """Something in the guest that comes with an option of its kernel."""

    #: What must be there; ``{group}`` is the endpoint's IOMMU group.
    node: str
    #: Any of these brings it.
    options: tuple[str, ...]
    #: What must answer to VFIO_CHECK_EXTENSION besides.
    extension: str = ""


# iommufd can play the container, with the type1 driver in it.
_CONTAINER = Need(
    "/dev/vfio/vfio", ("CONFIG_VFIO_CONTAINER", "CONFIG_IOMMUFD_VFIO_CONTAINER")
)
_TYPE1 = Need(
    "/dev/vfio/vfio",
    ("CONFIG_VFIO_IOMMU_TYPE1", "CONFIG_IOMMUFD_VFIO_CONTAINER"),
    extension="VFIO_TYPE1v2_IOMMU",
)
_GROUP = Need("/dev/vfio/{group}", ("CONFIG_VFIO_GROUP",))
_IOMMUFD = Need("/dev/iommu", ("CONFIG_IOMMUFD",))
_CDEV = Need("/dev/vfio/devices", ("CONFIG_VFIO_DEVICE_CDEV",))

#: Needs by mode, in the order in which they are looked at.
NEEDS: Mapping[Mode, tuple[Need, ...]] = MappingProxyType(
    {
        Mode.TYPE1: (_CONTAINER, _TYPE1, _GROUP),
        Mode.TYPE1V2: (_CONTAINER, _TYPE1, _GROUP),
        Mode.IOMMUFD_COMPAT: (_IOMMUFD, _GROUP),
        Mode.IOMMUFD_GROUP: (_IOMMUFD, _GROUP),
        Mode.CDEV_IOAS: (_IOMMUFD, _CDEV),
        Mode.CDEV_HWPT: (_IOMMUFD, _CDEV),
    }
)


class Ways:
    """The ways into VFIO that the guest has, once vfio-pci holds the endpoint.

    :param probe: The guest's probe.
    :param group: The endpoint's IOMMU group.
    :param config: The kernel's options with their values; empty: unknown.
    """

    def __init__(self, probe: Probe, group: str, config: Mapping[str, str]) -> None:
        self._probe = probe
        self._group = group
        self._config = config
        self._present: dict[Need, bool] = {}

    def why_absent(self, mode: Mode) -> str:
        """Return why the kernel does not offer a mode; empty if it does.

        :raise CheckFailed: When its options say that it does, and it is not there.
        """
        for need in NEEDS[mode]:
            if need not in self._present:
                self._present[need] = self._find(need)
            if not self._present[need]:
                return self._judge(need)
        return ""

    def _find(self, need: Need) -> bool:
        folder, name = posixpath.split(need.node.format(group=self._group))
        try:
            names = self._probe.call("list", path=folder)["names"]
        except ProbeError as error:
            if error.errno != errno.ENOENT:
                raise
            return False
        assert isinstance(names, list)
        if name not in names or not need.extension:
            return name in names
        return bool(self._probe.call("extension", id=need.extension)["value"])

    def _judge(self, need: Need) -> str:
        node = need.node.format(group=self._group)
        what = f"{need.extension} in {node}" if need.extension else node
        claimed = [o for o in need.options if self._config.get(o) in ("y", "m")]
        if claimed:
            raise CheckFailed(
                f"there is no {what}, though the kernel has {claimed[0]}",
                expected=f"{what}, by {claimed[0]}={self._config[claimed[0]]}",
                seen="nothing in the guest, with vfio-pci bound to the endpoint",
                cause="its module is not among those that the guest loads, or its"
                " initialisation failed",
                step="look for the module in console.log and in dmesg of"
                " timeline.jsonl",
            )
        known = "" if self._config else " (its options are not known)"
        return f"no {what}: this kernel lacks {need.options[0]}{known}"
