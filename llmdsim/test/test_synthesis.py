"""Tests for llmdsim.sim.synthesis.values: values that are drawn fit their schemas, whatever these are."""

from __future__ import annotations

import json
from random import Random

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from twisted.trial.unittest import SynchronousTestCase

from llmdsim.faults import Fault
from llmdsim.sim.synthesis.texts import FORMATS
from llmdsim.sim.synthesis.values import Ranges, synthesize

RANGES = Ranges((0, 100), (0.0, 100.0), (1, 5), 0.5, 0.5)
NAMES = st.sampled_from(["a", "b", "city", "x-1", "größe"])
PATTERNS = st.sampled_from([r"^\d{3}-\d{4}$", "abc", "[a-f]+", "^x", "z$", r"^(?=.*\d)[a-z\d]{4,}$"])
DEFINED = st.sampled_from(["list", "tree", "name"])
DEFS = {
    "name": {"type": "string", "minLength": 1},
    "list": {
        "type": "object",
        "properties": {"head": {"type": "integer"}, "tail": {"anyOf": [{"$ref": "#/$defs/list"}, {"type": "null"}]}},
        "required": ["head", "tail"],
        "additionalProperties": False,
    },
    "tree": {
        "type": "object",
        "properties": {"name": {"$ref": "#/$defs/name"}, "parts": {"items": {"$ref": "#/$defs/tree"}}},
        "required": ["parts"],
    },
}


def ordered(values):
    return st.lists(values, min_size=2, max_size=2).map(sorted)


def some_of(**keywords):
    return st.fixed_dictionaries({}, optional=keywords)


def typed(type, *parts):
    return st.tuples(*parts).map(lambda parts: {"type": type, **{key: part[key] for part in parts for key in part}})


def between(low, high, values):
    bounds = ordered(values)
    whole = bounds.map(lambda pair: {low: pair[0], high: pair[1]})
    return st.one_of(
        st.just({}), whole, whole.map(lambda pair: {low: pair[low]}), whole.map(lambda pair: {high: pair[high]})
    )


LENGTHS = between("minLength", "maxLength", st.integers(0, 40))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.sampled_from([0.0, 1.5, "", "é", "word"]),
    lambda parts: st.lists(parts, max_size=2) | st.dictionaries(NAMES, parts, max_size=2),
    max_leaves=3,
)
LEAVES = st.one_of(
    typed("string", LENGTHS),
    typed("string", some_of(format=st.sampled_from([*FORMATS, "unheard-of"]))),
    typed("string", PATTERNS.map(lambda pattern: {"pattern": pattern}), some_of(minLength=st.integers(0, 8))),
    typed("integer", between("minimum", "maximum", st.integers(-500, 500))),
    typed(
        "integer", st.integers(1, 60).map(lambda step: {"multipleOf": step}), some_of(minimum=st.integers(-500, 500))
    ),
    typed("number", between("minimum", "maximum", st.floats(-1e6, 1e6) | st.integers(-50, 50))),
    typed("number", some_of(exclusiveMinimum=st.floats(-200, 0), exclusiveMaximum=st.floats(1, 200))),
    typed("number", some_of(multipleOf=st.sampled_from([0.5, 0.1, 0.01, 0.07, 3, 2.5]))),
    st.sampled_from([{}, True, {"type": "boolean"}, {"type": "null"}, {"type": ["string", "null"]}, {"minimum": 7}]),
    st.lists(VALUES, min_size=1, max_size=4).map(lambda members: {"enum": members}),
    VALUES.map(lambda value: {"const": value}),
    DEFINED.map(lambda name: {"$ref": f"#/$defs/{name}"}),
    st.sampled_from([{"not": {"type": ["string", "null"]}}, {"type": "integer", "not": {"maximum": 200}}]),
)


def array(items):
    return typed("array", items.map(lambda items: {"items": items}), between("minItems", "maxItems", st.integers(0, 4)))


def pair(items):
    return typed(
        "array", st.lists(items, max_size=3).map(lambda items: {"prefixItems": items, "items": {"type": "null"}})
    )


def record(fields):
    properties = st.dictionaries(NAMES, fields, max_size=4)
    required = st.lists(NAMES, unique=True, max_size=3)
    rest = st.one_of(st.just({}), fields.map(lambda rest: {"additionalProperties": rest}))
    return st.builds(
        lambda properties, required, rest: {"type": "object", "properties": properties, "required": required, **rest},
        properties,
        required,
        rest,
    )


def tagged(fields):
    branches = st.lists(st.dictionaries(NAMES, fields, max_size=2), min_size=1, max_size=3)
    return branches.map(
        lambda branches: {
            "oneOf": [
                {"type": "object", "properties": {"kind": {"const": index}, **branch}, "required": ["kind"]}
                for index, branch in enumerate(branches)
            ]
        }
    )


def joined(fields):
    return st.builds(
        lambda one, other, condition: {
            "allOf": [
                {"type": "object", "properties": {"one": one}},
                {"properties": {"other": other}, "minProperties": 1},
            ],
            "if": {"properties": {"one": {"type": "string"}}},
            "then": {"required": ["one"]},
            "dependentRequired": condition,
        },
        fields,
        fields,
        st.sampled_from([{}, {"one": ["other"]}, {"other": ["more"]}]),
    )


SCHEMAS = st.recursive(
    LEAVES,
    lambda parts: st.one_of(
        array(parts),
        pair(parts),
        record(parts),
        st.lists(parts, min_size=1, max_size=3).map(lambda branches: {"anyOf": branches}),
        tagged(parts),
        joined(parts),
    ),
    max_leaves=8,
)
ROOTS = SCHEMAS.map(
    lambda schema: {"$defs": DEFS, "allOf": [schema]} if isinstance(schema, bool) else {"$defs": DEFS, **schema}
)
RANDOM = st.integers(0, 2**32).map(Random)
FLAGS = st.builds(
    lambda integers, numbers, lengths, top, below: Ranges(tuple(integers), tuple(numbers), tuple(lengths), top, below),
    ordered(st.integers(-1000, 1000)),
    ordered(st.floats(-1000, 1000)),
    ordered(st.integers(0, 4)),
    st.sampled_from([0, 0.5, 1]),
    st.sampled_from([0, 0.5, 1]),
)
PATIENT = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))

SCHEMA: st.SearchStrategy = st.deferred(lambda: WILD)
WILD: st.SearchStrategy = st.booleans() | some_of(
    type=st.sampled_from(["string", "integer", "number", "object", "array", ["null", "boolean"], ["object", "array"]]),
    enum=st.lists(VALUES, max_size=3),
    const=VALUES,
    minimum=st.integers(-3, 3),
    exclusiveMaximum=st.floats(-3, 9),
    multipleOf=st.sampled_from([2, 0.1, 7]),
    minLength=st.integers(0, 9),
    maxLength=st.integers(0, 9),
    pattern=PATTERNS,
    properties=st.dictionaries(NAMES, SCHEMA, max_size=2),
    patternProperties=st.dictionaries(PATTERNS, SCHEMA, max_size=1),
    propertyNames=st.sampled_from([{"pattern": "^[a-z]+$"}, {"maxLength": 1}]),
    additionalProperties=SCHEMA,
    required=st.lists(NAMES, max_size=2, unique=True),
    minProperties=st.integers(0, 3),
    maxProperties=st.integers(0, 3),
    items=SCHEMA,
    prefixItems=st.lists(SCHEMA, min_size=1, max_size=2),
    contains=SCHEMA,
    minContains=st.integers(0, 2),
    uniqueItems=st.booleans(),
    minItems=st.integers(0, 3),
    maxItems=st.integers(0, 3),
    unevaluatedProperties=st.booleans(),
    anyOf=st.lists(SCHEMA, min_size=1, max_size=2),
    oneOf=st.lists(SCHEMA, min_size=1, max_size=2),
    allOf=st.lists(SCHEMA, min_size=1, max_size=2),
    dependentSchemas=st.dictionaries(NAMES, SCHEMA, max_size=1),
    **{"if": SCHEMA, "then": SCHEMA, "else": SCHEMA, "not": SCHEMA, "$ref": st.sampled_from(["#", "#/$defs/a"])},
)


class SynthesisPropertyTests(SynchronousTestCase):
    @PATIENT
    @given(ROOTS, RANDOM, FLAGS)
    def test_a_value_fits_its_schema(self, schema, rng, ranges):
        value = synthesize(schema, rng, ranges)
        Draft202012Validator(schema).validate(value)
        self.assertEqual(json.loads(json.dumps(value)), value)

    @PATIENT
    @given(ROOTS, st.integers())
    def test_a_seed_makes_a_value(self, schema, seed):
        self.assertEqual(synthesize(schema, Random(seed), RANGES), synthesize(schema, Random(seed), RANGES))

    @PATIENT
    @given(SCHEMA, SCHEMA, RANDOM)
    def test_any_schema_gives_a_value_that_fits_or_a_fault(self, part, defined, rng):
        schema = {"$defs": {"a": defined}, "allOf": [part]}
        try:
            value = synthesize(schema, rng, RANGES)
        except Fault as fault:
            self.assertNotIn("\n", fault.message)
            return
        Draft202012Validator(schema).validate(value)

    @PATIENT
    @given(st.dictionaries(st.sampled_from(["type", "items", "required", "enum", "minimum", "$ref", "anyOf"]), VALUES))
    def test_nonsense_gives_a_value_or_a_fault(self, schema):
        try:
            synthesize(schema, Random(1), RANGES)
        except Fault as fault:
            self.assertNotIn("\n", fault.message)
