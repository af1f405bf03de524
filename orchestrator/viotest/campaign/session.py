# SPDX-License-Identifier: GPL-2.0-or-later
"""One guest of a run, from its first process to its last: :class:`Session`."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Self

from viotest.campaign.janitor import start_janitor
from viotest.campaign.plan import INITRD
from viotest.campaign.proc import process_cpu_seconds, process_threads
from viotest.guest.clock import tie_clocks
from viotest.guest.guest import Guest
from viotest.guest.keys import GuestKeys
from viotest.machine import names
from viotest.machine.arch import require_arch
from viotest.machine.argv import (
    endpoint_image,
    vfio_user_device,
    vfio_user_sockets,
)
from viotest.machine.launch import Launch, start_machine
from viotest.provision.cpio import concat_initramfs, overlay_cpio
from viotest.provision.kbuild.selftests import selftest_files
from viotest.provision.nested import nested_files
from viotest.provision.overlay import run_overlay
from viotest.report.device_log import DeviceLog
from viotest.scenario.model import Iommu, Phase, Place

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from viotest.campaign.plan import Plan
    from viotest.guest.clock import ClockMap
    from viotest.guest.guest import ProbeProcess
    from viotest.guest.kernel_log import Splat
    from viotest.guest.probe import Probe
    from viotest.guest.ssh import ExecResult, LineChannel
    from viotest.machine.hotplug import Unplug
    from viotest.machine.launch import RunningMachine
    from viotest.report.results import Cause
    from viotest.report.timeline import Timeline
    from viotest.scenario.model import EndpointFunction, Scenario, Topology

# What the modules need on this machine: see reference "MSI not isolated" in the
# failure texts. busybox insmod ignores the kernel command line.
_MODULE_PARAMS = (
    "vfio_iommu_type1 allow_unsafe_interrupts=1",
    "iommufd allow_unsafe_interrupts=1",
)

#: For one command of a monitor.
_ANSWER_TIMEOUT = 10.0

_KMSG_MARK = "viotest: end of the checks"


class Session:
    """Starts the guest of a plan, waits for it when it is needed, and ends it.

    As a context manager it starts both processes and returns at once; the first
    call of :meth:`probe` waits for the guest.

    :param plan: What to start.
    :param folder: The run folder, made and empty.
    :param timeline: Where everything that happens is put down.
    """

    def __init__(self, plan: Plan, folder: Path, timeline: Timeline) -> None:
        self._plan = plan
        self._folder = folder
        self._stack = contextlib.ExitStack()
        self._running: RunningMachine | None = None
        self._guest: Guest | None = None
        self._clock: ClockMap | None = None
        self._keys = GuestKeys.generate()
        self._rebooted = False
        self.timeline = timeline
        #: CLOCK_MONOTONIC nanoseconds at which phases were reached.
        self.marks: dict[str, int] = {}
        #: What ended the guest early; None if nothing did.
        self.broken: Cause | None = None
        #: The readiness beacon has been seen.
        self.booted = False

    def __enter__(self) -> Self:
        self._plan.write(self._folder)
        try:
            self._stack.enter_context(start_janitor(self._folder, INITRD))
            self._write_initrd()
            self._start()
        except BaseException:
            self._stack.close()
            raise
        finally:
            # QEMU has read it. Megabytes that only repeat what the cache holds, and
            # with this run's keys: nothing to be left behind, however we end.
            (self._folder / INITRD).unlink(missing_ok=True)
        return self

    def _start(self) -> None:
        scenario = self._plan.scenario
        launch = Launch(
            folder=self._folder,
            qemu_argv=tuple(self._plan.qemu_argv()),
            device_argv=tuple(self._plan.device_argv()),
            sockets=tuple(
                name
                for name in vfio_user_sockets(self._plan.topology)
                if name not in self._pluggable_sockets()
            ),
            launch_timeout=self.seconds(Phase.LAUNCH),
            shutdown_timeout=self.seconds(Phase.TEARDOWN),
        )
        self._running = self._stack.enter_context(
            start_machine(launch, record=self.timeline.record)
        )
        self.mark("launched")
        self.timeline.record("run", "scenario", {"kernel": scenario.kernel}, 0)

    def __exit__(self, *exc: object) -> None:
        self._stack.__exit__(*exc)  # type: ignore[arg-type]

    def _write_initrd(self) -> None:
        keys = self._keys
        files = dict(run_overlay(keys.host, keys.authorized_key, _MODULE_PARAMS))
        if self._plan.assets.selftests is not None:
            files |= selftest_files(self._plan.assets.selftests)
        if self._plan.assets.nested is not None:
            files |= nested_files(self._plan.assets.nested)
        target = self._folder / INITRD
        concat_initramfs(self._plan.assets.initramfs, overlay_cpio(files), target)

    # -- what the suite needs

    @property
    def scenario(self) -> Scenario:
        """What was asked for."""
        return self._plan.scenario

    @property
    def topology(self) -> Topology:
        """Where the guest's functions are."""
        return self._plan.topology

    @property
    def kernel_config(self) -> Mapping[str, str]:
        """The kernel's options with their values; empty if they are not known."""
        return self._plan.assets.kernel.config

    @property
    def iommu_log(self) -> DeviceLog | None:
        """The log of our virtio-iommu; None if the guest's is QEMU's."""
        if self.scenario.iommu is not Iommu.VIOTEST:
            return None
        return self.device_log()

    @property
    def folder(self) -> Path:
        """The run folder."""
        return self._folder

    def device_log(self) -> DeviceLog:
        """Return the request log of the device process, whatever it serves."""
        return DeviceLog(self._folder / names.DEVICE_LOG)

    def device_domain(self, endpoint_id: int) -> int | None:
        """Return the domain that our virtio-iommu has an endpoint in, if any.

        :param endpoint_id: Of an endpoint that the device has.
        :raise MonitorError: When the device does not answer.
        """
        rows = self._ask_device("query-endpoints")
        (domain,) = [row["domain"] for row in rows if row["id"] == endpoint_id]
        assert domain is None or isinstance(domain, int)
        return domain

    def nr_device_mappings(self) -> int:
        """Return how many mappings our virtio-iommus hold, in all domains.

        :raise MonitorError: When the device does not answer.
        """
        return sum(row["mappings"] for row in self._ask_device("query-domains"))

    def _ask_device(self, query: str) -> list[dict[str, Any]]:
        assert self._running is not None
        monitor = self._running.device.monitor
        rows = monitor.execute(query, timeout=_ANSWER_TIMEOUT)
        assert isinstance(rows, list)
        return rows

    def probe(self) -> Probe:
        """Return the guest's probe; waits for the guest the first time.

        :raise GuestLostError: When the guest does not come up, or is lost since.
        :raise GuestError: When SSH does not work.
        """
        return self._connected().probe

    def exec(self, command: str, *, timeout: float) -> ExecResult:
        """Run a shell command in the guest, as root.

        :param command: The command.
        :param timeout: Seconds.
        :raise GuestLostError: As :meth:`probe`.
        :raise GuestError: When there is no result.
        """
        return self._connected().exec(command, timeout=timeout)

    def image(self, endpoint: EndpointFunction) -> Path | None:
        """Return the file with the blocks of an endpoint; None if it has none."""
        name = endpoint_image(endpoint)
        return None if name is None else self._folder / name

    def _connected(self) -> Guest:
        if self._guest is None:
            self._guest = self._connect()
        return self._guest

    def start_probe(self) -> contextlib.AbstractContextManager[ProbeProcess]:
        """Run another probe in the guest, to be killed at will."""
        return self._connected().start_probe(timeout=self.seconds(Phase.CONNECT))

    def start_lines(
        self, command: str
    ) -> contextlib.AbstractContextManager[LineChannel]:
        """Run a command in the guest that answers each line with one line."""
        timeout = self.seconds(Phase.CONNECT)
        return self._connected().start_lines(command, timeout=timeout)

    def plug(self, endpoint: EndpointFunction) -> None:
        """Plug an endpoint in again that was unplugged.

        :raise MonitorError: When QEMU refuses.
        """
        assert self._running is not None
        arch = require_arch(self.scenario.arch)
        device = vfio_user_device(endpoint, self.topology, arch)
        self._running.machine.hotplug.plug(device)

    def unplug(self, endpoint: EndpointFunction) -> Unplug:
        """Ask the guest to give an endpoint back that is behind a root port.

        :raise MonitorError: When QEMU refuses.
        """
        assert self._running is not None
        return self._running.machine.hotplug.unplug(endpoint.name)

    def wait_for_unplug(self, unplug: Unplug) -> None:
        """Wait until the guest has given an endpoint back.

        :raise MachineError: When it does not.
        :raise GuestLostError: When the guest is lost meanwhile.
        """
        assert self._running is not None
        unplug.wait(self._running.watch, self.seconds(Phase.CHECK) / 2)

    # Their names stay, for QEMU to connect to again.
    def _pluggable_sockets(self) -> set[str]:
        return {
            endpoint.socket
            for endpoint in self.topology.endpoints
            if endpoint.spec.place is Place.HOTPLUG
        }

    def wait_for_beacon(self, timeout: float) -> None:
        """Wait for the guest's word that it is ready.

        :param timeout: Seconds.
        :raise GuestLostError: When anything else comes first.
        """
        assert self._running is not None, "the session is not entered"
        beacon = self._running.watch.wait_for_beacon(timeout)
        self.booted = True
        self.marks["beacon"] = beacon.time_ns
        # The guest's clock starts when its kernel does.
        self.marks["kernel"] = beacon.time_ns - beacon.monotonic_ns

    def reboot(self) -> None:
        """Let the guest reboot; :meth:`probe` returns the same probe, started anew.

        :raise GuestLostError: When it does not come up again.
        :raise GuestError: When SSH does not work.
        """
        self.probe()
        assert self._running is not None
        assert self._guest is not None
        machine = self._running.machine
        machine.allow_reboot(True)
        machine.console.forget_beacon()
        self._guest.reboot(timeout=self.seconds(Phase.CONNECT))
        self._wait_for_next()
        # From here on a reboot is again what nobody asked for.
        machine.allow_reboot(False)

    @property
    def bzimage(self) -> Path | None:
        """The guest's kernel as kexec takes it; None if there is none."""
        return self._plan.assets.kernel.bzimage

    def load_kexec(self) -> None:
        """Let the guest's kernel load itself once more, for :meth:`kexec`.

        :raise ProbeError: When the kernel refuses.
        :raise GuestError: When SSH does not work.
        """
        self.probe()
        assert self._guest is not None
        assert self.bzimage is not None
        kernel = self.bzimage.read_bytes()
        self._guest.load_kexec(kernel, timeout=self.seconds(Phase.CONNECT))

    def kexec(self) -> None:
        """Let the guest start the kernel it has loaded, without a machine's reset.

        :meth:`probe` returns the same probe, started anew.

        :raise GuestLostError: When it does not come up.
        :raise GuestError: When SSH does not work.
        """
        assert self._running is not None
        assert self._guest is not None
        self._running.machine.console.forget_beacon()
        self._guest.kexec(timeout=self.seconds(Phase.CONNECT))
        self._wait_for_next()

    def _wait_for_next(self) -> None:
        probe, marks = self.probe(), dict(self.marks)
        assert self._guest is not None
        self.wait_for_beacon(self.seconds(Phase.BOOT))
        self._guest.close()
        self._guest = self._connect_ssh(probe)
        # They tell how long the run's first boot took.
        self.marks |= marks
        self._rebooted = True

    def _connect(self) -> Guest:
        self.wait_for_beacon(self.seconds(Phase.BOOT))
        return self._connect_ssh(None)

    def _connect_ssh(self, probe: Probe | None) -> Guest:
        assert self._running is not None
        watch, record = self._running.watch, self.timeline.record
        timeout = self.seconds(Phase.CONNECT)
        with self.phase(Phase.CONNECT):
            sock = self._running.machine.connect_ssh()
            guest = self._stack.enter_context(
                Guest(sock, self._keys, watch, record=record, probe=probe)
            )
            guest.connect(timeout=timeout)
            self.mark("ssh")
            # What the boot has said is no check's fault: see the records of guests.
            guest.probe.call("dmesg", clear=1)
            self._clock = guest.measure_clock(timeout=timeout)
        return guest

    # -- what the collector needs

    def seconds(self, phase: Phase) -> float:
        """Return the deadline of a phase."""
        return self.scenario.timeout(phase, self._plan.accel)

    def phase(
        self, phase: Phase, *, scale: float = 1.0
    ) -> contextlib.AbstractContextManager[None]:
        """Make the guest count as lost when the body outlasts the phase.

        :param scale: How many times its deadline the body may take.
        """
        assert self._running is not None
        return self._running.watch.phase(phase, scale * self.seconds(phase))

    def check_alive(self, *, timeout: float = 0.0) -> None:
        """Raise if the guest is lost.

        :param timeout: Seconds to wait for the news.
        :raise GuestLostError: When it is.
        """
        assert self._running is not None
        self._running.watch.check(timeout)

    def console_tail(self) -> Sequence[str]:
        """Return the console's last lines."""
        assert self._running is not None
        return self._running.machine.console.tail()

    def mark(self, name: str) -> None:
        """Note that a phase has been reached, now."""
        self.marks[name] = self.timeline.mark(name)

    def new_splats(self) -> list[Splat]:
        """Return what the guest's kernel has complained of since the last call.

        :raise GuestLostError: When the guest is lost.
        :raise GuestError: When it does not answer.
        """
        assert self._guest is not None
        # The answer passes by its kernel_log, as those to the checks' own reading do.
        self._guest.probe.call("dmesg")
        return self._guest.kernel_log.splats()

    @property
    def kernel_lines(self) -> Sequence[str]:
        """The guest's kernel log between the last two calls of :meth:`new_splats`."""
        return self._guest.kernel_log.lines if self._guest is not None else ()

    def cpu_seconds(self) -> dict[str, float]:
        """Return the CPU time of both processes so far, user and system."""
        assert self._running is not None
        return {
            "device": process_cpu_seconds(self._running.device.process.pid),
            "qemu": process_cpu_seconds(self._running.machine.process.pid),
        }

    def vcpu_threads(self) -> list[int]:
        """Return the ids of the threads that are the guest's CPUs."""
        assert self._running is not None
        monitor = self._running.machine.monitor
        cpus = monitor.execute("query-cpus-fast", timeout=_ANSWER_TIMEOUT)
        assert isinstance(cpus, list)
        return [int(cpu["thread-id"]) for cpu in cpus]

    def device_threads(self) -> list[int]:
        """Return the ids of the device's threads."""
        assert self._running is not None
        return process_threads(self._running.device.process.pid)

    @property
    def clock(self) -> Mapping[str, object]:
        """How the guest's clock maps to ours, and how wrong that may be."""
        if self._clock is None:
            return {}
        return {
            "guest_offset_ns": self._clock.offset_ns,
            "guest_error_ns": self._clock.error_ns,
            "guest_rate": self._clock.rate,
        }

    def tie_clock(self) -> None:
        """Measure the guest's clock again, now that it has run for a while.

        An emulated guest's may run at any speed; what happened between the two
        measurements is put where a straight line says. Does nothing without a guest.
        """
        if self._guest is None or self._clock is None or self.broken is not None:
            return
        self._clock = tie_clocks(self._clock, self._guest.measure_clock())
        if not self._rebooted:
            self.marks["kernel"] = self._clock.host_ns(0)

    def guest_dmesg(self) -> list[tuple[int, str]]:
        """Return the guest's kernel log with host CLOCK_MONOTONIC nanoseconds.

        Empty if there is no guest to ask.
        """
        if self._guest is None or self._clock is None or self.broken is not None:
            return []
        probe = self._guest.probe
        # The log has a clock of its own: a line of ours tells how far it is off.
        # Without its end the line might be continued, and would not be shown yet.
        written = probe.call("write", path="/dev/kmsg", data=_KMSG_MARK + "\n")["ns"]
        assert isinstance(written, int)
        answer = probe.call("dmesg", rewind=1)
        lines = _lines(answer)
        while answer["more"]:
            answer = probe.call("dmesg")
            lines += _lines(answer)
        marks = [int(line["ns"]) for line in lines if line["text"] == _KMSG_MARK]
        shift = written - marks[-1] if marks else 0
        host_ns = self._clock.host_ns
        return [(host_ns(int(line["ns"]) + shift), str(line["text"])) for line in lines]


def _lines(answer: Mapping[str, object]) -> list[dict[str, Any]]:
    lines = answer["lines"]
    assert isinstance(lines, list)
    return lines
