"""
vLLM's meters of features that are off by default: tool call parsers, sleep mode.

A server that has the feature puts its collector on the page, after all others as in vLLM; others show nothing of it.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

from prometheus_client import CollectorRegistry

from llmdsim.sim.meter import Counter, Family, Gauge, Histogram, Page

INVOCATIONS = (
    "Total number of ToolParser invocations. Non-streaming increments once per choice; streaming increments once per "
    "delta."
)
MODES = ("streaming", "non_streaming")
OUTCOMES = ("tool_call", "no_tool_call")
REQUEST_TYPES = ("chat_completions", "responses", "other")

OPERATIONS = ("sleep", "wake")
OPERATION_TIMES = (0.01, 0.1, 1.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)


class ToolParsing:
    """``vllm:tool_call_parser_invocations_total``."""

    def __init__(self, registry: CollectorRegistry, model_name: str, wall: Callable[[], float]) -> None:
        family = Family("counter", "vllm:tool_call_parser_invocations_total", INVOCATIONS)
        self._counters: dict[tuple[str, str, str], Counter] = {}
        for key in product(MODES, OUTCOMES, REQUEST_TYPES):
            labels = dict(zip(("mode", "outcome", "request_type"), key, strict=True))
            self._counters[key] = family.add(Counter(wall()), {**labels, "model_name": model_name})
        registry.register(Page([family]))

    def parsed(self, mode: str, outcome: str, request_type: str, times: int = 1) -> None:
        """A choice (``non_streaming``) or ``times`` deltas (``streaming``) went through the parser."""
        known = request_type if request_type in REQUEST_TYPES else "other"
        self._counters[mode, outcome, known].add(times)


class SleepMode:
    """``vllm:sleep_mode_*``; an operation is ``sleep`` or ``wake``."""

    def __init__(self, registry: CollectorRegistry, wall: Callable[[], float]) -> None:
        durations = Family(
            "histogram", "vllm:sleep_mode_operation_duration_seconds", "Duration of one sleep-mode operation."
        )
        in_flight = Family("gauge", "vllm:sleep_mode_operations_in_flight", "Sleep-mode operations currently awaited.")
        self._durations = {
            name: durations.add(Histogram(OPERATION_TIMES, wall()), {"operation": name}) for name in OPERATIONS
        }
        self._in_flight = {name: in_flight.add(Gauge(), {"operation": name}) for name in OPERATIONS}
        registry.register(Page([durations, in_flight]))

    def began(self, operation: str) -> None:
        self._in_flight[operation].value += 1

    def ended(self, operation: str, seconds: float) -> None:
        self._in_flight[operation].value -= 1
        self._durations[operation].observe(seconds)
