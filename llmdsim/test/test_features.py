"""The meters of features that are off by default."""

from __future__ import annotations

from prometheus_client import CollectorRegistry
from twisted.trial.unittest import SynchronousTestCase

from llmdsim.sim.features import SleepMode, ToolParsing


class FeatureTests(SynchronousTestCase):
    def setUp(self):
        self.registry = CollectorRegistry(auto_describe=False)

    def values(self, name):
        """The values of those series that are not 0, by the values of their labels."""
        samples = [sample for metric in self.registry.collect() for sample in metric.samples if sample.name == name]
        return {tuple(sample.labels.values()): sample.value for sample in samples if sample.value}

    def test_a_parser_is_counted_by_mode_outcome_and_api(self):
        parsing = ToolParsing(self.registry, "base", lambda: 1000.0)
        parsing.parsed("streaming", "tool_call", "responses", 4)
        parsing.parsed("non_streaming", "no_tool_call", "messages")
        self.assertEqual(
            self.values("vllm:tool_call_parser_invocations_total"),
            {
                ("streaming", "tool_call", "responses", "base"): 4,
                ("non_streaming", "no_tool_call", "other", "base"): 1,
            },
        )

    def test_an_operation_is_in_flight_until_it_has_ended(self):
        mode = SleepMode(self.registry, lambda: 1000.0)
        mode.began("sleep")
        self.assertEqual(self.values("vllm:sleep_mode_operations_in_flight"), {("sleep",): 1})
        mode.ended("sleep", 0.25)
        self.assertEqual(self.values("vllm:sleep_mode_operations_in_flight"), {})
        self.assertEqual(self.values("vllm:sleep_mode_operation_duration_seconds_sum"), {("sleep",): 0.25})
