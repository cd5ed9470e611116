"""
The document that describes fake metrics: read, checked, shown. What the numbers do to /metrics is for sim.fake.

Numbers stay numbers, arrays tuples of integers, and functions of time become ``Function``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import attrs

from llmdsim.config.values import ConfigError, document, go_duration, number, show_duration, show_number

SHAPES = ("oscillate", "ramp", "rampreset", "squarewave")
REASONS = ("stop", "length", "tool_calls", "remote_decode", "cache_threshold")
GAUGES = ("running-requests", "waiting-requests", "kv-cache-usage")
TIMES = {"ttft-buckets-values": ("time-to-first-token", 23), "tpot-buckets-values": ("time-per-output-token", 20)}
ARRAYS = (
    "request-prompt-tokens",
    "request-generation-tokens",
    "request-params-max-tokens",
    "request-max-generation-tokens",
    "e2erl-buckets-values",
    "queue-time-buckets-values",
    "inf-time-buckets-values",
    "prefill-time-buckets-values",
    "decode-time-buckets-values",
    "request-tpot-buckets-values",
)
COUNTERS = ("total-prompt-tokens", "total-generation-tokens", "prefix-cache-hits", "prefix-cache-queries")
_BAD_FUNCTION = "unknown format in fake metric generation function: "
_BAD_PARAMETER = "invalid fake metrics generation parameter: "


@attrs.frozen
class Function:
    """A value that changes with time, written ``ramp:10:35:10s``; the period is in seconds."""

    name: str
    start: float
    end: float
    period: float

    def __str__(self) -> str:
        start, end = show_number(self.start), show_number(self.end)
        return f"{self.name}:{start}:{end}:{show_duration(self.period)}"


def function(written: str) -> Function:
    """A function as it is written; raises ValueError."""
    parts = written.split(":")
    if len(parts) != 4:
        raise ValueError(f"{_BAD_FUNCTION}need func:start:end:period in fake metric generation function")
    try:
        return Function(parts[0], number(parts[1]), number(parts[2]), go_duration(parts[3]))
    except ValueError as error:
        raise ValueError(f"{_BAD_FUNCTION}{error}") from None


def read(raw: object) -> Mapping[str, Any] | None:
    """The members that are set; unknown ones are dropped. Raises ValueError where a member has the wrong type."""
    members = document(raw)
    if members is None:
        return None
    return {key: _READERS[key](key, value) for key, value in members.items() if key in _READERS and value is not None}


def _gauge(key: str, value: object) -> float | Function:
    return function(value) if isinstance(value, str) else _number(key, value)


def _number(key: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < 2**63:
        raise ValueError(f"fake metrics {key}: expected a number")
    return value


def _count(key: str, value: object) -> int:
    amount = _number(key, value)
    if amount != int(amount):
        raise ValueError(f"fake metrics {key}: expected an integer")
    return int(amount)


def _array(key: str, value: object) -> tuple[int, ...]:
    if not isinstance(value, (list, tuple)):
        raise ValueError(f"fake metrics {key}: expected an array")
    return tuple(_count(key, item) for item in value)


def _reasons(key: str, value: object) -> dict[str, int]:
    if not isinstance(value, Mapping):
        raise ValueError(f"fake metrics {key}: expected an object")
    return {str(reason): _count(key, count) for reason, count in value.items()}


def _loras(_key: str, value: object) -> tuple[Mapping[str, Any], ...]:
    items = value if isinstance(value, (list, tuple)) else [value]
    return tuple(_lora(json.loads(item) if isinstance(item, str) else item) for item in items)


def _lora(item: Any) -> Mapping[str, Any]:
    if not isinstance(item, Mapping):
        raise ValueError("fake metrics loras: expected objects")
    for key in ("running", "waiting"):
        if not isinstance(item.get(key, ""), str):
            raise ValueError(f"fake metrics loras: {key} is not a string")
    _number("loras: timestamp", item.get("timestamp", 0))
    return item


_READERS = {
    **dict.fromkeys(GAUGES, _gauge),
    **dict.fromkeys((*TIMES, *ARRAYS), _array),
    **dict.fromkeys(COUNTERS, _count),
    "request-success-total": _reasons,
    "loras": _loras,
}


def complete(fake: Mapping[str, Any]) -> Mapping[str, Any]:
    """Add the finish reasons that are missing at start."""
    given = fake.get("request-success-total")
    if given is None:
        return fake
    return {**fake, "request-success-total": {**dict.fromkeys(REASONS, 0), **given}}


def show(fake: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The document as JSON shows it: arrays, reasons and loras are always there, null where unset."""
    if fake is None:
        return None
    always = dict.fromkeys(("loras", *TIMES, *ARRAYS, "request-success-total"))
    shown = {key: str(value) if isinstance(value, Function) else value for key, value in fake.items()}
    return {**always, **{key: list(value) if isinstance(value, tuple) else value for key, value in shown.items()}}


def check(fake: Mapping[str, Any]) -> None:
    """Raise ConfigError at the first member that makes no sense."""
    running, waiting, usage = map(fake.get, GAUGES)
    if any(isinstance(value, (int, float)) and value < 0 for value in (running, waiting)):
        raise ConfigError("fake metrics request counters cannot be negative")
    if isinstance(usage, (int, float)) and not 0 <= usage <= 1:
        raise ConfigError("fake metrics KV cache usage must be between 0 and 1")
    for value in (running, waiting, usage):
        _check_function(value)
    if isinstance(usage, Function) and max(usage.start, usage.end) > 1:
        raise ConfigError("fake metrics KV cache usage start and end must be between 0 and 1")
    for key in TIMES:
        _check_times(*TIMES[key], fake.get(key, ()))
    _check_reasons(fake.get("request-success-total", {}))
    for key in ARRAYS:
        if any(count < 0 for count in fake.get(key, ())):
            raise ConfigError(f"fake metrics {key} cannot contain negative values")
    _check_prefix(fake.get("prefix-cache-hits"), fake.get("prefix-cache-queries"))


def _check_function(value: object) -> None:
    if not isinstance(value, Function):
        return
    if value.name not in SHAPES:
        allowed = ", ".join(SHAPES)
        raise ConfigError(
            f"invalid fake metrics generation function {value.name}, must be one of the following: {allowed}"
        )
    if min(value.start, value.end, value.period) < 0:
        raise ConfigError(f"{_BAD_PARAMETER}start and end must not be negative")
    if value.period == 0:
        raise ConfigError(f"{_BAD_PARAMETER}period must be positive")


def _check_times(name: str, longest: int, counts: tuple[int, ...]) -> None:
    if len(counts) > longest:
        raise ConfigError(f"fake {name} array is too long")
    if any(count < 0 for count in counts):
        raise ConfigError(f"{name} fake metrics should contain only non-negative values")


def _check_reasons(reasons: Mapping[str, int]) -> None:
    for reason, count in reasons.items():
        if count < 0:
            raise ConfigError(f"fake metrics request-success-total.{reason} cannot be negative, got {count}")
        if reason not in REASONS:
            known = " ".join(REASONS)
            raise ConfigError(f"invalid finish reason in request-success-total: {reason} (valid reasons: [{known}])")


def _check_prefix(hits: int | None, queries: int | None) -> None:
    for name, count in (("hits", hits), ("queries", queries)):
        if count is not None and count < 0:
            raise ConfigError(f"fake metrics prefix-cache-{name} cannot be negative")
    if (hits is None) != (queries is None):
        raise ConfigError("fake metrics prefix-cache-hits and prefix-cache-queries must be specified together")
    if hits is not None and queries is not None and hits > queries:
        raise ConfigError("fake metrics prefix-cache-hits cannot exceed prefix-cache-queries")
