"""
Components of vLLM's OpenAPI document, compiled into checks when first needed.

Owns the document itself (openapi.json: vLLM 0.33.0's, minified, without descriptions).
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Any

import orjson

from llmdsim.api import oddities, scalars, shapes
from llmdsim.api.gated import COMPONENTS, Schema
from llmdsim.api.invalid import Error, Loc, problem
from llmdsim.api.scalars import Check
from llmdsim.api.shapes import Branch

_SCALARS = {"string": scalars.text, "integer": scalars.integer, "number": scalars.number, "boolean": scalars.boolean}


@cache
def openapi() -> dict[str, Any]:
    """vLLM's OpenAPI document, read on first use; not to be changed."""
    found: dict[str, Any] = orjson.loads(files("llmdsim.api").joinpath("openapi.json").read_bytes())
    return found


@cache
def component(name: str, inside: bool = False) -> Check:
    """
    The check of a component; ``inside`` says that it is part of a TypedDict.

    KeyError where neither the document nor ``gated`` knows the name.
    """
    schema = COMPONENTS.get(name) or openapi()["components"]["schemas"][name]
    if schema.get("type") != "object":
        return scalars.one_of(schema["enum"], "enum")  # a named constant is a Python Enum
    check = _after(_record(schema, name, oddities.typed(name, inside)), name)
    return check if name != "SamplingParams" else shapes.union([((), _not_an_instance), ((), check)])


def _not_an_instance(value: Any, loc: Loc, errors: list[Error]) -> Any:
    # vLLM takes either a SamplingParams or its fields; JSON cannot have the former.
    msg = "Input should be an instance of SamplingParams"
    errors.append(problem("is_instance_of", loc, msg, value, **{"class": "SamplingParams"}))
    return value


def _after(check: Check, name: str) -> Check:
    validator = oddities.validator(name)
    return check if validator is None else shapes.then(check, validator)


def _record(schema: Schema, name: str, typed: bool) -> Check:
    fields = {
        key: _after(_compiled(part, typed, f"{name}.{key}"), f"{name}.{key}")
        for key, part in schema["properties"].items()
        if not key.startswith("_")  # vLLM's private notes, which a request cannot set
    }
    refuse: shapes.Refuse = shapes.no_dict if typed else shapes.no_model
    if name in oddities.DATACLASSES:
        refuse = shapes.no_dataclass(name)
    closed = schema.get("additionalProperties") is False
    return shapes.record(fields, frozenset(schema.get("required", ())), refuse, closed)


def _compiled(schema: Schema, typed: bool, where: str) -> Check:
    """The check of a schema found in the field ``where`` of a TypedDict or of a model."""
    if "$ref" in schema:
        return _reference(_name(schema), typed)
    if "anyOf" in schema:
        return _union(schema["anyOf"], typed, where)
    if "oneOf" in schema:
        return _tagged(schema)
    if "const" in schema or "enum" in schema:
        return scalars.one_of([schema["const"]] if "const" in schema else schema["enum"])
    kind = schema.get("type")
    if kind == "array":
        return _array(schema, typed, where)
    if kind == "object":
        return _object(schema, typed, where)
    return _scalar(schema)


def _scalar(schema: Schema) -> Check:
    kind = schema.get("type", "")
    if "contentMediaType" in schema:
        return scalars.octets
    if "maxLength" in schema or "minLength" in schema:
        return scalars.sized_text(schema.get("minLength", 0), schema.get("maxLength", 2**63))
    check = _SCALARS.get(kind, scalars.anything)
    if "minimum" in schema or "maximum" in schema:
        return scalars.bounded(check, _bound(schema.get("minimum"), kind), _bound(schema.get("maximum"), kind))
    return check


def _bound(bound: float | None, kind: str) -> float | None:
    # JSON has written the bounds of integers as floats, which cannot tell 2**63 - 1 from 2**63.
    if bound is None or kind == "number":
        return bound
    return min(int(bound), 2**63 - 1)


def _array(schema: Schema, typed: bool, where: str) -> Check:
    items = schema["items"]
    if typed and where not in oddities.LISTS and ("$ref" in items or "$ref" in str(items.get("anyOf"))):
        return shapes.lazy
    item, least = _compiled(items, typed, where), schema.get("minItems", 0)
    if schema.get("sequence"):
        return shapes.sequence(item, least)
    return shapes.listing(item, least, schema.get("maxItems"), _all_plain(items))


def _all_plain(items: Schema) -> shapes.AllPlain:
    """The quick look at a whole array that spares looking at each item, where its items are texts or integers."""
    kind = items.get("type")
    if kind == "integer":
        return scalars.all_integers(_bound(items.get("minimum"), kind), _bound(items.get("maximum"), kind))
    return scalars.all_texts if items == {"type": "string"} else scalars.never


def _object(schema: Schema, typed: bool, where: str) -> Check:
    if "properties" in schema:
        return _record(schema, where, typed)
    values = schema.get("additionalProperties", True)
    return shapes.mapping(_compiled(values, typed, where) if isinstance(values, dict) else scalars.anything)


def _reference(name: str, typed: bool) -> Check:
    """The check of a component that is compiled when a value first comes there."""

    def check(value: Any, loc: Loc, errors: list[Error]) -> Any:
        return component(name, typed)(value, loc, errors)

    return check


def _union(members: list[Schema], typed: bool, where: str) -> Check:
    some = [member for member in members if member.get("type") != "null"]
    names = [_name(member) for member in some]
    check = _compiled(some[0], typed, where) if len(some) == 1 else shapes.union(_branches(some, typed, where))
    if "CustomChatCompletionMessageParam" in names:
        check = oddities.plain_message_first(check)
    return check if len(some) == len(members) else shapes.optional(check)


def _branches(members: list[Schema], typed: bool, where: str) -> list[Branch]:
    branches: list[Branch] = []
    for index, member in enumerate(members):
        name = _name(member)
        hidden = oddities.HIDDEN.get(name)
        if hidden:
            branches.append(((hidden,), component(hidden)))
        # The document has one component for a TypedDict and a model of one name and shape: the TypedDict comes first.
        twin = bool(name) and member in members[index + 1 :]
        label = () if not name or name in oddities.UNNAMED else (oddities.short(name),)
        branches.append((label, _compiled(member, typed or twin, where)))
    return branches


def _tagged(schema: Schema) -> Check:
    tag = schema["discriminator"]["propertyName"]
    tags = {ref: word for word, ref in schema["discriminator"]["mapping"].items()}
    # The mapping is sorted; the members stand in the order that errors tell.
    return shapes.tagged(tag, {tags[m["$ref"]]: _reference(_name(m), False) for m in schema["oneOf"]})


def _name(schema: Schema) -> str:
    return str(schema.get("$ref", "")).rpartition("/")[2]
