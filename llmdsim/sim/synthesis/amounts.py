"""
Numbers for JSON Schemas: uniform in a wanted range, within bounds, and of a multiple.

Where the wanted range has no fitting number the schema's own bounds decide.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from fractions import Fraction
from random import Random
from typing import Any

from llmdsim.sim.synthesis.schemas import Schema

Range = tuple[float, float]
WIDTH = 100  # of a range that is open at one side
TRIES = 50
SCAN = 1000
_HUGE = sys.float_info.max


def draw_integer(schema: Schema, wanted: Range, rng: Random, fresh: bool = False) -> int:
    """An integer that a merged schema allows, rather of the wanted range (``fresh``: anywhere); ValueError if none."""
    step = Fraction(str(schema["multipleOf"])).numerator if "multipleOf" in schema else 1
    return int(_multiple(schema, Fraction(step), wanted, rng, fresh))


def draw_number(schema: Schema, wanted: Range, rng: Random, fresh: bool = False) -> float:
    """A number that a merged schema allows, rather of the wanted range (``fresh``: anywhere); ValueError if none."""
    if "multipleOf" in schema:
        return _multiple(schema, Fraction(str(schema["multipleOf"])), wanted, rng, fresh)
    for low, high in _windows(schema, wanted, fresh):
        for share in (rng.random(), 0.5, 0.0, 1.0):
            number = min(max(low * (1 - share) + high * share, low), high)
            if _allowed(schema, number):
                return number
    raise ValueError(_crossed(schema))


def _multiple(schema: Schema, step: Fraction, wanted: Range, rng: Random, fresh: bool) -> float:
    for low, high in _windows(schema, wanted, fresh, max(WIDTH, math.ceil(step))):
        first, last = math.ceil(_exact(low) / step), math.floor(_exact(high) / step)
        if first > last:
            continue
        counts = (
            [rng.randint(first, last) for _ in range(TRIES)] if "multipleOf" in schema else [rng.randint(first, last)]
        )
        for count in [*counts, *range(first, min(last, first + SCAN) + 1)]:
            number = _plain(count * step)
            if _allowed(schema, number) and _divides(schema.get("multipleOf", 1), number):
                return number
    raise ValueError(_crossed(schema))


def _windows(schema: Schema, wanted: Range, fresh: bool, width: int = WIDTH) -> Iterator[Range]:
    """The ranges to draw from: the wanted one cut to the schema's bounds, then those bounds, an open end at WIDTH."""
    lows = [schema[key] for key in ("minimum", "exclusiveMinimum") if key in schema]
    highs = [schema[key] for key in ("maximum", "exclusiveMaximum") if key in schema]
    low, high = max([wanted[0], *lows]), min([wanted[1], *highs])
    if low <= high and not fresh:
        yield low, high
    width = max(width, math.ceil(wanted[1] - wanted[0])) * (100 if fresh else 1)
    low = max(lows) if lows else min([wanted[0], *highs]) - width
    high = min(highs) if highs else max([wanted[1], *lows]) + width
    if low <= high:
        yield low, high


def _allowed(schema: Schema, number: float) -> bool:
    return (
        schema.get("minimum", number) <= number <= schema.get("maximum", number)
        and ("exclusiveMinimum" not in schema or schema["exclusiveMinimum"] < number)
        and ("exclusiveMaximum" not in schema or schema["exclusiveMaximum"] > number)
    )


def _divides(step: float, number: float) -> bool:
    # Validators divide in floating point, so some decimal multiples are none to them.
    return number % step == 0 if isinstance(step, int) else (number / step).is_integer()


def _exact(bound: float) -> Fraction:
    return Fraction(bound) if isinstance(bound, int) else Fraction(str(bound))


def _plain(value: Fraction) -> float:
    return value.numerator if value.denominator == 1 else float(value)


def _crossed(schema: Schema) -> str:
    asked: dict[str, Any] = {
        key: schema[key]
        for key in ("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum", "multipleOf")
        if key in schema
    }
    return f"no number has {', '.join(f'{key} {value}' for key, value in asked.items())}"
