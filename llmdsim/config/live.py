"""Changes to a running configuration, as POST /admin/config brings them: which, in what form, and merged how."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmdsim.config.flags import DURATION, FAKE_METRICS, Flag
from llmdsim.config.values import ConfigError, document

_TOTALS = {"request-prompt-tokens": "total-prompt-tokens", "request-generation-tokens": "total-generation-tokens"}


def changes(flags: Mapping[str, Flag], fake: Mapping[str, Any] | None, members: Mapping[str, Any]) -> dict[str, Any]:
    """
    The attributes to change, from a JSON object whose keys are names of flags.

    ``fake`` is the fake metrics document now in force. Raises ConfigError: a bad duration first, then an unknown key.
    """
    durations = {key: _duration(key, value) for key, value in members.items() if _is_duration(flags, key, value)}
    for key in members:
        if key not in flags or not flags[key].live:
            raise ConfigError(f"field '{key}' is not admin-configurable")
    rest = {key: value for key, value in members.items() if key not in durations and _says(key, value)}
    parsed = {**durations, **{key: _read(flags[key], value) for key, value in rest.items()}}
    if "fake-metrics" in parsed:
        parsed["fake-metrics"] = merged(fake, parsed["fake-metrics"])
    return {flags[key].attribute: value for key, value in parsed.items()}


def _says(key: str, value: object) -> bool:
    """null changes nothing, but an absent list of failures is all of them."""
    return value is not None or key == "failure-types"


def _is_duration(flags: Mapping[str, Flag], key: str, value: object) -> bool:
    return key in flags and flags[key].kind is DURATION and value is not None


def _duration(key: str, value: object) -> float:
    try:
        seconds: float = DURATION.read(value)
    except ValueError as error:
        raise ConfigError(f'field "{key}": {error}') from None
    return seconds


def _read(row: Flag, value: object) -> Any:
    try:
        if row.kind is FAKE_METRICS:
            return row.kind.read(document(value) or {})
        return row.kind.read(value)
    except ValueError as error:
        raise ConfigError(f"failed to unmarshal payload: {row.name}: {error}") from None


def merged(fake: Mapping[str, Any] | None, given: Mapping[str, Any]) -> Mapping[str, Any]:
    """Fake metrics after an update: given members replace, and a new array makes its total count afresh."""
    if fake is None:
        raise ConfigError("the simulator is reporting real metrics; fake metrics cannot be updated")
    stale = {total for array, total in _TOTALS.items() if array in given}
    return {**{key: value for key, value in fake.items() if key not in stale}, **given}
