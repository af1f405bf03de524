# SPDX-License-Identifier: GPL-2.0-or-later
"""A QEMU in the guest that has the endpoint, and what the endpoint does for it.

The machine in it has no CPU: we are its CPU, by qtest over SSH. Its memory is mapped
by QEMU through the guest's VFIO, so every address that it gives to the endpoint is
translated by our virtio-iommu. The main functions are :func:`start_nested` and
:func:`prove_nested`.
"""

from __future__ import annotations

import contextlib
import random
import shlex
import time
import zlib
from typing import TYPE_CHECKING

from viotest.conformance.engine import ID, Engine
from viotest.conformance.errors import TargetLostError
from viotest.conformance.pci import MmioSpace, PciFunction
from viotest.conformance.qtest import Qtest
from viotest.guest.errors import GuestError
from viotest.provision.nested import nested_start
from viotest.scenario.model import CDEV_MODES
from viotest.suite.judgement import CheckFailed, expect

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from viotest.guest.ssh import LineChannel
    from viotest.scenario.model import EndpointFunction, Mode
    from viotest.suite.context import Context

_MEMORY_MIB = 64
_MEMORY_END = _MEMORY_MIB << 20
_SLOT = 4

# Both cross pages, and are in different ones at different offsets.
_SOURCE, _TARGET = 0x1000FF0, 0x2000008
_SIZE = 3 * 4096 + 5
_MAILBOX = 0x3000000
# PAM3 of q35's host bridge: whether the first 16 KiB at 0xd0000 are memory, or what
# lies on the bus behind it, which is memory for option ROMs.
_PAM, _PAM_MEMORY, _PAM_BUS = 0x93, 0x03, 0x00
_WINDOW, _WINDOW_SIZE = 0xD0000, 4096
_GUARD = 0xA5
_GUARDS = 64
_MESSAGE = 0x4E455354

_BAR_MSIX = 4
_CAP_MSIX = 0x11
_MSIX_CONTROL = 2
_MSIX_ENABLE = 1 << 15

#: An emulated CPU has millions of relocations to do before QEMU answers at all.
_ANSWER_TIMEOUT = 120.0
_INTERRUPT_TIMEOUT = 10.0
_END_TIMEOUT = 30.0
_PID_FILE = "/run/nested.pid"
_LOG = "/run/nested.log"


class _GuestLink:
    """The way to a qtest server on the standard streams of a guest's process."""

    def __init__(self, channel: LineChannel) -> None:
        self._channel = channel

    def exchange(self, lines: Sequence[str]) -> list[str]:
        """Send lines, one after the other, and return what answers each."""
        try:
            return [self._channel.request(line, _ANSWER_TIMEOUT) for line in lines]
        except GuestError as error:
            raise ConnectionError(str(error)) from error

    def close(self) -> None:
        """Hang up."""
        self._channel.close()


def nested_argv(endpoint: EndpointFunction, mode: Mode) -> list[str]:
    """Return the command line of the guest's own QEMU.

    :param endpoint: Whom vfio-pci has, in the guest.
    :param mode: By a group and a container, or by the device's own file.
    """
    device = f"vfio-pci,host={endpoint.bdf},addr={_SLOT:x},rombar=0"
    iommufd = []
    if mode in CDEV_MODES:
        iommufd = ["-object", "iommufd,id=iommufd"]
        device += ",iommufd=iommufd"
    # fmt: off
    return [
        *nested_start(),
        "-no-user-config", "-nodefaults",
        "-display", "none",
        "-machine", "q35",
        "-accel", "qtest",
        "-m", f"{_MEMORY_MIB}M",
        "-qtest", "stdio",
        "-qtest-log", "none",
        *iommufd,
        "-device", device,
    ]
    # fmt: on


@contextlib.contextmanager
def start_nested(
    context: Context, endpoint: EndpointFunction, mode: Mode
) -> Iterator[Qtest]:
    """Run a QEMU in the guest that has the endpoint; ended with the body.

    :param context: The guest.
    :param endpoint: Whom vfio-pci has; nobody has it open.
    :param mode: How QEMU enters VFIO.
    :raise CheckFailed: When QEMU ends, or does not answer, or the endpoint does not.
    """
    command = shlex.join(nested_argv(endpoint, mode))
    # Nothing ends it when SSH does: it must be known before it says anything.
    script = f"echo $$ >{_PID_FILE}; exec {command} 2>{_LOG}"
    with context.start_lines(script) as channel:
        try:
            yield Qtest(_GuestLink(channel))
        except TargetLostError as error:
            said = context.exec(f"tail -c 2000 {_LOG}", timeout=_END_TIMEOUT)
            raise CheckFailed(
                f"the machine in the guest: {error}",
                expected="QEMU starts with the endpoint, and the endpoint answers",
                seen=said.out.decode(errors="replace").strip() or "QEMU said nothing",
                step="the guest's dmesg is in timeline.jsonl",
            ) from error
        finally:
            # It may have ended by itself.
            kill = f"kill -9 $(cat {_PID_FILE}) 2>/dev/null; true"
            context.exec(kill, timeout=_END_TIMEOUT)
            channel.wait_for_end(_END_TIMEOUT)


def prove_nested(qtest: Qtest) -> None:
    """Let the endpoint do DMA and interrupt, as a driver in the inner machine would.

    :param qtest: The inner machine.
    :raise CheckFailed: When its memory is not what it must be afterwards.
    :raise TargetLostError: When it does not answer.
    """
    function = PciFunction(qtest, _SLOT << 3)
    expect(function.id, ID, "vendor and device in the inner machine")
    function.enable(MmioSpace())
    engine = Engine(function)
    pattern = random.Random(0).randbytes(_SIZE)
    _prove_copy(qtest, engine, pattern)
    _prove_faults(qtest, engine, pattern)
    _prove_remap(qtest, engine, pattern[:_WINDOW_SIZE])
    _prove_interrupt(qtest, function, engine)


def _prove_copy(qtest: Qtest, engine: Engine, pattern: bytes) -> None:
    qtest.write(_SOURCE, pattern)
    qtest.fill(_TARGET - _GUARDS, _SIZE + 2 * _GUARDS, _GUARD)
    if not engine.copy(_SOURCE, _TARGET, _SIZE):
        address, write = engine.fault()
        raise CheckFailed(
            f"DMA in the inner machine was refused at {address:#x}",
            expected=f"{_SIZE} bytes copied from {_SOURCE:#x} to {_TARGET:#x}",
            seen=f"a fault of a {'write' if write else 'read'}",
            cause="QEMU's mapping of the inner memory did not reach the virtio-iommu",
            step="MAP requests in device.log",
        )
    _expect_target(qtest, pattern, "after a copy")
    crc = engine.checksum(_SOURCE, _SIZE)
    expect(crc, zlib.crc32(pattern), "CRC-32 by the endpoint of the inner memory")


def _prove_faults(qtest: Qtest, engine: Engine, pattern: bytes) -> None:
    end = _MEMORY_END
    outside = 2 * end
    # Source, target, size; where it is refused, and whether as a write.
    for source, target, size, address, write in (
        (_SOURCE, outside, _SIZE, outside, True),
        (outside, _TARGET, _SIZE, outside, False),
        (end - 4096, end, 4096, end, True),
        (end, _TARGET, 4096, end, False),
    ):
        what = f"a copy from {source:#x} to {target:#x}, beyond the inner memory"
        expect(engine.copy(source, target, size), False, what)
        expect(engine.fault(), (address, write), f"{what}: refused address and write")
    _expect_target(qtest, pattern, "after accesses that were refused")


# QEMU takes a mapping away, and has another for the same addresses: what a guest does
# to an IOMMU when it hands out one of its own, or its firmware shadows a ROM.
def _prove_remap(qtest: Qtest, engine: Engine, pattern: bytes) -> None:
    bridge = PciFunction(qtest, 0)
    bridge.write(_PAM, 1, _PAM_MEMORY)
    qtest.write(_WINDOW, pattern)
    for setting in (_PAM_BUS, _PAM_MEMORY):
        bridge.write(_PAM, 1, setting)
        there = qtest.read(_WINDOW, _WINDOW_SIZE)
        switched = "memory" if there == pattern else "bus"
        wanted = "memory" if setting == _PAM_MEMORY else "bus"
        expect(switched, wanted, "what is at the window of the inner host bridge")
        expect(
            engine.checksum(_WINDOW, _WINDOW_SIZE),
            zlib.crc32(there),
            f"CRC-32 by the endpoint of the window, switched to {wanted}",
            cause="an UNMAP, or the MAP after it, did not reach the virtio-iommu",
        )


def _prove_interrupt(qtest: Qtest, function: PciFunction, engine: Engine) -> None:
    (cap,) = [at for kind, at in function.capabilities() if kind == _CAP_MSIX]
    qtest.fill(_MAILBOX, 8, 0)
    # QEMU sends the message by a write of its own: a machine without a CPU can look
    # for it in memory, and has it told from a DMA write by the table it came from.
    entry = (_MAILBOX, 0, _MESSAGE, 0)
    for index, value in enumerate(entry):
        qtest.write_value(function.bars[_BAR_MSIX] + 4 * index, 4, value)
    control = function.read(cap + _MSIX_CONTROL, 2)
    function.write(cap + _MSIX_CONTROL, 2, control | _MSIX_ENABLE)
    expect(qtest.read_value(_MAILBOX, 4), 0, "the interrupt's message, too early")
    engine.trigger(0)
    deadline = time.monotonic() + _INTERRUPT_TIMEOUT
    # Each look is a round trip to the guest: no busy loop.
    while not (seen := qtest.read_value(_MAILBOX, 4)):
        if time.monotonic() > deadline:
            raise CheckFailed(
                "no MSI-X interrupt arrives in the inner machine",
                expected=f"{_MESSAGE:#x} at {_MAILBOX:#x}",
                seen=f"nothing within {_INTERRUPT_TIMEOUT:g} s",
                cause="its eventfd in the guest: the check interrupt is about it",
            )
    expect(seen, _MESSAGE, "the message of the MSI-X interrupt")


def _expect_target(qtest: Qtest, pattern: bytes, when: str) -> None:
    guard = bytes([_GUARD]) * _GUARDS
    seen = qtest.read(_TARGET - _GUARDS, _SIZE + 2 * _GUARDS)
    wanted = guard + pattern + guard
    if seen == wanted:
        return
    wrong = [i for i, (a, b) in enumerate(zip(seen, wanted, strict=True)) if a != b]
    raise CheckFailed(
        f"{len(wrong)} bytes of the inner machine's memory are wrong {when}",
        expected=f"{_SIZE} bytes from {_TARGET:#x} on, and nothing around them",
        seen=f"the first at {_TARGET - _GUARDS + wrong[0]:#x}: "
        f"{seen[wrong[0]]:#x} instead of {wanted[wrong[0]]:#x}",
        cause="an address was translated to another page, or the copy was not whole",
    )
