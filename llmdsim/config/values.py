"""
How a setting is written, and what it means.

Each reader takes a word of a command line, or a value that YAML or JSON has already parsed, and raises ValueError
with the reason in a few words. Which setting is read by which reader is the business of the table of flags.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

import attrs

DEFAULT_MODEL_LENGTH = 1024
BOOLEANS = {
    **dict.fromkeys(("1", "t", "T", "true", "True", "TRUE"), True),
    **dict.fromkeys(("0", "f", "F", "false", "False", "FALSE"), False),
}
_HUMAN = re.compile(r"([+-]?)(\d+)(?:\.(\d+))?([kKmMgGtT])")
_SCALES = {"k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_PLAIN = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_TERM = re.compile(r"(\d*)(?:\.(\d*))?([^\d.]*)")
_UNITS = {"ns": 1, "us": 10**3, "µs": 10**3, "μs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
_LONGEST = 2**63


class ConfigError(Exception):
    """A configuration that cannot be honoured; its text is one line, for a person."""


@attrs.frozen
class Adapter:
    """A LoRA adapter that is known from the start."""

    name: str
    path: str = ""
    base_model_name: str = ""


def boolean(raw: object) -> bool:
    """True or false, in any spelling that Go's strconv.ParseBool knows."""
    known = BOOLEANS.get(str(raw))
    if known is None:
        raise ValueError("expected true or false")
    return known


def integer(raw: object) -> int:
    """An integer: decimal, ``0x``, ``0o``, ``0b``, with underscores, or vLLM's ``32k`` (32000) and ``32K`` (32768)."""
    if isinstance(raw, float) and raw.is_integer():
        return int(raw)
    text = str(raw).strip()
    human = _HUMAN.fullmatch(text)
    if human:
        return _scaled(*human.groups())
    for base in (10, 0):
        try:
            return int(text, base)
        except ValueError:
            continue
    raise ValueError("expected an integer")


def _scaled(sign: str, whole: str, fraction: str | None, unit: str) -> int:
    fraction = fraction or ""
    size, rest = divmod(int(whole + fraction) * _SCALES[unit], int(10 ** len(fraction)))
    if rest or (fraction and unit.isupper()):
        raise ValueError("expected a whole number")
    return -size if sign == "-" else size


def optional_integer(raw: object) -> int | None:
    """An integer, or None where nothing or ``None`` is written."""
    return None if raw in (None, "", "None") else integer(raw)


def model_length(raw: object) -> int:
    """A context window in tokens; ``auto`` and -1 ask for the default."""
    length = DEFAULT_MODEL_LENGTH if raw == "auto" else integer(raw)
    return DEFAULT_MODEL_LENGTH if length == -1 else length


def number(raw: object) -> float:
    """A finite floating point number."""
    try:
        value = float("nan") if isinstance(raw, bool) else float(str(raw))
    except ValueError:
        value = float("nan")
    if not math.isfinite(value):
        raise ValueError("expected a number")
    return value


def text(raw: object) -> str:
    """Any text; a YAML scalar is taken as it would be written on the command line."""
    if isinstance(raw, (list, Mapping)):
        raise ValueError("expected text")
    if isinstance(raw, bool):
        return str(raw).lower()
    return "" if raw is None else str(raw)


def json_text(raw: object) -> str:
    """Text that holds JSON for others to read; a YAML mapping is written as JSON."""
    return json.dumps(raw, separators=(",", ":"), default=str) if isinstance(raw, Mapping) else text(raw)


def duration(raw: object) -> float:
    """Seconds, from a Go duration (``1.5s``, ``2m30s``, ``250us``) or a plain number of milliseconds."""
    plain = "" if isinstance(raw, bool) else str(raw)
    if _PLAIN.fullmatch(plain):
        return _seconds(float(plain) * 1e6, plain)
    return go_duration(str(raw))


def go_duration(written: str) -> float:
    """Seconds, from a Go duration only; fails with the words of Go's time.ParseDuration."""
    terms = written[1:] if written[:1] in ("+", "-") else written
    if terms == "0":
        return 0.0
    if not terms:
        raise ValueError(f'time: invalid duration "{written}"')
    total, at = 0, 0
    while at < len(terms):
        term = _TERM.match(terms, at)
        assert term is not None  # the pattern matches anywhere
        total += _nanoseconds(term, written)
        at = term.end()
    return _seconds(-total if written[0] == "-" else total, written)


def _nanoseconds(term: re.Match[str], written: str) -> int:
    whole, fraction, unit = term[1], term[2] or "", term[3]
    if not whole and not fraction:
        raise ValueError(f'time: invalid duration "{written}"')
    if not unit:
        raise ValueError(f'time: missing unit in duration "{written}"')
    if unit not in _UNITS:
        raise ValueError(f'time: unknown unit "{unit}" in duration "{written}"')
    return int(whole + fraction) * _UNITS[unit] // int(10 ** len(fraction))


def _seconds(nanoseconds: float, written: str) -> float:
    if abs(nanoseconds) >= _LONGEST:
        raise ValueError(f'time: invalid duration "{written}"')
    return round(nanoseconds) / 1e9


def show_duration(seconds: float) -> str:
    """Seconds as Go prints a duration: ``0s``, ``1.5ms``, ``2m30s``, ``1h0m0s``."""
    nanoseconds = round(abs(seconds) * 1e9)
    sign = "-" if seconds < 0 else ""
    for unit, size in (("ns", 10**3), ("µs", 10**6), ("ms", 10**9)):
        if 0 < nanoseconds < size:
            return f"{sign}{_decimal(nanoseconds, size // 1000)}{unit}"
    minutes, rest = divmod(nanoseconds, 60 * 10**9)
    hours, minutes = divmod(minutes, 60)
    larger = f"{hours}h{minutes}m" if hours else f"{minutes}m" if minutes else ""
    return f"{sign}{larger}{_decimal(rest, 10**9)}s"


def _decimal(amount: int, size: int) -> str:
    whole, rest = divmod(amount, size)
    digits = str(rest).zfill(len(str(size)) - 1).rstrip("0")
    return f"{whole}.{digits}" if rest else str(whole)


def show_number(value: float) -> float | int:
    """A float as JSON should show it: a whole number has no fraction."""
    return int(value) if value.is_integer() else value


def document(raw: object) -> Mapping[str, Any] | None:
    """A JSON object, or None where nothing or ``None`` is written."""
    if raw in (None, "", "None"):
        return None
    value = _json(json.dumps(raw, default=str) if isinstance(raw, Mapping) else str(raw))  # YAML knows dates, JSON not
    if not isinstance(value, Mapping):
        raise ValueError("expected a JSON object")
    return value


def _json(written: str) -> Any:
    try:
        return json.loads(written)
    except ValueError as error:
        raise ValueError(f"not JSON: {error}") from None


def words(raw: object) -> tuple[str, ...]:
    """A list of words; one word may be a JSON array, a lone scalar is a list of one."""
    return tuple(filter(None, map(text, _items(raw))))


def names(raw: object) -> tuple[str, ...]:
    """A list of words, where one word may also hold several with blanks between them."""
    return tuple(name for word in words(raw) for name in word.split())


def kinds(raw: object) -> tuple[str, ...]:
    """A list of words, where one word may also hold several with commas or blanks between them."""
    return tuple(kind for word in words(raw) for kind in word.replace(",", " ").split())


def adapters(raw: object) -> tuple[Adapter, ...]:
    """A list of adapters, each a JSON object, a YAML mapping or vLLM's ``name=path``."""
    return tuple(_adapter(item) for item in _items(raw) if item != "")


def _items(raw: object) -> list[Any]:
    listed = [] if raw is None else list(raw) if isinstance(raw, (list, tuple)) else [raw]
    return [item for word in listed for item in _spread(word)]


def _spread(word: object) -> list[Any]:
    if not isinstance(word, str) or not word.lstrip().startswith("["):
        return [word]
    value = _json(word)
    return value if isinstance(value, list) else [value]


def _adapter(item: object) -> Adapter:
    if isinstance(item, str) and item.lstrip().startswith("{"):
        item = _json(item)
    if isinstance(item, str) and "=" in item:
        return Adapter(*item.split("=", 1))
    if not isinstance(item, Mapping):
        raise ValueError(f"expected a JSON object or name=path, got {item!r}")
    return Adapter(*(_member(item, key) for key in ("name", "path", "base_model_name")))


def _member(item: Mapping[str, Any], key: str) -> str:
    value = item.get(key)
    if value is not None and not isinstance(value, str):
        raise ValueError(f"{key} is not a string")
    return value or ""
