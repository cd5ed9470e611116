"""Tests for llmdsim.sim.tools."""

from __future__ import annotations

import json
from collections import Counter
from random import Random

from twisted.trial.unittest import SynchronousTestCase

from llmdsim.config import Config
from llmdsim.faults import Fault
from llmdsim.sim.tools import Call, Tool, draw_calls

WEATHER = Tool(
    "weather",
    {
        "type": "object",
        "properties": {"place": {"enum": ["Paris", "Köln"]}, "days": {"type": "integer"}},
        "required": ["place", "days"],
    },
)
CLOCK = Tool("clock", {})
NEWS = Tool("news", {"properties": {"topic": {"type": "string"}}, "required": ["topic"]})
TOOLS = (WEATHER, CLOCK, NEWS)


def calls(choice="auto", tools=TOOLS, named=None, parallel=True, extra=45, seeds=300):
    config = Config(tool_call_extra_call_probability=extra)
    return [draw_calls(tools, choice, named, parallel, Random(seed), config) for seed in range(seeds)]


def counts(*arguments, **more):
    return {len(drawn) for drawn in calls(*arguments, **more)}


class CountTests(SynchronousTestCase):
    def test_there_are_no_calls_without_tools_or_where_the_choice_is_none(self):
        self.assertEqual(counts("none"), {0})
        self.assertEqual(counts("required", tools=()), {0})

    def test_auto_draws_none_up_to_as_many_as_there_are_tools(self):
        shares = Counter(len(drawn) for drawn in calls("auto"))
        self.assertEqual(set(shares), {0, 1, 2, 3})
        self.assertGreater(shares[0], shares[1])

    def test_required_draws_at_least_one(self):
        self.assertEqual(counts("required"), {1, 2, 3})

    def test_the_flag_says_how_likely_another_call_is(self):
        self.assertEqual(counts("auto", extra=0), {0})
        self.assertEqual(counts("required", extra=0), {1})
        self.assertEqual(counts("auto", extra=100), {3})

    def test_a_named_tool_is_called_once(self):
        drawn = calls("named", named="news", extra=100)
        self.assertEqual({tuple(call.name for call in answer) for answer in drawn}, {("news",)})

    def test_without_parallel_calls_there_is_at_most_one(self):
        self.assertEqual(counts("auto", parallel=False), {0, 1})
        self.assertEqual(counts("required", parallel=False, extra=100), {1})

    def test_a_name_that_no_tool_has_is_refused_as_vllm_does(self):
        fault = self.assertRaises(Fault, calls, "named", named="nope")
        self.assertEqual((fault.kind.status, fault.param), (400, "tool_choice"))

    def test_any_tool_may_be_called_also_twice(self):
        drawn = calls("required", extra=100)
        self.assertEqual({call.name for answer in drawn for call in answer}, {"weather", "clock", "news"})
        self.assertTrue(any(len({call.name for call in answer}) == 1 for answer in drawn))


class ArgumentsTests(SynchronousTestCase):
    def test_arguments_are_json_with_blanks_and_unescaped(self):
        texts = {answer[0].arguments for answer in calls("named", named="weather")}
        for text in texts:
            self.assertRegex(text, r'\A\{"place": "(Paris|Köln)", "days": \d+\}\Z')
            self.assertEqual(json.dumps(json.loads(text), ensure_ascii=False), text)
        self.assertTrue(any("Köln" in text for text in texts))

    def test_parameters_without_a_type_are_an_object(self):
        self.assertEqual(calls("named", named="clock", seeds=1), [[Call("clock", "{}")]])
        self.assertIn("topic", json.loads(calls("named", named="news", seeds=1)[0][0].arguments))

    def test_a_seed_makes_the_calls(self):
        self.assertEqual(calls("auto"), calls("auto"))

    def test_arguments_that_cannot_be_are_refused(self):
        tool = Tool("odd", {"properties": {"a": False}, "required": ["a"]})
        self.assertRaises(Fault, calls, "required", tools=(tool,))
