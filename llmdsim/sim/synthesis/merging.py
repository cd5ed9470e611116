"""
Several JSON Schemas as one: what must hold at once, keyword by keyword.

What cannot be one keyword (a second ``anyOf``, ``pattern``, ...) stays in ``allOf``, one group a member, so that a
merged schema is a schema again. Schemas are taken as ``schemas.modern`` leaves them.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from fractions import Fraction
from functools import reduce
from math import gcd, lcm
from typing import Any

from llmdsim.sim.synthesis.regexes import found
from llmdsim.sim.synthesis.schemas import TYPES, Schema

GROUPS = (("anyOf",), ("oneOf",), ("not",), ("pattern",), ("contains", "minContains", "maxContains"))
_GROUPED = {key for group in GROUPS for key in group} | {"allOf"}
_OBJECT = ("properties", "patternProperties", "additionalProperties")
_ARRAY = ("prefixItems", "items")
_KEYWORDS = {
    "number": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
    "string": ("pattern", "format", "minLength", "maxLength"),
    "array": ("items", "prefixItems", "contains", "minItems", "maxItems", "uniqueItems", "unevaluatedItems"),
    "object": ("properties", "required", "additionalProperties", "patternProperties", "propertyNames",
               "minProperties", "maxProperties", "unevaluatedProperties"),
}  # fmt: skip


class Unsatisfiable(Exception):
    """No value fits: why, and the path of the value, once known."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.place: tuple[str | int, ...] | None = None


def merge(one: Schema, other: Schema) -> Schema:
    """A schema that asks what both ask; raises Unsatisfiable where they rule each other out."""
    merged = {**one, **_objects(one, other), **_arrays(one, other)}
    for key, value in other.items():
        if key in _GROUPED:
            continue
        if key not in merged:
            merged[key] = value
        elif key in _RULES and key in one:
            merged[key] = _RULES[key](one[key], value)
    rests = [{key: other[key] for key in group if key in other} for group in GROUPS if group[0] in other]
    if rests or "allOf" in other:
        merged["allOf"] = [*one.get("allOf", ()), *rests, *other.get("allOf", ())]
    return merged


def both(one: Schema | bool, other: Schema | bool) -> Schema | bool:
    """A schema that asks what both ask, not yet merged."""
    if one is False or other is False:
        return False
    if one is True or one == other:
        return other
    return one if other is True else {"allOf": [one, other]}


def holders(schema: Schema) -> list[Schema]:
    """A merged schema and the groups in its ``allOf``."""
    return [schema, *schema.get("allOf", ())]


def child(schema: Schema, name: str) -> Schema | bool:
    """What a merged schema asks of a property."""
    properties = schema.get("properties", {})
    asked = [properties[name]] if name in properties else []
    asked += [part for pattern, part in schema.get("patternProperties", {}).items() if matches(pattern, name)]
    rest: Schema | bool = schema.get("additionalProperties", True)
    return reduce(both, asked) if asked else rest


def element(schema: Schema, index: int) -> Schema | bool:
    """What a merged schema asks of an element of an array."""
    prefix = schema.get("prefixItems", ())
    asked: Schema | bool = prefix[index] if index < len(prefix) else schema.get("items", True)
    return asked


def matches(pattern: str, text: str) -> bool:
    """Whether a text holds a match of a pattern; Unsatisfiable for what is no pattern."""
    try:
        return found(pattern, text)
    except ValueError as error:
        raise Unsatisfiable(str(error)) from None


def key_of(value: Any) -> Hashable:
    """What two JSON values have in common exactly when JSON Schema takes them for equal."""
    if isinstance(value, bool) or value is None:
        return (str(value),)
    if isinstance(value, list):
        return ("list", *map(key_of, value))
    if isinstance(value, dict):
        return frozenset((name, key_of(part)) for name, part in value.items())
    return value  # type: ignore[no-any-return]


def types(schema: Schema) -> tuple[str, ...]:
    """The types that a schema names, in the order of TYPES where it names several; all where it names none."""
    named = schema.get("type", TYPES)
    return (named,) if isinstance(named, str) else tuple(named)


def without(flat: Schema, holder: Schema, key: str) -> Schema:
    """A merged schema without one of its groups of alternatives."""
    if holder is flat:
        return {name: value for name, value in flat.items() if name != key}
    return {**flat, "allOf": [member for member in flat["allOf"] if member is not holder]}


def meant(flat: Schema) -> tuple[str, ...]:
    """The types that the keywords of a merged schema without ``type`` speak of; a string where there are none."""
    keywords = {key for holder in holders(flat) for key in holder}
    return tuple(kind for kind, known in _KEYWORDS.items() if not keywords.isdisjoint(known)) or ("string",)


def _objects(one: Schema, other: Schema) -> Schema:
    if not any(key in one for key in _OBJECT) or not any(key in other for key in _OBJECT):
        return {}
    names = dict.fromkeys([*one.get("properties", ()), *other.get("properties", ())])
    merged: Schema = {"properties": {name: both(child(one, name), child(other, name)) for name in names}}
    patterns, more = dict(one.get("patternProperties", {})), other.get("patternProperties", {})
    merged["patternProperties"] = {**patterns, **{key: both(patterns.get(key, True), more[key]) for key in more}}
    rest = both(one.get("additionalProperties", True), other.get("additionalProperties", True))
    return merged if rest is True else {**merged, "additionalProperties": rest}


def _arrays(one: Schema, other: Schema) -> Schema:
    if not any(key in one for key in _ARRAY) or not any(key in other for key in _ARRAY):
        return {}
    length = max(len(part.get("prefixItems", ())) for part in (one, other))
    items = both(one.get("items", True), other.get("items", True))
    return {
        "prefixItems": [both(element(one, index), element(other, index)) for index in range(length)],
        "items": items,
    }


def _types(one: Any, other: Any) -> list[str]:
    left, right = types({"type": one}), types({"type": other})
    common = [name for name in left if name in right]
    numbers = {("integer", "number"), ("number", "integer")}
    if "integer" not in common and any((a, b) in numbers for a in left for b in right):
        common.append("integer")
    if not common:
        raise Unsatisfiable(f"no value is both {' or '.join(left)} and {' or '.join(right)}")
    return common


def _members(one: list[Any], other: list[Any]) -> list[Any]:
    known = {key_of(value) for value in other}
    return [value for value in one if key_of(value) in known]


def _multiple(one: float, other: float) -> float:
    left, right = Fraction(str(one)), Fraction(str(other))
    step = Fraction(lcm(left.numerator, right.numerator), gcd(left.denominator, right.denominator))
    return step.numerator if step.denominator == 1 else float(step)


_RULES: dict[str, Callable[[Any, Any], Any]] = {
    **dict.fromkeys(("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties"), max),
    **dict.fromkeys(("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties"), min),
    **dict.fromkeys(("propertyNames", "unevaluatedProperties", "unevaluatedItems"), both),
    "type": _types,
    "enum": _members,
    "multipleOf": _multiple,
    "required": lambda one, other: [*one, *(name for name in other if name not in one)],
    "uniqueItems": lambda one, other: one or other,
}
