# SPDX-License-Identifier: GPL-2.0-or-later
"""Rules of fault injection, as the configuration and the monitor spell them.

:class:`InjectRule` is one rule; :func:`parse_rule` reads it from a table of keys,
and :class:`RuleError` names the key that is wrong.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Actions by number, as ``enum viommu_inject_action``; a test compares the two.
ACTIONS = (
    "status",
    "delay",
    "drop",
    "answer-twice",
    "short-used-len",
    "ignore",
    "stall",
    "die",
    "ignore-permissions",
    "off-by-page",
    "leak-domain",
    "lose-fault",
    "drop-interrupt",
    "ignore-reset",
)
#: Request types by number (virtio 1.2, 5.13.6), 0 for any of them.
REQUESTS = ("any", "attach", "detach", "map", "unmap", "probe")
#: Statuses of a request by number (virtio 1.2, 5.13.6.2).
STATUSES = (
    "ok",
    "ioerr",
    "unsupp",
    "deverr",
    "inval",
    "range",
    "noent",
    "fault",
    "nomem",
)

_U32 = (1 << 32) - 1
_U63 = (1 << 63) - 1
_KEYS = (
    "action",
    "request",
    "endpoint",
    "domain",
    "after",
    "count",
    "status",
    "delay_us",
)


class RuleError(Exception):
    """A rule that cannot be understood.

    :param key: The key that is wrong.
    :param what: What is wrong with it.
    """

    def __init__(self, key: str, what: str) -> None:
        super().__init__(key, what)
        self.key = key
        self.what = what

    def __str__(self) -> str:
        return f"{self.key}: {self.what}"


@dataclass(frozen=True)
class InjectRule:
    """What goes wrong, with what, and how often (``struct viommu_inject_rule``)."""

    action: str
    request: str = "any"
    #: None: any.
    endpoint: int | None = None
    domain: int | None = None
    #: So many matches pass first.
    after: int = 0
    #: Then so many are hit; 0: all.
    count: int = 0
    #: A status, or microseconds; 0 for an action that has neither.
    parameter: int = 0


def parse_rule(values: Mapping[str, object]) -> InjectRule:
    """Read a rule.

    :param values: Its keys: ``action``, and as needed ``request``, ``endpoint``,
        ``domain``, ``after``, ``count``, ``status``, ``delay_us``.
    :return: The rule.
    :raise RuleError: When a key is unknown, missing, wrong or not for this action.
    """
    for key in values:
        if key not in _KEYS:
            raise RuleError(key, "is not a known key")
    action = ACTIONS[_named(values, "action", ACTIONS)]
    for key, owner in (("status", "status"), ("delay_us", "delay")):
        if (key in values) != (action == owner):
            verb = "is missing" if action == owner else "is not"
            raise RuleError(key, f"{verb} for action {action!r}")
    request = REQUESTS[_named(values, "request", REQUESTS, default="any")]
    if request != "any" and ACTIONS.index(action) > ACTIONS.index("die"):
        raise RuleError("request", f"is not for action {action!r}")
    return InjectRule(
        action=action,
        request=request,
        endpoint=_id(values, "endpoint"),
        domain=_id(values, "domain"),
        after=_integer(values, "after", 0, _U63, 0),
        count=_integer(values, "count", 0, _U63, 0),
        parameter=_parameter(values),
    )


def _parameter(values: Mapping[str, object]) -> int:
    if "delay_us" in values:
        return _integer(values, "delay_us", 1, _U32)
    if isinstance(values.get("status"), int):
        return _integer(values, "status", 0, 255)
    return _named(values, "status", STATUSES) if "status" in values else 0


def _named(
    values: Mapping[str, object],
    key: str,
    names: tuple[str, ...],
    default: str | None = None,
) -> int:
    value = values.get(key, default)
    if value is None:
        raise RuleError(key, "is missing")
    if not isinstance(value, str) or value not in names:
        raise RuleError(key, f"is {value!r}; known: {', '.join(names)}")
    return names.index(value)


def _integer(
    values: Mapping[str, object],
    key: str,
    low: int,
    high: int,
    default: int | None = None,
) -> int:
    value = values.get(key, default)
    # A bool is an int to Python; it is never one here.
    if not isinstance(value, int) or isinstance(value, bool):
        raise RuleError(key, f"is {value!r}, but an integer is wanted")
    if not low <= value <= high:
        raise RuleError(key, f"{value} is outside {low} .. {high}")
    return value


def _id(values: Mapping[str, object], key: str) -> int | None:
    return _integer(values, key, 0, _U32) if key in values else None
