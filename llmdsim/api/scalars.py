"""
Checks of single values, as pydantic does them in lax mode: "5" is an integer, "on" a boolean, 5.0 the integer 5.

A check takes a value, its location and a list for errors; it returns the value, coerced where that was needed.
A value that is right already is returned itself: the unions rely on that identity.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from llmdsim.api.invalid import Error, Loc, problem

Check = Callable[[Any, Loc, list[Error]], Any]

_WHOLE = re.compile(r"[+-]?\d+(?:_\d+)*(?:\.0+)?", re.ASCII)
_FRACTION = re.compile(
    r"[+-]?(?:(?:\d+(?:_\d+)*\.?\d*|\.\d+)(?:e[+-]?\d+)?|nan|inf|infinity)", re.ASCII | re.IGNORECASE
)
_DIGITS = 4300  # pydantic parses no longer integer
_INT64 = 2.0**63
_TRUE = frozenset(("1", "on", "t", "true", "y", "yes"))
_FALSE = frozenset(("0", "off", "f", "false", "n", "no"))
_FAILED = object()


def anything(value: Any, loc: Loc, errors: list[Error]) -> Any:
    """Accepts every value."""
    return value


def text(value: Any, loc: Loc, errors: list[Error]) -> Any:
    """A string of any length."""
    if type(value) is not str:
        errors.append(problem("string_type", loc, "Input should be a valid string", value))
    return value


def octets(value: Any, loc: Loc, errors: list[Error]) -> Any:
    """Bytes, which JSON can only give as a string."""
    if type(value) is not str:
        errors.append(problem("bytes_type", loc, "Input should be a valid bytes", value))
    return value


def sized_text(least: int, most: int) -> Check:
    """A string of ``least`` to ``most`` characters."""

    def check(value: Any, loc: Loc, errors: list[Error]) -> Any:
        if type(value) is not str:
            return text(value, loc, errors)
        if len(value) < least:
            msg = f"String should have at least {_count(least, 'character')}"
            errors.append(problem("string_too_short", loc, msg, value, min_length=least))
        elif len(value) > most:
            msg = f"String should have at most {_count(most, 'character')}"
            errors.append(problem("string_too_long", loc, msg, value, max_length=most))
        return value

    return check


def integer(value: Any, loc: Loc, errors: list[Error]) -> Any:
    """An integer of any size."""
    number = value if type(value) is int else _integer(value, loc, errors)
    return value if number is _FAILED else number


def number(value: Any, loc: Loc, errors: list[Error]) -> Any:
    """A float, infinities and NaN included; an int stays an int."""
    if type(value) is float:
        return value
    if type(value) is int:
        return _small_enough(value, loc, errors)
    if type(value) is bool:
        return float(value)
    if type(value) is not str:
        errors.append(problem("float_type", loc, "Input should be a valid number", value))
        return value
    if _FRACTION.fullmatch(value.strip()):
        return float(value)
    msg = "Input should be a valid number, unable to parse string as a number"
    errors.append(problem("float_parsing", loc, msg, value))
    return value


def boolean(value: Any, loc: Loc, errors: list[Error]) -> Any:
    """A boolean, or one of the numbers and words that stand for one."""
    if type(value) is bool:
        return value
    if type(value) is str:
        word = value.lower()
        if word in _TRUE or word in _FALSE:
            return word in _TRUE
    elif type(value) not in (int, float) or value != value or value % 1 or abs(value) >= _INT64:
        errors.append(problem("bool_type", loc, "Input should be a valid boolean", value))
        return value
    elif value in (0, 1):
        return bool(value)
    msg = "Input should be a valid boolean, unable to interpret input"
    errors.append(problem("bool_parsing", loc, msg, value))
    return value


def one_of(options: Sequence[Any], type_name: str = "literal_error") -> Check:
    """One of these constants; ``type_name`` is ``enum`` where the class is a Python Enum."""
    known = frozenset(options)
    names = [repr(option) for option in options]
    expected = names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"

    def check(value: Any, loc: Loc, errors: list[Error]) -> Any:
        if type(value) is not str or value not in known:
            errors.append(problem(type_name, loc, f"Input should be {expected}", value, expected=expected))
        return value

    return check


def bounded(check: Check, least: float | None, most: float | None) -> Check:
    """A number that passes ``check`` and lies between the bounds, both of which count."""

    def bounds(value: Any, loc: Loc, errors: list[Error]) -> Any:
        before = len(errors)
        found = check(value, loc, errors)
        if len(errors) > before:
            return found
        if most is not None and not found <= most:
            msg = f"Input should be less than or equal to {_plain(most)}"
            errors.append(problem("less_than_equal", loc, msg, value, le=most))
        elif least is not None and not found >= least:
            msg = f"Input should be greater than or equal to {_plain(least)}"
            errors.append(problem("greater_than_equal", loc, msg, value, ge=least))
        return found

    return bounds


def never(values: list[Any]) -> bool:
    """Says of no array that its items are all right."""
    return False


def all_texts(values: list[Any]) -> bool:
    """Whether all are strings."""
    return set(map(type, values)) <= {str}


def all_integers(least: float | None, most: float | None) -> Callable[[list[Any]], bool]:
    """Tells whether all are integers between the bounds."""

    def check(values: list[Any]) -> bool:
        if not values or set(map(type, values)) != {int}:
            return not values
        return (least is None or min(values) >= least) and (most is None or max(values) <= most)

    return check


def _plain(bound: float) -> str:
    return str(bound) if type(bound) is int else f"{bound:g}"


def _integer(value: Any, loc: Loc, errors: list[Error]) -> Any:
    if type(value) is bool:
        return int(value)
    if type(value) is float:
        return _whole(value, loc, errors)
    if type(value) is not str:
        errors.append(problem("int_type", loc, "Input should be a valid integer", value))
    elif len(value) > _DIGITS:
        errors.append(_too_big(loc, value))
    elif _WHOLE.fullmatch(value.strip()):
        return int(value.partition(".")[0])
    else:
        msg = "Input should be a valid integer, unable to parse string as an integer"
        errors.append(problem("int_parsing", loc, msg, value))
    return _FAILED


def _whole(value: float, loc: Loc, errors: list[Error]) -> Any:
    if value != value or value in (float("inf"), -float("inf")):
        errors.append(problem("finite_number", loc, "Input should be a finite number", value))
    elif value % 1:
        msg = "Input should be a valid integer, got a number with a fractional part"
        errors.append(problem("int_from_float", loc, msg, value))
    elif abs(value) >= _INT64:
        errors.append(_too_big(loc, value))
    else:
        return int(value)
    return _FAILED


def _too_big(loc: Loc, value: object) -> Error:
    msg = "Unable to parse input string as an integer, exceeded maximum size"
    return problem("int_parsing_size", loc, msg, value)


def _small_enough(value: int, loc: Loc, errors: list[Error]) -> int:
    try:
        float(value)
    except OverflowError:
        errors.append(problem("float_type", loc, "Input should be a valid number", value))
    return value


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
