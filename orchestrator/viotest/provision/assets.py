# SPDX-License-Identifier: GPL-2.0-or-later
"""Find the project's own files, in a checkout and in an installed wheel alike.

importlib.resources would do the same, but importing it costs as much as the whole
warm path of provisioning.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from viotest.errors import UntestableError


def guest_images() -> Path:
    """Return the folder ``guest-images``."""
    return _folder("viotest.guest_images", "guest-images")


def template(name: str) -> Path:
    """Return a file of the folder ``templates``.

    :param name: Its name.
    """
    return _folder("viotest.templates", "templates") / name


def device_headers() -> Path:
    """Return the folder of the device's public headers."""
    device = find_spec("viotest_device")
    for parent in (device and device.submodule_search_locations) or ():
        if Path(parent, "include").is_dir():
            return Path(parent, "include")
    return _folder("viotest_device.include", "device/core/include")


def _folder(package: str, checkout: str) -> Path:
    # Without an installation the checkout itself is used.
    path = Path(__file__).parents[3] / checkout
    if path.is_dir():
        return path
    spec = find_spec(package)
    for location in (spec and spec.submodule_search_locations) or ():
        return Path(location)
    raise UntestableError(f"the installation lacks {checkout}")
