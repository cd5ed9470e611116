"""Tests for llmdsim.sim.synthesis.ranges and what synthesis makes of it."""

from __future__ import annotations

from random import Random

from twisted.trial.unittest import SynchronousTestCase

from llmdsim.config import Config
from llmdsim.faults import Fault
from llmdsim.sim.synthesis.values import Ranges, synthesize


def values(schema, count=200, **flags):
    ranges = Ranges.of(Config(**flags))
    return [synthesize(schema, Random(seed), ranges) for seed in range(count)]


class RangesTests(SynchronousTestCase):
    def test_integers_take_both_ends_of_the_flags_range(self):
        drawn = values({"type": "integer"}, min_tool_call_integer_param=3, max_tool_call_integer_param=5)
        self.assertEqual(set(drawn), {3, 4, 5})

    def test_numbers_stay_in_the_flags_range(self):
        drawn = values({"type": "number"}, min_tool_call_number_param=-2.5, max_tool_call_number_param=-2.0)
        self.assertTrue(all(isinstance(number, float) and -2.5 <= number <= -2.0 for number in drawn))
        self.assertGreater(len(set(drawn)), 100)

    def test_the_flags_range_is_cut_to_the_schemas_bounds(self):
        self.assertEqual(set(values({"type": "integer", "minimum": 99})), {99, 100})
        self.assertEqual(set(values({"type": "integer", "exclusiveMaximum": 2})), {0, 1})

    def test_where_the_flags_range_lies_outside_the_schema_wins(self):
        self.assertTrue(
            all(500 <= value <= 510 for value in values({"type": "integer", "minimum": 500, "maximum": 510}))
        )
        self.assertTrue(all(value >= 1e6 for value in values({"type": "number", "minimum": 1e6})))
        self.assertTrue(all(value <= -7 for value in values({"type": "integer", "maximum": -7})))

    def test_arrays_have_the_flags_lengths(self):
        drawn = values({"type": "array"}, min_tool_call_array_param_length=2, max_tool_call_array_param_length=4)
        self.assertEqual({len(array) for array in drawn}, {2, 3, 4})

    def test_a_bound_of_an_array_takes_the_place_of_the_flag(self):
        self.assertEqual({len(array) for array in values({"type": "array", "minItems": 4})}, {4, 5})
        self.assertEqual({len(array) for array in values({"type": "array", "minItems": 7})}, {7})
        self.assertEqual({len(array) for array in values({"type": "array", "maxItems": 7})}, {1, 2, 3, 4, 5, 6, 7})
        self.assertEqual({len(array) for array in values({"type": "array", "maxItems": 0})}, {0})

    def test_a_tuple_is_whole_unless_its_bounds_say_otherwise(self):
        schema = {"type": "array", "prefixItems": [{"type": "string"}, {"type": "integer"}]}
        self.assertEqual({len(array) for array in values(schema)}, {2})
        self.assertEqual({len(array) for array in values({**schema, "minItems": 0, "maxItems": 1})}, {0, 1})

    def test_optional_properties_are_given_as_often_as_the_flags_say_on_top_and_below(self):
        inner = {"type": "object", "properties": {"b": {"type": "null"}}}
        schema = {"type": "object", "properties": {"a": inner}}
        always, never = (
            {"tool_call_not_required_param_probability": 100},
            {"tool_call_not_required_param_probability": 0},
        )
        below = "object_tool_call_not_required_field_probability"
        self.assertEqual(values(schema, 20, **never), [{}] * 20)
        self.assertEqual(values(schema, 20, **always, **{below: 0}), [{"a": {}}] * 20)
        self.assertEqual(values(schema, 20, **always, **{below: 100}), [{"a": {"b": None}}] * 20)

    def test_required_properties_are_always_given_in_the_order_of_the_schema(self):
        schema = {"type": "object", "properties": {"b": {}, "a": {}}, "required": ["a", "b"]}
        self.assertTrue(all(list(value) == ["b", "a"] for value in values(schema)))

    def test_an_array_whose_bounds_cross_is_refused(self):
        schema = {
            "type": "object",
            "properties": {"a": {"type": "array", "minItems": 3, "maxItems": 2}},
            "required": ["a"],
        }
        message = "Grammar error: Unsatisfiable schema: minItems (3) is greater than maxItems (2) (at $.a)"
        fault = self.assertRaises(Fault, values, schema)
        self.assertEqual((fault.message, fault.kind.status), (message, 400))
