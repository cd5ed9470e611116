"""
JSON Schemas made ready to draw from: checked for their shape, older forms and conditions rewritten.

What comes out means the same to a validator of draft 2020-12, and knows neither ``const`` nor ``if`` nor ``depends``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import unquote

from llmdsim.faults import BAD_REQUEST, Fault

Schema = dict[str, Any]
TYPES = ("string", "integer", "number", "boolean", "null", "array", "object")
DEEPEST = 100  # keywords and names on the way to a part of a schema

Ready = Callable[[Any, str], Any]


def refusal(reason: str, place: str) -> Fault:
    """The refusal of a schema for what is wrong at a place in it."""
    return Fault(BAD_REQUEST, f"Grammar error: {reason} (at {place})")


def modern(schema: Any, place: str = "#") -> Schema | bool:
    """
    A schema that is well-formed, in the forms that this package draws from; ``place`` is where it stands.

    Keywords that are null are as if absent. Raises Fault.
    """
    if isinstance(schema, bool):
        return schema
    if not isinstance(schema, Mapping):
        raise refusal("a schema must be an object or a boolean", place)
    if place.count("/") > DEEPEST:
        raise refusal("the schema is nested too deeply", "#")
    ready = {}
    for key, value in schema.items():
        if value is not None or key not in _READY:
            ready[key] = _READY[key](value, f"{place}/{key}") if key in _READY else value
    return _rewritten(ready)


def target(root: Any, ref: str) -> Schema | bool:
    """What a ``$ref`` names in a schema: ``#``, ``#/pointer`` or ``#anchor``, also behind the schema's own ``$id``."""
    base, _, fragment = ref.partition("#")
    if base and (not isinstance(root, Mapping) or base != root.get("$id", "").partition("#")[0]):
        raise refusal(f"{ref} is outside of the schema", "$ref")
    try:
        return modern(_pointed(root, unquote(fragment)), f"#{fragment}")
    except (KeyError, IndexError, ValueError, TypeError):
        raise refusal(f"{ref} names nothing in the schema", "$ref") from None


def _pointed(root: Any, fragment: str) -> Any:
    if fragment and not fragment.startswith("/"):
        return next(node for node in _walk(root) if fragment in (node.get("$anchor"), node.get("$dynamicAnchor")))
    found = root
    for part in fragment.split("/")[1:]:
        key = part.replace("~1", "/").replace("~0", "~")
        found = found[int(key)] if isinstance(found, list) else found[key]
    return found


def _walk(node: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(node, Mapping):
        yield node
        node = list(node.values())
    if isinstance(node, list):
        for part in node:
            yield from _walk(part)


def _rewritten(schema: Schema) -> Schema:
    _older(schema)
    conditions = []
    if "const" in schema:
        conditions.append({"enum": [schema.pop("const")]})
    if "if" in schema:
        asked, then, other = (schema.pop(key, True) for key in ("if", "then", "else"))
        conditions.append({"anyOf": [{"allOf": [asked, then]}, {"allOf": [{"not": asked}, other]}]})
    for name, more in schema.pop("dependentSchemas", {}).items():
        conditions.append(_dependent(name, more))
    for name, names in schema.pop("dependentRequired", {}).items():
        conditions.append(_dependent(name, {"required": names}))
    if _excludes_types(schema.get("not")):
        conditions.append({"type": _others(schema.pop("not")["type"])})
    if len(conditions) == 1 and "enum" in conditions[0] and "enum" not in schema:
        schema.update(conditions[0])
    elif conditions:
        schema["allOf"] = [*schema.get("allOf", ()), *conditions]
    return schema


def _excludes_types(negated: Any) -> bool:
    """Whether a negated schema asks for nothing but types whose complement is types again."""
    if not isinstance(negated, dict) or negated.keys() != {"type"}:
        return False
    return "number" in negated["type"] or "integer" not in negated["type"]


def _others(excluded: str | list[str]) -> list[str]:
    return [name for name in TYPES if name not in excluded and (name != "integer" or "number" not in excluded)]


def _older(schema: Schema) -> None:
    """Rewrites what earlier drafts said otherwise, and takes dynamic references for static ones."""
    if "$dynamicRef" in schema:
        schema.setdefault("$ref", schema.pop("$dynamicRef"))
    for key, bound in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        exclusive = schema.get(key)
        if isinstance(exclusive, bool):
            del schema[key]
            if exclusive and bound in schema:
                schema[key] = schema.pop(bound)
    if isinstance(schema.get("items"), list):
        schema["prefixItems"] = schema.pop("items")
        if "additionalItems" in schema:
            schema["items"] = schema.pop("additionalItems")


def _dependent(name: str, more: Schema | bool) -> Schema:
    return {"anyOf": [{"allOf": [{"type": "object", "required": [name]}, more]}, {"properties": {name: False}}]}


def _type(value: Any, place: str) -> Any:
    names = value if isinstance(value, list) else [value]
    for name in names:
        if name not in TYPES:
            raise Fault(BAD_REQUEST, f"Grammar error: Invalid type: {name}")
    return value


def _checked(fits: Callable[[Any], bool], what: str) -> Ready:
    def ready(value: Any, place: str) -> Any:
        if not fits(value):
            raise refusal(f"{place.rpartition('/')[2]} must be {what}", place)
        return value

    return ready


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_count(value: Any) -> bool:
    return _is_number(value) and value >= 0 and value == int(value)


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _map(value: Any, place: str) -> Schema:
    if not isinstance(value, Mapping):
        raise refusal(f"{place.rpartition('/')[2]} must be an object", place)
    return {name: modern(schema, f"{place}/{name}") for name, schema in value.items()}


def _list(value: Any, place: str) -> list[Schema | bool]:
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise refusal(f"{place.rpartition('/')[2]} must be an array", place)
    return [modern(schema, f"{place}/{index}") for index, schema in enumerate(value)]


def _items(value: Any, place: str) -> Any:
    return _list(value, place) if isinstance(value, list) else modern(value, place)


_TEXT = _checked(lambda value: isinstance(value, str), "a string")
_NUMBER = _checked(_is_number, "a number")
_BOUND = _checked(lambda value: isinstance(value, bool) or _is_number(value), "a number")
_COUNT = _checked(_is_count, "an integer that is not negative")
_READY: dict[str, Ready] = {
    **dict.fromkeys(("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"), _COUNT),
    **dict.fromkeys(("minContains", "maxContains"), _COUNT),
    **dict.fromkeys(("minimum", "maximum"), _NUMBER),
    **dict.fromkeys(("exclusiveMinimum", "exclusiveMaximum"), _BOUND),
    **dict.fromkeys(("pattern", "format", "$ref", "$dynamicRef", "$id", "$anchor"), _TEXT),
    **dict.fromkeys(("properties", "patternProperties", "dependentSchemas", "$defs", "definitions"), _map),
    **dict.fromkeys(("anyOf", "oneOf", "allOf", "prefixItems"), _list),
    **dict.fromkeys(("additionalProperties", "unevaluatedProperties", "propertyNames"), modern),
    **dict.fromkeys(("additionalItems", "unevaluatedItems", "contains", "not", "if", "then", "else"), modern),
    "items": _items,
    "type": _type,
    "enum": _checked(lambda value: isinstance(value, list), "an array"),
    "required": _checked(_are_texts, "an array of strings"),
    "uniqueItems": _checked(lambda value: isinstance(value, bool), "a boolean"),
    "multipleOf": _checked(lambda value: _is_number(value) and value > 0, "a number above 0"),
    "dependentRequired": _checked(
        lambda value: isinstance(value, dict) and all(map(_are_texts, value.values())), "an object of arrays of strings"
    ),
}
CONSTRAINTS = frozenset(_READY) - {"$id", "$anchor", "$defs", "definitions", "format"}
