"""
How a refused request reads: FastAPI's list of errors as vLLM 0.33 prints it.

Owns the texts, their limits and the cleaning of locations; what is wrong with a body is found by the other rooms.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from llmdsim.faults import INVALID_BODY, Fault

Loc = tuple[str | int, ...]
Error = dict[str, Any]

SHOWN = 10
INPUT_CHARS = 200
ERROR_CHARS = 1000
CUT = "...[truncated]"

# pydantic names the branch of a union in a location.  vLLM drops whatever looks like such a name, real keys included:
# the location of tool_calls[0].function.arguments ends in "function".
_BRACKETS = re.compile(r"[\[\]{}()]")
_BRANCHES = frozenset(
    [
        "function-wrap",
        "function-after",
        "function-before",
        "function-plain",
        "json-or-python",
        "lax-or-strict",
        "chain",
        "default",
        "nullable",
        "tagged-union",
        "union",
        "call",
        "arguments",
        "is-instance",
        "is-subclass",
        "callable",
        "str",
        "int",
        "float",
        "bool",
        "bytes",
        "bytearray",
        "list",
        "tuple",
        "dict",
        "set",
        "frozenset",
        "complex",
        "none",
        "nonetype",
    ]
)

# vLLM strips what could tell about its host from every message.
_SECRETS = (
    (re.compile(r" at 0x[0-9a-fA-F]+>"), ">"),
    (re.compile(r'\n?\s*File "[^"]+", line \d+, in \S+(\n\s+.*)?'), ""),
    (re.compile(r"/(?:home|usr|opt|var|tmp|root|lib|mnt|srv)(?:/[\w.\-]+)+"), "<path>"),
    (re.compile(r"(?:/[\w\-]+)+/[\w\-]+\.\w+"), "<path>"),
)


def problem(type: str, loc: Loc, msg: str, value: object, **ctx: object) -> Error:
    """One pydantic error, keys in its order; ``loc`` starts with ``"body"`` or ``"query"``."""
    error: Error = {"type": type, "loc": loc, "msg": msg, "input": value}
    if ctx:
        error["ctx"] = ctx
    return error


def rejected(loc: Loc, value: object, text: str) -> Error:
    """The error of a validator written in Python, which raised ``ValueError(text)``."""
    return problem("value_error", loc, f"Value error, {text}", value, error=ValueError(text))


def dotted(loc: Sequence[str | int]) -> str:
    """A location as vLLM shows it: joined with dots, without the names of union branches."""
    parts = [str(part) for part in loc]
    kept = [part for part in parts if not _BRACKETS.search(part) and part.lower() not in _BRANCHES]
    return ".".join(kept or parts)


def invalid(errors: Sequence[Mapping[str, Any] | str]) -> Fault:
    """
    The refusal of a request for these errors, in this order; at least one.

    As pydantic's, an error has ``type``, ``loc`` (a tuple), ``msg``, ``input`` and perhaps ``ctx``; or it is bare text.
    """
    count, first = len(errors), errors[0]
    noun = "error" if count == 1 else "errors"
    lines = [f"{count} validation {noun}:", *(f"  {_entry(error)}" for error in errors[:SHOWN])]
    if count > SHOWN:
        lines.append(f"  ...and {count - SHOWN} more {noun}")
    param = None if isinstance(first, str) else dotted(first["loc"])
    return Fault(INVALID_BODY, _discreet("\n".join(lines)), param)


def _entry(error: Mapping[str, Any] | str) -> str:
    if not isinstance(error, str):
        error = str({**error, "loc": dotted(error["loc"]), "input": _brief(error["input"])})
    return error if len(error) <= ERROR_CHARS else error[:ERROR_CHARS] + CUT


def _brief(value: object) -> str:
    """A value in at most INPUT_CHARS characters; containers are only counted."""
    if isinstance(value, (list, dict)):
        return f"<{type(value).__name__} of {len(value)} items>"
    try:
        text = str(value)
    except ValueError:  # an int of more digits than Python prints
        return f"<{type(value).__name__}>"
    return text if len(text) <= INPUT_CHARS else text[:INPUT_CHARS] + CUT


def _discreet(message: str) -> str:
    for pattern, instead in _SECRETS:
        message = pattern.sub(instead, message)
    return message.strip()
