"""
What an answer repeats of its request, printed as pydantic prints a model: every field, in the document's order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from llmdsim.api.compiling import openapi

Schema = Mapping[str, Any]


def echoed(component: str, field: str, value: Any) -> Any:
    """The value of one field of a component, with the fields that the client left out as their defaults or null."""
    return None if value is None else _printed(_resolved({"$ref": component})["properties"][field], value)


def _printed(schema: Schema, value: Any) -> Any:
    found = _member(_members(schema), value)
    if isinstance(value, dict) and "properties" in found:
        return _model(found["properties"], value)
    if isinstance(value, list) and "items" in found:
        return [_printed(found["items"], item) for item in value]
    return value


def _model(fields: Schema, value: Mapping[str, Any]) -> dict[str, Any]:
    known = {
        name: _printed(field, value[name]) if name in value else field.get("default") for name, field in fields.items()
    }
    return known | {name: extra for name, extra in value.items() if name not in known}


def _members(schema: Schema) -> list[Schema]:
    found = _resolved(schema)
    return [member for each in found["anyOf"] for member in _members(each)] if "anyOf" in found else [found]


def _resolved(schema: Schema) -> Schema:
    if "$ref" not in schema:
        return schema
    found: Schema = openapi()["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return found


def _member(members: Sequence[Schema], value: Any) -> Schema:
    """The member of a union that a value is of: for an object, the one that has its ``type``."""
    if isinstance(value, list):
        return next((member for member in members if "items" in member), {})
    if not isinstance(value, dict):
        return {}
    records = [member for member in members if "properties" in member]
    tag = value.get("type")
    return next((record for record in records if tag in _tags(record)), {})


def _tags(record: Schema) -> Sequence[Any]:
    """The values of ``type`` that a record takes; None alone where it has no such field."""
    field = record["properties"].get("type")
    if field is None:
        return (None,)
    return [field["const"]] if "const" in field else field.get("enum", ())
