# SPDX-License-Identifier: GPL-2.0-or-later
"""The device's configuration file: TOML in, frozen values out.

:class:`DeviceConfig` is all that a device is; :class:`ConfigError` says what is
wrong with a file, and where.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from viotest_device.inject import InjectRule, RuleError, parse_rule

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_T = TypeVar("_T")
_U64 = (1 << 64) - 1
_U32 = (1 << 32) - 1
_MAX_POLL_US = 100
_DEFAULT_POLL_US = 20

#: What an endpoint is to its guest, in the order of ``enum viommu_model``.
MODELS = ("dma-engine", "ioat", "nvme")

#: Subtypes of a RESV_MEM property (virtio 1.2, 5.13.6.6.1).
RESV_SUBTYPES = {"reserved": 0, "msi": 1}


class ConfigError(Exception):
    """A configuration that cannot be served.

    :param where: The key, e.g. ``endpoint[0].id``.
    :param what: What is wrong with it.
    """

    def __init__(self, where: str, what: str) -> None:
        super().__init__(where, what)
        self.where = where
        self.what = what

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


@dataclass(frozen=True)
class ResvMem:
    """A reserved region of an endpoint; ``end`` is inclusive."""

    subtype: int
    start: int
    end: int


@dataclass(frozen=True)
class IommuConfig:
    """One virtio-iommu function; 0 means the core's default."""

    socket: str
    #: For people; nothing depends on it.
    name: str = ""
    features: int = 0
    page_size_mask: int = 0
    input_start: int = 0
    input_end: int = 0
    domain_start: int = 0
    domain_end: int = 0
    probe_size: int = 0
    bypass: int = 0
    max_mappings: int = 0
    max_domains: int = 0


@dataclass(frozen=True)
class EndpointConfig:
    """One endpoint; ``iommu`` None: behind none of our virtio-iommus.

    Without a ``socket`` it is only an id that the guest may attach: a bridge, or what
    a bridge calls the endpoints behind it (their ``requester``).
    """

    name: str
    socket: str
    id: int
    iommu: int | None = None
    requester: int = 0
    resv_mem: tuple[ResvMem, ...] = ()
    nr_vectors: int = 0
    #: INTx only.
    no_msix: bool = False
    #: One of :data:`MODELS`.
    model: str = MODELS[0]
    #: nvme: the file with its blocks, relative to the working directory.
    image: str | None = None
    read_only: bool = False


@dataclass(frozen=True)
class DeviceConfig:
    """Everything that ``viotest-device serve`` needs to know."""

    iommus: tuple[IommuConfig, ...]
    endpoints: tuple[EndpointConfig, ...]
    monitor: str
    log_path: str | None = None
    log_capacity: int = 0
    mutants: tuple[str, ...] = ()
    inject: tuple[InjectRule, ...] = ()
    #: How long to look at request rings before sleeping.
    poll_us: int = 0
    #: Virtual CPUs of the guests; None: not told, and nothing is polled.
    vcpus: int | None = None


class _Table:
    """A TOML table whose keys are taken one by one; what is left is unknown."""

    def __init__(self, where: str, values: Mapping[str, object]) -> None:
        self._where = where
        self._values = dict(values)

    def at(self, key: str) -> str:
        return f"{self._where}.{key}" if self._where else key

    def take(self, key: str, kind: type[_T], default: _T | None = None) -> _T:
        if key not in self._values:
            if default is None:
                raise ConfigError(self.at(key), "is missing")
            return default
        value = self._values.pop(key)
        # A bool is an int to Python; it is never one here.
        if not isinstance(value, kind) or isinstance(value, bool):
            raise ConfigError(
                self.at(key),
                f"is {value!r}, but {kind.__name__} is wanted",
            )
        return value

    def flag(self, key: str) -> bool:
        value = self._values.pop(key, False)
        if not isinstance(value, bool):
            raise ConfigError(
                self.at(key), f"is {value!r}, but true or false is wanted"
            )
        return value

    def integer(self, key: str, limit: int, default: int | None = 0) -> int:
        value = self.take(key, int, default)
        if not 0 <= value <= limit:
            raise ConfigError(self.at(key), f"{value} is outside 0 .. {limit:#x}")
        return value

    def tables(self, key: str) -> list[_Table]:
        rows = self.take(key, list, [])
        for i, row in enumerate(rows):
            if not isinstance(row, dict):
                raise ConfigError(f"{self.at(key)}[{i}]", "is no table")
        return [_Table(f"{self.at(key)}[{i}]", row) for i, row in enumerate(rows)]

    def rest(self) -> Mapping[str, object]:
        """Everything that has not been taken yet."""
        values, self._values = self._values, {}
        return values

    def done(self) -> None:
        for key in self._values:
            raise ConfigError(self.at(key), "is not a known key")


def _resv_mem(table: _Table) -> ResvMem:
    kind = table.take("type", str)
    if kind not in RESV_SUBTYPES:
        raise ConfigError(
            table.at("type"), f"is {kind!r}; known: {', '.join(RESV_SUBTYPES)}"
        )
    region = ResvMem(
        RESV_SUBTYPES[kind],
        table.integer("start", _U64, None),
        table.integer("end", _U64, None),
    )
    if region.end < region.start:
        raise ConfigError(table.at("end"), "lies below start")
    table.done()
    return region


def _iommu(table: _Table) -> IommuConfig:
    config = IommuConfig(
        socket=table.take("socket", str),
        name=table.take("name", str, ""),
        features=table.integer("features", 0x7F),
        page_size_mask=table.integer("page_size_mask", _U64),
        input_start=table.integer("input_start", _U64),
        input_end=table.integer("input_end", _U64),
        domain_start=table.integer("domain_start", _U32),
        domain_end=table.integer("domain_end", _U32),
        probe_size=table.integer("probe_size", 1 << 16),
        bypass=table.integer("bypass", 1),
        max_mappings=table.integer("max_mappings", _U32),
        max_domains=table.integer("max_domains", _U32),
    )
    table.done()
    return config


def _inject(table: _Table) -> InjectRule:
    try:
        return parse_rule(table.rest())
    except RuleError as error:
        raise ConfigError(table.at(error.key), error.what) from error


def _check_model(table: _Table, config: EndpointConfig) -> None:
    if config.model not in MODELS:
        raise ConfigError(
            table.at("model"), f"is {config.model!r}; known: {', '.join(MODELS)}"
        )
    if config.model == "nvme" and config.image is None:
        raise ConfigError(table.at("image"), "is missing; an nvme endpoint needs one")
    if config.model == "nvme" and config.no_msix:
        raise ConfigError(table.at("no_msix"), "leaves an nvme endpoint no interrupts")
    if config.model != "nvme" and (config.image or config.read_only):
        raise ConfigError(
            table.at("image" if config.image else "read_only"),
            f"has no meaning for the model {config.model!r}",
        )


def _endpoint(table: _Table, nr_iommus: int) -> EndpointConfig:
    iommu = table.integer("iommu", _U32, 0xFFFF)
    if iommu != 0xFFFF and iommu >= nr_iommus:
        raise ConfigError(
            table.at("iommu"), f"is {iommu}, but there are {nr_iommus} iommu tables"
        )
    config = EndpointConfig(
        name=table.take("name", str),
        socket=table.take("socket", str, ""),
        id=table.integer("id", _U32, None),
        requester=table.integer("requester", _U32),
        iommu=None if iommu == 0xFFFF else iommu,
        resv_mem=tuple(_resv_mem(row) for row in table.tables("resv_mem")),
        nr_vectors=table.integer("nr_vectors", 32),
        no_msix=table.flag("no_msix"),
        model=table.take("model", str, MODELS[0]),
        image=table.take("image", str, "") or None,
        read_only=table.flag("read_only"),
    )
    _check_model(table, config)
    if not 0 < len(config.name) < 32:
        raise ConfigError(table.at("name"), "must have 1 to 31 characters")
    if not config.socket and config.iommu is None:
        raise ConfigError(
            table.at("socket"), "is missing, which only an id behind an iommu may lack"
        )
    table.done()
    return config


def parse_config(text: str) -> DeviceConfig:
    """Read a configuration.

    :param text: TOML.
    :return: The configuration.
    :raise ConfigError: When it is not TOML, a key is unknown, missing, of the
        wrong type or out of range, or nothing is to be served.
    """
    try:
        root = _Table("", tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError("file", f"is not TOML: {error}") from error
    log = _Table("log", root.take("log", dict, {}))
    monitor = _Table("monitor", root.take("monitor", dict))
    iommus = tuple(_iommu(row) for row in root.tables("iommu"))
    endpoints = tuple(_endpoint(row, len(iommus)) for row in root.tables("endpoint"))
    mutants = root.take("mutants", list, [])
    if not all(isinstance(name, str) for name in mutants):
        raise ConfigError("mutants", "must be a list of names")
    polling = _Table("polling", root.take("polling", dict, {}))
    vcpus = polling.integer("vcpus", _U32)
    config = DeviceConfig(
        iommus=iommus,
        endpoints=endpoints,
        monitor=monitor.take("socket", str),
        log_path=log.take("path", str, "") or None,
        log_capacity=log.integer("records", 1 << 28),
        mutants=tuple(mutants),
        inject=tuple(_inject(row) for row in root.tables("inject")),
        poll_us=polling.integer("us", _MAX_POLL_US, _DEFAULT_POLL_US),
        vcpus=vcpus or None,
    )
    for table in (log, monitor, polling, root):
        table.done()
    if not iommus and not endpoints:
        raise ConfigError("file", "names neither an iommu nor an endpoint to serve")
    return config


def read_config(path: Path) -> DeviceConfig:
    """Read the configuration file at ``path``.

    :raise ConfigError: As :func:`parse_config`, or when it cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(str(path), f"cannot be read: {error}") from error
    return parse_config(text)
