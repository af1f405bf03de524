# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel's own drivers on our endpoints, by the DMA API; then VFIO on the same.

``--endpoint nvme``, ``--endpoint ioat`` (or ``--endpoint standard``); with
``--iommu qemu`` also QEMU's own devices, ``--endpoint qemu-nvme`` and so on.
"""

from __future__ import annotations

import contextlib
import hashlib
from typing import TYPE_CHECKING

import pytest

from viotest.guest.probe import ProbeError
from viotest.scenario.model import EndpointModel
from viotest.scenario.topology import parse_bdf
from viotest.suite import lifetime, steps
from viotest.suite.binding import bind, bind_refused, ensure_bound
from viotest.suite.edu import expect_edu_fault, prove_edu
from viotest.suite.judgement import expect, refused
from viotest.suite.native import NativeDriver, Shell, run_dmatest
from viotest.suite.native_vfio import (
    CHANERR_READ_DATA,
    CHANERR_WRITE_DATA,
    Ioat,
    igb_registers,
    nvme_identify,
)
from viotest.suite.observe import DeviceWatch
from viotest.suite.passthrough import PAGE, Passthrough

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from viotest.guest.probe import Probe
    from viotest.report.device_log import DeviceLog
    from viotest.scenario.model import EndpointFunction, Mode, Topology
    from viotest.suite.context import Context

_MIB = 1 << 20
_FILE_SIZE = 2 * _MIB
#: The filesystem; smaller than the image, since every byte of it is compared.
_FILESYSTEM_SIZE = 8 * _MIB
_ITERATIONS = 40
# DMA_STATUS_OK of dma_engine.h.
_DMA_OK = 2


def _require(topology: Topology, *models: EndpointModel) -> EndpointFunction:
    for endpoint in topology.endpoints:
        if endpoint.spec.model in models:
            return endpoint
    wanted = " or ".join(f"--endpoint {model}" for model in models)
    pytest.skip(f"no such endpoint: {wanted}")


@pytest.fixture
def nvme(topology: Topology) -> EndpointFunction:
    """The NVMe endpoint, ours or QEMU's; skips the check if there is none."""
    return _require(topology, EndpointModel.NVME, EndpointModel.QEMU_NVME)


@pytest.fixture
def ioat(topology: Topology) -> EndpointFunction:
    """The I/OAT endpoint; skips the check if there is none."""
    return _require(topology, EndpointModel.IOAT)


@pytest.fixture
def shell(viotest_context: Context, probe: Probe) -> Shell:
    """A shell in the guest, which is up."""
    assert probe is viotest_context.probe()
    return Shell(viotest_context)


@contextlib.contextmanager
def _bound(driver: NativeDriver, option: str) -> Iterator[None]:
    if not driver.available():
        pytest.skip(f"this kernel has no driver {driver.name} ({option})")
    driver.bind()
    try:
        yield
    finally:
        driver.unbind()


@contextlib.contextmanager
def _passthrough(
    probe: Probe, endpoint: EndpointFunction, mode: Mode
) -> Iterator[Passthrough]:
    binding = bind(probe, endpoint, traced=False)
    if binding.error is not None:
        raise bind_refused(binding.error, binding.group, "bind")
    # Beside the dma engine, which another check may have left open.
    pt = Passthrough(probe, endpoint, mode, device="native")
    try:
        pt.open()
        try:
            yield pt
        finally:
            pt.close()
    except ProbeError as error:
        raise refused(error, f"passthrough of {endpoint.spec}") from error
    finally:
        probe.call("unbind", bdf=endpoint.bdf)


def _expect_translated(watch: DeviceWatch | None, endpoint: EndpointFunction) -> None:
    # Data that came to the right place by no mapping would be no test of the IOMMU.
    if watch is None:
        return
    for kind in ("map", "unmap"):
        expect(bool(watch.records(kind)), True, f"{kind.upper()} requests meanwhile")
    _, own = parse_bdf(endpoint.bdf)
    moved = [r for r in watch.records("dma") if r.endpoint == own]
    expect(bool(moved), True, f"DMA by endpoint {own:#x} in the device's log")
    bad = [r for r in moved if r.status != _DMA_OK]
    expect(len(bad), 0, f"transactions of {len(moved)} that did not end well")


def _host_digest(image: Path, size: int, *, offset: int = 0) -> str:
    with image.open("rb") as file:
        file.seek(offset)
        return hashlib.sha256(file.read(size)).hexdigest()


def _raw_blocks(shell: Shell, disk: str, image: Path) -> None:
    # At an odd place, in odd pieces: requests that no page holds alone.
    piece = 65536 + 512
    offset = 54 * piece
    command = (
        f"dd if=/dev/urandom of=/tmp/raw bs=1M count={_FILE_SIZE // _MIB} 2>/dev/null"
        f" && dd if=/tmp/raw of={disk} bs={piece} seek=54 conv=fsync"
        " 2>/dev/null && sha256sum /tmp/raw"
    )
    written = shell.run(command, timeout=60).split()[0]
    expect(
        _host_digest(image, _FILE_SIZE, offset=offset),
        written,
        "SHA-256 of the blocks in the host's file, against the guest's data",
        cause="DMA read other memory than the driver had mapped",
    )


def _filesystem(shell: Shell, disk: str, image: Path) -> None:
    blocks = _FILESYSTEM_SIZE // 1024
    written = shell.run(
        f"mke2fs {disk} {blocks} >/dev/null && mkdir -p /tmp/fs"
        f" && mount -t ext4 {disk} /tmp/fs && cp /tmp/raw /tmp/fs/file"
        f" && umount /tmp/fs && sha256sum /tmp/raw",
        timeout=60,
    )
    # Nothing of it in the guest's memory any more: all is read by DMA.
    again = shell.run(
        "echo 3 >/proc/sys/vm/drop_caches"
        f" && dd if={disk} bs=1M count={_FILESYSTEM_SIZE // _MIB} 2>/dev/null"
        " | sha256sum"
        f" && mount -t ext4 -o ro {disk} /tmp/fs && sha256sum /tmp/fs/file"
        " && umount /tmp/fs && rm /tmp/raw",
        timeout=60,
    )
    whole, _, file = again.split()[:3]
    expect(file, written.split()[0], "SHA-256 of a file, written and read again")
    expect(
        whole,
        _host_digest(image, _FILESYSTEM_SIZE),
        "SHA-256 of the filesystem as the guest reads it, against the host's file",
        cause="DMA wrote to other memory than the driver had mapped",
    )


def test_nvme_image(
    viotest_context: Context,
    shell: Shell,
    nvme: EndpointFunction,
    iommu_log: DeviceLog | None,
) -> None:
    image = viotest_context.image(nvme)
    assert image is not None
    watch = DeviceWatch(iommu_log) if iommu_log is not None else None
    driver = NativeDriver(viotest_context, nvme, "nvme", "nvme")
    with _bound(driver, "CONFIG_BLK_DEV_NVME"):
        (disk,) = driver.wait_for("nvme/nvme*/nvme*n1")
        _raw_blocks(shell, f"/dev/{disk}", image)
        _filesystem(shell, f"/dev/{disk}", image)
    _expect_translated(watch, nvme)


def test_nvme_passthrough(probe: Probe, nvme: EndpointFunction, offered: Mode) -> None:
    with (
        _passthrough(probe, nvme, offered) as pt,
        steps.mapped(pt, "queues", 3 * PAGE, flags="rw", byte=0) as iova,
    ):
        name = "QEMU NVMe Ctrl" if nvme.spec.model.is_qemus else "viotest NVMe"
        expect(nvme_identify(pt, "queues", iova), name, "model's name")


def test_edu_passthrough(probe: Probe, topology: Topology, offered: Mode) -> None:
    edu = _require(topology, EndpointModel.QEMU_EDU)
    with _passthrough(probe, edu, offered) as pt:
        prove_edu(pt)
        # What it may not write stays, and the guest is told where that was.
        expect_edu_fault(pt)
        prove_edu(pt)


def test_igb_passthrough(probe: Probe, topology: Topology, offered: Mode) -> None:
    igb = _require(topology, EndpointModel.QEMU_IGB)
    with _passthrough(probe, igb, offered) as pt:
        igb_registers(pt)


def test_ioat_dmatest(
    viotest_context: Context,
    shell: Shell,
    ioat: EndpointFunction,
    iommu_log: DeviceLog | None,
) -> None:
    watch = DeviceWatch(iommu_log) if iommu_log is not None else None
    driver = NativeDriver(viotest_context, ioat, "ioatdma", "ioatdma")
    with _bound(driver, "CONFIG_INTEL_IOATDMA"):
        channels = driver.wait_for("dma/dma*chan*")
        if not shell.has_module("dmatest"):
            pytest.skip("this kernel has no dmatest (CONFIG_DMATEST)")
        try:
            summaries = run_dmatest(shell, channels, iterations=_ITERATIONS)
        finally:
            # It holds the channels, which the driver cannot give back before.
            shell.run("rmmod dmatest")
    expect(len(summaries), len(channels), "summaries of dmatest, one for each channel")
    for summary in summaries:
        expect(summary.tests, _ITERATIONS, f"tests of {summary.thread}")
        expect(
            summary.failures,
            0,
            f"failures of {summary.thread}",
            cause="copied bytes differ, or a completion never came; see dmesg",
        )
    _expect_translated(watch, ioat)


def test_ioat_passthrough(probe: Probe, ioat: EndpointFunction, offered: Mode) -> None:
    with (
        _passthrough(probe, ioat, offered) as pt,
        steps.mapped(pt, "ring", PAGE, flags="rw", byte=0) as ring,
        steps.mapped(pt, "source", 64 * 1024, flags="rw", byte=0) as source,
        steps.mapped(pt, "target", 64 * 1024, flags="rw", byte=0) as target,
    ):
        channel = Ioat(pt, "ring", ring)
        channel.reset()
        pt.fill("source", 7)
        pt.probe.call("irq-enable", index="msix")
        expect(channel.copy(source, target, 64 * 1024), 0, "CHANERR after a copy")
        pt.expect_equal("source", "target", 64 * 1024)
        pt.expect_irq(0)
        _refused_copies(pt, channel, source, target)


def _refused_copies(pt: Passthrough, channel: Ioat, source: int, target: int) -> None:
    nowhere = pt.fresh_iova(PAGE)
    channel.reset()
    error = channel.copy(nowhere, target, 64)
    expect(error, CHANERR_READ_DATA, "CHANERR after a read of what is not mapped")
    channel.reset()
    error = channel.copy(source, nowhere, 64)
    expect(error, CHANERR_WRITE_DATA, "CHANERR after a write to what is not mapped")
    channel.reset()
    pt.fill("source", 8)
    expect(channel.copy(source, target, 4096), 0, "CHANERR of a copy after both")
    pt.expect_equal("source", "target", 4096)


# The driver of each model, and what it makes of an endpoint.
_DRIVERS = {
    EndpointModel.NVME: ("nvme", "nvme/nvme*/nvme*n1"),
    EndpointModel.QEMU_NVME: ("nvme", "nvme/nvme*/nvme*n1"),
    EndpointModel.IOAT: ("ioatdma", "dma/dma*chan*"),
}


def test_rebind_native(viotest_context: Context, topology: Topology) -> None:
    drivers = [
        (NativeDriver(viotest_context, one, name, name), pattern)
        for one in topology.endpoints
        if one.spec.model in _DRIVERS
        for name, pattern in (_DRIVERS[one.spec.model],)
    ]
    found = [pair for pair in drivers if pair[0].available()]
    if not found:
        pytest.skip(
            "needs an endpoint that the kernel has a driver for: --endpoint nvme,"
            " --endpoint ioat, or --endpoint standard"
        )
    for driver, pattern in found:
        ensure_bound(viotest_context.probe(), driver.endpoint)
        lifetime.rebind_often(viotest_context, driver.endpoint, driver.name)
        driver.bind()
        driver.wait_for(pattern)
        driver.unbind()
