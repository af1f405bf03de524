# SPDX-License-Identifier: GPL-2.0-or-later
"""The one door between Python and the C core: :class:`Core`.

Every call checks that the context is open; errno becomes :class:`CoreError`.
Nothing here runs on a device thread, and no callback leads from there to here.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from viotest_device._core import ffi, lib
from viotest_device.config import MODELS
from viotest_device.inject import ACTIONS, REQUESTS, InjectRule

if TYPE_CHECKING:
    from viotest_device.config import DeviceConfig, EndpointConfig, IommuConfig

#: Names of the log's record kinds, by number.
LOG_KINDS: dict[int, str] = {
    value: name.removeprefix("VIOMMU_LOG_").lower().replace("_", "-")
    for value, name in ffi.typeof("enum viommu_log_kind").elements.items()
}
#: Names of the counters, by index.
COUNTERS: dict[int, str] = {
    value: name.removeprefix("VIOMMU_COUNT_").lower().replace("_", "-")
    for value, name in sorted(ffi.typeof("enum viommu_counter").elements.items())
    if name.startswith("VIOMMU_COUNT_")
}
_KIND_NUMBERS = {name: value for value, name in LOG_KINDS.items()}


class CoreError(Exception):
    """The core refused.

    :param what: What was tried.
    :param errno: The positive errno.
    """

    def __init__(self, what: str, errno: int) -> None:
        super().__init__(what, errno)
        self.what = what
        self.errno = errno

    def __str__(self) -> str:
        return f"{self.what}: {os.strerror(self.errno)}"


@dataclass(frozen=True)
class Record:
    """One record of the request log (``struct viommu_log_record``)."""

    seq: int
    time_ns: int
    kind: str
    status: int
    endpoint: int
    domain: int
    flags: int
    start: int
    end: int
    target: int
    duration_ns: int


def check_error(what: str, result: int) -> None:
    """Translate a result of the core.

    :raise CoreError: When ``result`` is negative.
    """
    if result < 0:
        raise CoreError(what, -result)


def mutants(*, of_endpoints: bool = False) -> dict[str, str]:
    """Return the device's deliberate defects: name to what a suite must notice.

    :param of_endpoints: Only those that change something without an IOMMU of ours.
    """
    table = lib.viommu_mutants()
    found = {}
    i = 0
    while table[i].name != ffi.NULL:
        if table[i].is_of_endpoints or not of_endpoints:
            found[_text(table[i].name)] = _text(table[i].notice)
        i += 1
    return found


def exit_with_parent(parent_pid: int) -> None:
    """Let this process be killed when its parent dies.

    :raise CoreError: When the parent is gone already.
    """
    check_error(f"process {parent_pid}", lib.viommu_exit_with_parent(parent_pid))


class Core:
    """A context of the C core: functions are added, then served.

    :param config: What to serve.
    :raise CoreError: When a socket or the log cannot be made.
    """

    def __init__(self, config: DeviceConfig) -> None:
        self._ctx: Any = None
        self._seq = ffi.new("uint64_t *")
        self._dropped = ffi.new("uint64_t *")
        self._records = ffi.new("struct viommu_log_record[]", 1024)
        path = _c_string(config.log_path) if config.log_path else ffi.NULL
        made = ffi.new("viommu_ctx_t **")
        setup = ffi.new(
            "struct viommu_config *",
            {
                "log_path": path,
                "log_capacity": config.log_capacity,
                "poll_us": config.poll_us,
                "nr_cpus": _spare_cpus(config.vcpus),
            },
        )
        check_error(f"log {config.log_path}", lib.viommu_ctx_create(setup, made))
        self._ctx = made[0]
        try:
            self._add_functions(config)
            for name in config.mutants:
                self.set_mutant(name, True)
            for rule in config.inject:
                self.inject_add(rule)
        except BaseException:
            self.close()
            raise

    def _add_functions(self, config: DeviceConfig) -> None:
        indices = [self._add_iommu(iommu) for iommu in config.iommus]
        for endpoint in config.endpoints:
            self._add_endpoint(endpoint, indices)

    def _add_iommu(self, config: IommuConfig) -> int:
        index = ffi.new("uint32_t *")
        fields = {
            name: getattr(config, name)
            for name in config.__dataclass_fields__
            if name not in ("socket", "name")
        }
        path = _c_string(config.socket)
        setup = ffi.new("struct viommu_iommu_config *", fields)
        setup.socket_path = path
        what = f"virtio-iommu at {config.socket}"
        check_error(what, lib.viommu_ctx_add_iommu(self._open(), setup, index))
        return int(index[0])

    def _add_endpoint(self, config: EndpointConfig, iommus: list[int]) -> None:
        index = ffi.new("uint32_t *")
        path = _c_string(config.socket) if config.socket else ffi.NULL
        name = _c_string(config.name)
        image = _c_string(config.image) if config.image else ffi.NULL
        resv = ffi.new(
            "struct viommu_resv_mem[]",
            [(region.subtype, region.start, region.end) for region in config.resv_mem],
        )
        setup = ffi.new(
            "struct viommu_endpoint_config *",
            {
                "socket_path": path,
                "name": name,
                "iommu": lib.VIOMMU_NO_IOMMU
                if config.iommu is None
                else iommus[config.iommu],
                "id": config.id,
                "requester": config.requester,
                "resv": resv,
                "nr_resv": len(config.resv_mem),
                "nr_vectors": config.nr_vectors,
                "no_msix": config.no_msix,
                "model": MODELS.index(config.model),
                "image": image,
                "read_only": config.read_only,
            },
        )
        if not config.socket:
            added = lib.viommu_ctx_add_id(self._open(), setup)
            check_error(f"endpoint {config.name}", added)
            return
        what = f"endpoint {config.name} at {config.socket}"
        if config.image:
            what += f" with image {config.image}"
        check_error(what, lib.viommu_ctx_add_endpoint(self._open(), setup, index))

    def _open(self) -> Any:
        # A cffi pointer stays callable after it is freed: check at every use.
        if self._ctx is None:
            raise CoreError("device core", 9)
        return self._ctx

    def start(self) -> None:
        """Listen on every socket and start the threads.

        :raise CoreError: When a socket cannot be bound; nothing runs then.
        """
        check_error("start", lib.viommu_ctx_start(self._open()))

    def close(self) -> None:
        """Stop serving and free all; idempotent."""
        ctx, self._ctx = self._ctx, None
        if ctx is not None:
            lib.viommu_ctx_destroy(ctx)

    def set_mutant(self, name: str, on: bool) -> None:
        """Switch a deliberate defect.

        :raise CoreError: ENOENT when there is no such mutant.
        """
        result = lib.viommu_ctx_set_mutant(self._open(), _c_string(name), on)
        check_error(f"mutant {name!r}", result)

    def inject_add(self, rule: InjectRule) -> int:
        """Let something go wrong.

        :return: The rule's id, for :meth:`inject_remove`.
        :raise CoreError: EINVAL for a rule without meaning, ENOSPC for too many.
        """
        ident = ffi.new("uint32_t *")
        setup = ffi.new("struct viommu_inject_rule *", _rule_fields(rule))
        result = lib.viommu_ctx_inject_add(self._open(), setup, ident)
        check_error(f"rule {rule.action!r}", result)
        return int(ident[0])

    def inject_remove(self, ident: int) -> None:
        """Take a rule back; what it held up goes on.

        :raise CoreError: ENOENT when there is no such rule.
        """
        result = lib.viommu_ctx_inject_remove(self._open(), ident)
        check_error(f"rule {ident}", result)

    def inject_list(self) -> list[dict[str, object]]:
        """Return the rules there are, and how often each has matched and hit."""
        return [
            {
                "id": row.id,
                "mutant": None if row.mutant == ffi.NULL else _text(row.mutant),
                "action": ACTIONS[row.rule.action],
                "request": REQUESTS[row.rule.request],
                "endpoint": None if row.rule.endpoint < 0 else row.rule.endpoint,
                "domain": None if row.rule.domain < 0 else row.rule.domain,
                "after": row.rule.after,
                "count": row.rule.count,
                "parameter": row.rule.parameter,
                "matches": row.nr_matches,
                "hits": row.nr_hits,
            }
            for row in _query(lib.viommu_ctx_inject_list, self._open(), "inject")
        ]

    def event_fd(self, kinds: frozenset[str]) -> int:
        """Return the eventfd that is written when one of ``kinds`` is logged."""
        mask = sum(1 << _KIND_NUMBERS[kind] for kind in kinds)
        lib.viommu_ctx_set_event_mask(self._open(), mask)
        return int(lib.viommu_ctx_event_fd(self._open()))

    def read_log(self) -> tuple[list[Record], int]:
        """Return the records since the last call, at most 1024, and the number lost."""
        count = lib.viommu_ctx_log_read(
            self._open(), self._seq, self._records, len(self._records), self._dropped
        )
        return [_record(self._records[i]) for i in range(count)], int(self._dropped[0])

    def counters(self) -> dict[str, int]:
        """Return every counter by name."""
        header = lib.viommu_ctx_log(self._open())
        return {name: int(header.counters[i]) for i, name in COUNTERS.items()}

    def query_endpoints(self) -> list[dict[str, object]]:
        """Return the endpoints: name, id, model, domain, state and counts."""
        rows = _query(lib.viommu_ctx_query_endpoints, self._open(), "endpoint")
        return [
            {
                "name": _text(row.name),
                "id": row.id,
                "model": MODELS[row.model],
                "iommu": None if row.iommu == lib.VIOMMU_NO_IOMMU else row.iommu,
                "domain": row.domain if row.attached else None,
                "connected": bool(row.connected),
                "bus-master": bool(row.bus_master),
                "in-flight": row.in_flight,
                "transactions": row.transactions,
                "faults": row.faults,
            }
            for row in rows
        ]

    def query_domains(self) -> list[dict[str, object]]:
        """Return the domains of every virtio-iommu and the size of each."""
        rows = _query(lib.viommu_ctx_query_domains, self._open(), "domain")
        return [
            {
                "iommu": row.iommu,
                "id": row.id,
                "bypass": bool(row.bypass),
                "endpoints": row.nr_endpoints,
                "mappings": row.nr_mappings,
                "bytes": row.mapped_bytes,
            }
            for row in rows
        ]


def _spare_cpus(vcpus: int | None) -> int:
    # What the guests leave of the processors that we may run on.
    if vcpus is None:
        return 0
    return max(0, len(os.sched_getaffinity(0)) - vcpus)


def _query(call: Any, ctx: Any, kind: str) -> list[Any]:
    # The number may grow between two calls: ask again until all fit.
    size = 16
    while True:
        buf = ffi.new(f"struct viommu_{kind}_info[]", size)
        total = call(ctx, buf, size)
        if total <= size:
            return [buf[i] for i in range(total)]
        size = 2 * total


def _rule_fields(rule: InjectRule) -> dict[str, int]:
    return {
        "action": ACTIONS.index(rule.action),
        "request": REQUESTS.index(rule.request),
        "endpoint": -1 if rule.endpoint is None else rule.endpoint,
        "domain": -1 if rule.domain is None else rule.domain,
        "after": rule.after,
        "count": rule.count,
        "parameter": rule.parameter,
    }


def _record(raw: Any) -> Record:
    return Record(
        seq=raw.seq,
        time_ns=raw.time_ns,
        kind=LOG_KINDS.get(raw.kind, f"kind-{raw.kind}"),
        status=raw.status,
        endpoint=raw.endpoint,
        domain=raw.domain,
        flags=raw.flags,
        start=raw.start,
        end=raw.end,
        target=raw.target,
        duration_ns=raw.duration_ns,
    )


def _c_string(text: str) -> Any:
    return ffi.new("char[]", os.fsencode(text))


def _text(raw: Any) -> str:
    value = ffi.string(raw)
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
