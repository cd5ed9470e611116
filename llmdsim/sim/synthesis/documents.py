"""
One JSON Schema as a whole: its references followed, its alternatives measured, values judged by a validator.

The validator (jsonschema) is imported when first asked, for it is slow to load and to run.
"""

from __future__ import annotations

import re
from functools import cached_property, reduce
from typing import Any

from llmdsim.sim.synthesis.merging import Unsatisfiable, merge, types
from llmdsim.sim.synthesis.schemas import CONSTRAINTS, Schema, modern, target

# What is not built into a value, so that it must be judged.
JUDGED = frozenset(("oneOf", "not", "contains", "propertyNames", "unevaluatedProperties", "unevaluatedItems"))
SCALARS = frozenset(("string", "integer", "number", "boolean", "null"))
HIGHEST = 12
LONGEST_TRAIL = 20
_BUILT = frozenset(("type", "enum"))


class Document:
    """A root schema; raises Fault where it is malformed."""

    def __init__(self, root: Any) -> None:
        self._root = root
        self.schema = modern(root)
        self._trail: list[str] = []
        self._targets: dict[str, Schema | bool] = {}
        self._judged: dict[int, tuple[Schema, bool]] = {}  # the schema beside its answer keeps its id from being reused
        self._ending: dict[tuple[int, int], tuple[Schema, bool]] = {}

    def flat(self, schema: Schema) -> Schema:
        """A schema, asked about with ``needs_judge``, with references and ``allOf`` merged; raises Unsatisfiable."""
        if "$ref" not in schema and "allOf" not in schema:
            return schema
        own = {key: value for key, value in schema.items() if key not in ("$ref", "allOf")}
        named = [self._target(schema["$ref"])] if "$ref" in schema else []
        return reduce(merge, map(self._part, [*named, *schema.get("allOf", ())]), own)

    def merged(self, flat: Schema, branch: Schema | bool) -> Schema:
        """A merged schema and one of its alternatives as one; raises Unsatisfiable."""
        return merge(flat, self._part(branch))

    def needs_judge(self, schema: Schema) -> bool:
        """Whether a value that is built for a schema may still not fit; Unsatisfiable where it asks for itself."""
        if id(schema) not in self._judged:
            parts = [isinstance(part, dict) and self.needs_judge(part) for part in _alongside(schema)]
            if "$ref" in schema:
                parts.append(self._named_needs_judge(schema["$ref"]))
            self._judged[id(schema)] = schema, any(parts) or not JUDGED.isdisjoint(schema)
        return self._judged[id(schema)][1]

    def accepts(self, schema: Schema, value: Any) -> bool:
        """Whether a value fits a schema; what the validator cannot judge stands."""
        if not CONSTRAINTS.isdisjoint(schema.keys() - _BUILT):
            return self._valid(schema, value)
        return not types_of(value).isdisjoint(types(schema))

    def height(self, schema: Schema | bool) -> int:
        """How many levels of schemas the smallest value takes, at most HIGHEST."""
        return next((depth for depth in range(1, HIGHEST) if self._ends(schema, depth)), HIGHEST)

    @cached_property
    def _validator(self) -> Any:
        from jsonschema import Draft202012Validator

        return Draft202012Validator(self._root)

    def _valid(self, schema: Schema, value: Any) -> bool:
        from referencing.exceptions import Unresolvable

        try:
            return bool(self._validator.evolve(schema=schema).is_valid(value))
        except (re.error, RecursionError, TypeError, Unresolvable):
            return True

    def _target(self, ref: str) -> Schema | bool:
        if ref not in self._targets:
            self._targets[ref] = target(self._root, ref)
        return self._targets[ref]

    def _part(self, schema: Schema | bool) -> Schema:
        if schema is False:
            raise Unsatisfiable("nothing is allowed")
        return {} if schema is True else self.flat(schema)

    def _named_needs_judge(self, ref: str) -> bool:
        if ref in self._trail or len(self._trail) > LONGEST_TRAIL:
            raise Unsatisfiable(f"{ref} refers to itself" if ref in self._trail else "references lead too far")
        self._trail.append(ref)
        try:
            named = self._target(ref)
            return isinstance(named, dict) and self.needs_judge(named)
        finally:
            self._trail.pop()

    def _ends(self, schema: Schema | bool, depth: int) -> bool:
        """Whether some value takes at most ``depth`` levels of schemas."""
        if isinstance(schema, bool):
            return schema
        if depth == 0 or "enum" in schema:
            return depth > 0
        if (id(schema), depth) not in self._ending:
            known = all(self._ends(part, depth - 1) for part in self._needed(schema)) and all(
                any(self._ends(part, depth - 1) for part in schema[key]) for key in ("anyOf", "oneOf") if key in schema
            )
            self._ending[id(schema), depth] = schema, known
        return self._ending[id(schema), depth][1]

    def _needed(self, schema: Schema) -> list[Schema | bool]:
        """The schemas that all have their part in any value of a schema."""
        parts = [*schema.get("allOf", ())]
        if "$ref" in schema:
            parts.append(self._target(schema["$ref"]))
        if "type" in schema and not SCALARS.isdisjoint(types(schema)):
            return parts
        properties = schema.get("properties", {})
        parts += [properties.get(name, True) for name in schema.get("required", ())]
        if schema.get("minItems", 0) > 0:
            parts += [*schema.get("prefixItems", ()), schema.get("items", True)][: int(schema["minItems"])]
        return parts


def _alongside(schema: Schema) -> list[Schema | bool]:
    """The schemas that are asked of the same value."""
    negated = [schema["not"]] if "not" in schema else []
    return [*negated, *(part for key in ("allOf", "anyOf", "oneOf") for part in schema.get(key, ()))]


def types_of(value: Any) -> frozenset[str]:
    """The types that a JSON value has."""
    if isinstance(value, float) and value.is_integer():
        return frozenset(("integer", "number"))
    return _TYPES_OF[type(value)]


_TYPES_OF = {
    str: frozenset(("string",)),
    bool: frozenset(("boolean",)),
    int: frozenset(("integer", "number")),
    float: frozenset(("number",)),
    type(None): frozenset(("null",)),
    list: frozenset(("array",)),
    dict: frozenset(("object",)),
}
