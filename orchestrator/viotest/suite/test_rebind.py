# SPDX-License-Identifier: GPL-2.0-or-later
"""Taken from vfio-pci and given back: everything must work a second time.

Last on purpose: the other checks share the first binding.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from viotest.guest.probe import ProbeError
from viotest.suite import steps
from viotest.suite.binding import VFIO_DRIVER, bind, bind_refused
from viotest.suite.judgement import expect, refused

if TYPE_CHECKING:
    from viotest.guest.probe import Probe
    from viotest.scenario.model import EndpointFunction, Mode
    from viotest.suite.conftest import Opener
    from viotest.suite.steps import FaultReasons


def test_rebind(
    probe: Probe,
    opener: Opener,
    endpoint: EndpointFunction,
    offered: Mode,
    fault_reasons: FaultReasons,
) -> None:
    opener.close()
    probe.call("unbind", bdf=endpoint.bdf)
    names = probe.call("list", path=f"/sys/bus/pci/devices/{endpoint.bdf}")["names"]
    assert isinstance(names, list)
    expect("driver" in names, False, "a driver holds the unbound endpoint")
    again = bind(probe, endpoint, traced=False)
    if again.error is not None:
        raise bind_refused(again.error, again.group, "second bind")
    expect(again.driver, VFIO_DRIVER, "driver after the second bind")
    try:
        steps.everything(opener.open(offered), fault_reasons)
    except ProbeError as error:
        raise refused(error, "passthrough after the second bind") from error
