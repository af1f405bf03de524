# SPDX-License-Identifier: GPL-2.0-or-later
"""Command lines and the device's configuration: pure functions of a scenario.

Every path that a process shares with us is relative: the processes run with the
run folder as working directory.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from viotest.errors import UsageError
from viotest.machine import names
from viotest.machine.arch import Arch, require_arch
from viotest.scenario.model import Accel, EndpointModel, Place
from viotest.scenario.topology import id_only_endpoints, parse_bdf

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from viotest.scenario.model import EndpointFunction, Function, Scenario, Topology

# QEMU gives a reply this long, then drops the device for good. The watch over
# the device finds a dead one much sooner, and a slow host is not a dead device.
_MSG_TIMEOUT_MS = 30_000


def qemu_argv(
    scenario: Scenario,
    topology: Topology,
    *,
    qemu: Sequence[str],
    kernel: str,
    initrd: str,
    accel: Accel,
    viot: str | None,
    cmdline: str,
) -> list[str]:
    """Return QEMU's command line.

    :param scenario: What to build.
    :param topology: Where its functions sit.
    :param qemu: How QEMU is started: its path, or a loader and its options.
    :param kernel: The path of the image to boot.
    :param initrd: The path of the initramfs.
    :param accel: The accelerator; not ``auto``.
    :param viot: The file name of the VIOT table; None when QEMU makes its own.
    :param cmdline: The kernel command line.
    :raise UsageError: When the scenario needs what no argv can express.
    """
    arch = require_arch(scenario.arch)
    return [
        *qemu,
        *_base_args(),
        *_machine_args(scenario, arch, accel),
        *_kernel_args(kernel, initrd, cmdline, viot),
        *_monitor_args(),
        *_console_args(),
        *_arch_device_args(arch),
        *_bridge_args(topology, arch),
        *_iommu_args(topology, arch),
        *_endpoint_args(topology, arch),
        *_net_args(topology, arch),
        *scenario.qemu_args,
    ]


def kernel_cmdline(scenario: Scenario, arch: Arch) -> str:
    """Return the guest's kernel command line."""
    return " ".join(
        (
            f"console={arch.console}",
            # An oops leaves a guest that half works. Make it a panic, and a panic
            # the end of QEMU, so that neither is ever taken for a timeout.
            "oops=panic",
            "panic=-1",
            # Lazy flushing would let DMA through for 10 ms after an unmap.
            "iommu.strict=1",
            *arch.kernel_args,
            *scenario.append,
        )
    )


def device_argv(device: Sequence[str], *, parent_pid: int) -> list[str]:
    """Return the device server's command line.

    :param device: How ``viotest-device`` is started.
    :param parent_pid: The process that it must not outlive.
    """
    return [*device, "serve", names.DEVICE_CONFIG, "--parent-pid", str(parent_pid)]


def device_config(scenario: Scenario, topology: Topology) -> str:
    """Return the device server's configuration, TOML."""
    window = require_arch(scenario.arch).msi_window
    mutants = ", ".join(_toml_string(name) for name in scenario.mutants)
    lines = [
        f"mutants = [{mutants}]",
        "",
        "[log]",
        f"path = {_toml_string(names.DEVICE_LOG)}",
        f"records = {scenario.log_records}",
        "",
        "[monitor]",
        f"socket = {_toml_string(names.DEVICE_MONITOR_SOCKET)}",
        "",
        "[polling]",
        f"vcpus = {scenario.smp}",
        f"us = {scenario.poll_us}",
    ]
    for iommu in topology.iommus:
        lines += ["", "[[iommu]]", *_function_config(iommu)]
    ours = bool(topology.iommus)
    if ours:
        for name, number, index in id_only_endpoints(topology):
            lines += ["", "[[endpoint]]", f"name = {_toml_string(name)}"]
            lines += [f"id = {number:#x}", *_behind_config(index, window)]
    for endpoint in served_endpoints(topology):
        lines += ["", "[[endpoint]]", *_function_config(endpoint)]
        lines += _endpoint_config(endpoint, aliased=ours)
        if ours:
            lines += _behind_config(endpoint.spec.iommu, window)
    return "\n".join(lines) + "\n"


def served_endpoints(topology: Topology) -> tuple[EndpointFunction, ...]:
    """Return the endpoints that the device serves: all but QEMU's own."""
    return tuple(endpoint for endpoint in topology.endpoints if endpoint.socket)


def endpoint_image(endpoint: EndpointFunction) -> str | None:
    """Return the file that backs an endpoint, relative to the run folder, or None."""
    backed = (EndpointModel.NVME, EndpointModel.QEMU_NVME)
    return f"{endpoint.name}.img" if endpoint.spec.model in backed else None


def vfio_user_sockets(topology: Topology) -> tuple[str, ...]:
    """Return the names of the sockets that the device serves functions on."""
    functions = (*topology.iommus, *served_endpoints(topology))
    return tuple(function.socket for function in functions)


def _base_args() -> list[str]:
    # fmt: off
    return [
        "-no-user-config",
        "-nodefaults",
        "-display", "none",
        "-run-with", "exit-with-parent=on",
        "-no-reboot",
        "-action", "panic=exit-failure",
    ]
    # fmt: on


def _machine_args(scenario: Scenario, arch: Arch, accel: Accel) -> list[str]:
    assert accel is not Accel.AUTO
    properties = ["memory-backend=ram", *arch.machine_properties]
    # share=on is not an optimisation: without it the device is handed a private
    # copy of the guest's memory and reads zeros, silently.
    memory = f"memory-backend-memfd,id=ram,size={scenario.mem}M,share=on"
    # fmt: off
    return [
        "-machine", ",".join([scenario.machine, *properties]),
        "-accel", accel.value,
        "-cpu", arch.cpu_kvm if accel is Accel.KVM else arch.cpu_tcg,
        "-smp", str(scenario.smp),
        "-m", f"{scenario.mem}M",
        "-object", memory,
    ]
    # fmt: on


def _kernel_args(kernel: str, initrd: str, cmdline: str, viot: str | None) -> list[str]:
    table = [] if viot is None else ["-acpitable", f"file={_escape(viot)}"]
    return ["-kernel", kernel, "-initrd", initrd, "-append", cmdline, *table]


# QEMU is the client: the socket is there before it starts, so nothing has to be
# polled for.
def _monitor_args() -> list[str]:
    # fmt: off
    return [
        "-chardev", f"socket,id=mon,path={names.QMP_SOCKET}",
        "-qmp", "chardev:mon",
    ]
    # fmt: on


# No socket: the serial port writes one byte at a time, and each of them takes
# hundreds of a socket's buffer. It is full after a line or two, and QEMU drops
# what does not fit. A pipe packs them.
def _console_args() -> list[str]:
    # fmt: off
    return [
        "-chardev", f"pipe,id=console,path={names.CONSOLE_PIPE}",
        "-serial", "chardev:console",
    ]
    # fmt: on


def _arch_device_args(arch: Arch) -> list[str]:
    return [part for device in arch.devices for part in ("-device", device)]


def _iommu_args(topology: Topology, arch: Arch) -> list[str]:
    argv = []
    for function in topology.iommus:
        argv += ["-device", _json(vfio_user_device(function, topology, arch))]
    if topology.qemu_iommu_bdf is not None:
        bus, addr = _place(topology.qemu_iommu_bdf, topology, arch)
        # The default granule is the host's page size, which may be above 4 KiB.
        argv += ["-device", f"virtio-iommu-pci,bus={bus},addr={addr},granule=4k"]
    return argv


# Built before what is plugged into them. What a root port is called (chassis and
# slot) must only differ between them.
def _bridge_args(topology: Topology, arch: Arch) -> list[str]:
    argv = []
    for i, bridge in enumerate(topology.bridges):
        bus, addr = _place(bridge.bdf, topology, arch)
        where = f"id={bridge.name},bus={bus},addr={addr}"
        if bridge.place is Place.BRIDGE:
            argv += ["-device", f"pcie-pci-bridge,{where}"]
        else:
            argv += ["-device", f"pcie-root-port,{where},chassis={i + 1},slot={i + 1}"]
    return argv


def _endpoint_args(topology: Topology, arch: Arch) -> list[str]:
    argv = []
    for endpoint in topology.endpoints:
        if endpoint.socket:
            argv += ["-device", _json(vfio_user_device(endpoint, topology, arch))]
        else:
            argv += _qemu_endpoint_args(endpoint, topology, arch)
    return argv


def vfio_user_device(
    function: Function, topology: Topology, arch: Arch
) -> dict[str, object]:
    """Return how QEMU is told of a function that viotest-device serves.

    :return: The value of ``-device``, or the arguments of ``device_add``.
    """
    bus, addr = _place(function.bdf, topology, arch)
    return {
        "driver": "vfio-user-pci",
        "id": function.name,
        "bus": bus,
        "addr": addr,
        "socket": {"type": "unix", "path": function.socket},
        "x-msg-timeout": _MSG_TIMEOUT_MS,
    }


# The JSON form, because "socket" is a structure.
def _json(device: Mapping[str, object]) -> str:
    return json.dumps(device, separators=(",", ":"))


def _qemu_endpoint_args(
    endpoint: EndpointFunction, topology: Topology, arch: Arch
) -> list[str]:
    bus, addr = _place(endpoint.bdf, topology, arch)
    where = f"id={endpoint.name},bus={bus},addr={addr}"
    match endpoint.spec.model:
        case EndpointModel.QEMU_NVME:
            disk = f"{endpoint.name}-disk"
            image = endpoint_image(endpoint)
            # fmt: off
            return [
                "-drive", f"if=none,id={disk},format=raw,file={image}",
                "-device", f"nvme,{where},drive={disk},serial=viotest-{endpoint.name}",
            ]
            # fmt: on
        case EndpointModel.QEMU_IGB:
            # No backend and no option ROM: it sends to nobody, and boots nothing.
            return ["-device", f"igb,{where},romfile="]
        case model:
            assert model is EndpointModel.QEMU_EDU, model
            # Its DMA mask is 28 bits unless told otherwise.
            return ["-device", f"edu,{where},dma_mask=0xffffffffffffffff"]


def _net_args(topology: Topology, arch: Arch) -> list[str]:
    bus, addr = _place(topology.nic_bdf, topology, arch)
    # hostfwd resolves no relative path, but this one is as good.
    forward = f"hostfwd=unix:/proc/self/cwd/{names.SSH_SOCKET}-:22"
    # fmt: off
    return [
        "-netdev", f"user,id=net0,restrict=on,ipv6=off,{forward}",
        # No option ROM: the firmware would try to boot from the network.
        "-device", f"virtio-net-pci,netdev=net0,bus={bus},addr={addr},romfile=",
    ]
    # fmt: on


def _place(bdf: str, topology: Topology, arch: Arch) -> tuple[str, str]:
    segment, rid = parse_bdf(bdf)
    buses = {bridge.bus: bridge.name for bridge in topology.bridges}
    buses[0] = arch.root_bus
    if segment or rid >> 8 not in buses:
        raise UsageError(f"{bdf}: there is no such bus")
    return buses[rid >> 8], f"{rid >> 3 & 31:02x}.{rid & 7}"


# A comma ends a value of QEMU's key=value lists unless it is doubled.
def _escape(value: str) -> str:
    return value.replace(",", ",,")


def _function_config(function: Function) -> list[str]:
    return [
        f"name = {_toml_string(function.name)}",
        f"socket = {_toml_string(function.socket)}",
    ]


def _endpoint_config(endpoint: EndpointFunction, *, aliased: bool) -> list[str]:
    _, own = parse_bdf(endpoint.bdf)
    lines = [f"id = {own:#x}"]
    if aliased and own != endpoint.endpoint_id:
        lines.append(f"requester = {endpoint.endpoint_id:#x}")
    if endpoint.spec.place is Place.HOTPLUG:
        lines.append("no_msix = true")
    if endpoint.spec.model is not EndpointModel.DMA_ENGINE:
        lines.append(f"model = {_toml_string(endpoint.spec.model)}")
    image = endpoint_image(endpoint)
    if image is not None:
        lines.append(f"image = {_toml_string(image)}")
    return lines


def _behind_config(index: int, window: tuple[int, int] | None) -> list[str]:
    lines = [f"iommu = {index}"]
    if window is not None:
        start, end = window
        lines.append(
            f'resv_mem = [{{ type = "msi", start = {start:#x}, end = {end:#x} }}]'
        )
    return lines


def _toml_string(text: str) -> str:
    plain = (
        c if c.isprintable() and c not in '"\\' else f"\\U{ord(c):08x}" for c in text
    )
    return f'"{"".join(plain)}"'
