"""The rooms schemas, merging and documents: what synthesis makes of single keywords, and what it refuses."""

from __future__ import annotations

from random import Random

from twisted.trial.unittest import SynchronousTestCase

from llmdsim.faults import Fault
from llmdsim.sim.synthesis.values import Ranges, synthesize

RANGES = Ranges((0, 100), (0.0, 100.0), (1, 5), 0.5, 0.5)


def values(schema, count=50):
    return [synthesize(schema, Random(seed), RANGES) for seed in range(count)]


class KeywordTests(SynchronousTestCase):
    def assertAll(self, schema, fits):
        for value in values(schema):
            self.assertTrue(fits(value), value)

    def test_every_type_of_a_union_is_drawn(self):
        kinds = {type(value) for value in values({"type": ["string", "null", "boolean", "integer"]})}
        self.assertEqual(kinds, {str, type(None), bool, int})

    def test_a_missing_type_is_told_from_the_keywords(self):
        self.assertAll({"minimum": 5}, lambda value: value >= 5)
        self.assertAll({"required": ["a"]}, lambda value: "a" in value)
        self.assertAll({"minLength": 30}, lambda value: len(value) >= 30)
        self.assertAll({"items": {"type": "null"}}, lambda value: set(value) == {None})
        self.assertAll({}, lambda value: isinstance(value, str))

    def test_members_of_an_enum_that_the_type_forbids_are_not_drawn(self):
        self.assertEqual(set(values({"type": "string", "enum": ["a", 1, None]})), {"a"})
        self.assertEqual(set(values({"enum": [1, 5, 9], "minimum": 4})), {5, 9})

    def test_a_map_without_names_has_words_for_names(self):
        self.assertAll(
            {"additionalProperties": {"type": "integer"}, "minProperties": 60}, lambda value: len(value) == 60
        )

    def test_an_object_that_names_nothing_is_empty(self):
        self.assertAll({"type": "object"}, lambda value: value == {})

    def test_names_follow_their_patterns(self):
        schema = {"type": "object", "patternProperties": {"^x_[a-z]$": {"type": "null"}}, "minProperties": 3}
        self.assertAll(schema, lambda value: all(len(name) == 3 and name.startswith("x_") for name in value))

    def test_elements_are_different_also_beyond_the_flags_range(self):
        schema = {"type": "array", "items": {"type": "integer"}, "uniqueItems": True, "minItems": 90}
        self.assertAll(schema, lambda value: len(set(value)) == len(value) >= 90)

    def test_a_list_that_refers_to_itself_ends(self):
        schema = {
            "type": "object",
            "properties": {"next": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}},
            "required": ["next"],
        }
        self.assertAll(schema, lambda value: str(value).count("next") < 20)

    def test_a_tree_that_would_never_stop_growing_stays_small(self):
        schema = {"type": "object", "properties": {"kids": {"items": {"$ref": "#"}}}, "required": ["kids"]}
        self.assertAll(schema, lambda value: str(value).count("kids") < 2000)

    def test_references_lead_by_pointer_by_anchor_and_behind_the_schemas_own_id(self):
        parts = {"a~/b": {"const": 1}, "c": {"$anchor": "here", "const": 2}}
        for ref, value in (("#/parts/a~0~1b", 1), ("#here", 2), ("urn:x#/parts/c", 2)):
            self.assertEqual(values({"$id": "urn:x", "parts": parts, "$ref": ref}, 1), [value])

    def test_branches_that_contradict_the_rest_are_not_drawn(self):
        self.assertAll({"type": "string", "anyOf": [{"type": "integer"}, {"const": "a"}]}, lambda value: value == "a")
        closed = {"properties": {"a": {}}, "required": ["a"], "additionalProperties": False}
        self.assertAll({"allOf": [closed, {"properties": {"b": {}}}]}, lambda value: set(value) == {"a"})

    def test_what_several_schemas_ask_of_the_same_value_holds_at_once(self):
        low, high = {"type": "integer", "minimum": 50}, {"type": "number", "maximum": 52, "multipleOf": 2}
        for keyword in ("additionalProperties", "items"):
            kind = "array" if keyword == "items" else "object"
            schema = {"type": kind, "allOf": [{keyword: low}, {keyword: high}], "minProperties": 2, "minItems": 2}
            for value in values(schema):
                parts = list(value.values() if isinstance(value, dict) else value)
                self.assertGreaterEqual(len(parts), 2)
                self.assertLessEqual(set(parts), {50, 52})

    def test_earlier_drafts_are_understood(self):
        self.assertAll(
            {"type": "integer", "minimum": 4, "exclusiveMinimum": True, "maximum": 5}, lambda value: value == 5
        )
        pair = {"type": "array", "items": [{"const": 1}, {"const": 2}], "additionalItems": False}
        self.assertAll(pair, lambda value: value == [1, 2])

    def test_null_keywords_count_as_absent(self):
        self.assertAll({"type": "integer", "enum": None, "items": None, "minimum": None}, lambda value: value >= 0)

    def test_a_constant_may_be_null(self):
        self.assertAll({"const": None}, lambda value: value is None)


class RefusalTests(SynchronousTestCase):
    def assertRefused(self, schema, reason):
        fault = self.assertRaises(Fault, synthesize, schema, Random(1), RANGES)
        self.assertEqual(fault.kind.status, 400)
        self.assertIn(reason, fault.message)
        self.assertNotIn("\n", fault.message)

    def test_an_unknown_type_is_refused_as_vllm_does(self):
        self.assertRefused({"type": "nonsense"}, "Grammar error: Invalid type: nonsense")

    def test_malformed_keywords_are_refused_with_their_place(self):
        self.assertRefused({"properties": {"a": {"required": True}}}, "(at #/properties/a/required)")
        self.assertRefused({"items": 5}, "(at #/items)")
        self.assertRefused({"anyOf": {}}, "anyOf must be an array")
        self.assertRefused({"maxItems": -1}, "maxItems must be an integer that is not negative")
        self.assertRefused(None, "a schema must be an object or a boolean")

    def test_references_to_nothing_are_refused(self):
        self.assertRefused({"$ref": "#/$defs/a"}, "#/$defs/a names nothing in the schema")
        self.assertRefused({"$ref": "https://example.com/a"}, "is outside of the schema")

    def test_what_only_asks_for_itself_is_refused(self):
        self.assertRefused({"$ref": "#"}, "# refers to itself")
        self.assertRefused({"anyOf": [{"$ref": "#"}, {"type": "null"}]}, "# refers to itself")
        self.assertRefused({"properties": {"a": {"$ref": "#"}}, "required": ["a"]}, "it never ends (at $.a.a.a")

    def test_what_cannot_be_is_refused_with_its_place(self):
        inner = {"type": "integer", "minimum": 5, "maximum": 4}
        schema = {"properties": {"a": {"items": inner}}, "required": ["a"]}
        self.assertRefused(schema, "no number has minimum 5, maximum 4 (at $.a[0])")
        self.assertRefused({"allOf": [{"type": "string"}, {"type": "null"}]}, "no value is both string and null (at $)")
        self.assertRefused({"pattern": "("}, "( is not a pattern")
        self.assertRefused(False, "nothing is allowed")

    def test_what_is_too_large_is_refused(self):
        self.assertRefused({"type": "array", "minItems": 10**9}, "too large")
        self.assertRefused({"type": "object", "minProperties": 10**9}, "too large")
        self.assertRefused({"type": "string", "minLength": 10**9}, "is more than a string may have here")

    def test_what_is_nested_too_deeply_is_refused(self):
        for levels in (200, 900):
            schema = {"type": "null"}
            for _ in range(levels):
                schema = {"items": schema, "minItems": 1}
            self.assertRefused(schema, "nested too deeply")
