"""The document of fake metrics, from the flag to the configuration."""

from __future__ import annotations

import json
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from llmdsim.config import ConfigError, Function, dump, load


def fake(document: dict[str, Any]) -> Any:
    return load(["m", "--fake-metrics", json.dumps(document)], {}).fake_metrics


REASONS = "(valid reasons: [stop length tool_calls remote_decode cache_threshold])"
SHAPES = "must be one of the following: oscillate, ramp, rampreset, squarewave"
PARAMETER = "invalid fake metrics generation parameter"
BROKEN: tuple[tuple[dict[str, Any], str], ...] = (
    ({"running-requests": -1}, "fake metrics request counters cannot be negative"),
    ({"waiting-requests": -1}, "fake metrics request counters cannot be negative"),
    ({"kv-cache-usage": 1.5}, "fake metrics KV cache usage must be between 0 and 1"),
    ({"running-requests": "jump:1:2:3s"}, f"invalid fake metrics generation function jump, {SHAPES}"),
    ({"waiting-requests": "ramp:-1:2:3s"}, f"{PARAMETER}: start and end must not be negative"),
    ({"waiting-requests": "ramp:1:2:-3s"}, f"{PARAMETER}: start and end must not be negative"),
    ({"kv-cache-usage": "ramp:0:1:0"}, f"{PARAMETER}: period must be positive"),
    ({"kv-cache-usage": "ramp:0:2:3s"}, "fake metrics KV cache usage start and end must be between 0 and 1"),
    ({"ttft-buckets-values": [1] * 24}, "fake time-to-first-token array is too long"),
    ({"ttft-buckets-values": [-1]}, "time-to-first-token fake metrics should contain only non-negative values"),
    ({"tpot-buckets-values": [1] * 21}, "fake time-per-output-token array is too long"),
    ({"tpot-buckets-values": [-1]}, "time-per-output-token fake metrics should contain only non-negative values"),
    ({"request-success-total": {"stop": -1}}, "fake metrics request-success-total.stop cannot be negative, got -1"),
    ({"request-success-total": {"rain": 1}}, f"invalid finish reason in request-success-total: rain {REASONS}"),
    ({"request-prompt-tokens": [0, -1]}, "fake metrics request-prompt-tokens cannot contain negative values"),
    ({"request-tpot-buckets-values": [-1]}, "fake metrics request-tpot-buckets-values cannot contain negative values"),
    ({"prefix-cache-hits": -1}, "fake metrics prefix-cache-hits cannot be negative"),
    ({"prefix-cache-queries": -1}, "fake metrics prefix-cache-queries cannot be negative"),
    ({"prefix-cache-hits": 1}, "fake metrics prefix-cache-hits and prefix-cache-queries must be specified together"),
    (
        {"prefix-cache-hits": 2, "prefix-cache-queries": 1},
        "fake metrics prefix-cache-hits cannot exceed prefix-cache-queries",
    ),
)
FUNCTION = "unknown format in fake metric generation function: "


class Rules(SynchronousTestCase):
    def test_each_broken_rule_has_its_text(self) -> None:
        for document, text in BROKEN:
            self.assertEqual(str(self.assertRaises(ConfigError, fake, document)), text)

    def test_a_function_that_cannot_be_read_says_why(self) -> None:
        for written, reason in {
            "ramp:1:2": "need func:start:end:period in fake metric generation function",
            "ramp:1:2:170": 'time: missing unit in duration "170"',
            "ramp:a:2:1s": "expected a number",
        }.items():
            error = str(self.assertRaises(ConfigError, fake, {"running-requests": written}))
            self.assertTrue(error.endswith(f'for "--fake-metrics" flag: {FUNCTION}{reason}'), error)

    def test_a_member_of_the_wrong_type_is_refused(self) -> None:
        wrong: tuple[dict[str, Any], ...] = (
            {"request-prompt-tokens": 1},
            {"request-prompt-tokens": [1.5]},
            {"total-prompt-tokens": "many"},
            {"running-requests": True},
            {"kv-cache-usage": float("nan")},
            {"request-success-total": []},
            {"loras": [1]},
        )
        for document in wrong:
            self.assertRaises(ConfigError, fake, document)


class Reading(SynchronousTestCase):
    def test_members_are_read_and_unknown_ones_dropped(self) -> None:
        lora = {"running": "a", "waiting": "", "timestamp": 5}
        read = fake(
            {
                "running-requests": "ramp:10:35:10s",
                "kv-cache-usage": 0.4,
                "ttft-buckets-values": [1, 2],
                "loras": [lora, json.dumps(lora)],
                "waiting-requests": None,
                "sunshine": 1,
            }
        )
        self.assertEqual(
            read,
            {
                "running-requests": Function("ramp", 10.0, 35.0, 10.0),
                "kv-cache-usage": 0.4,
                "ttft-buckets-values": (1, 2),
                "loras": (lora, lora),
            },
        )

    def test_at_start_missing_finish_reasons_are_zero(self) -> None:
        reasons = fake({"request-success-total": {"stop": 3}})["request-success-total"]
        self.assertEqual(reasons, {"stop": 3, "length": 0, "tool_calls": 0, "remote_decode": 0, "cache_threshold": 0})

    def test_the_dump_has_the_arrays_always_and_the_numbers_when_set(self) -> None:
        line = '--fake-metrics {"running-requests":"ramp:10:35:10s","total-prompt-tokens":9,"loras":[]}'
        shown = dump(load(["m", *line.split()], {}))["fake-metrics"]
        self.assertEqual((shown["running-requests"], shown["total-prompt-tokens"]), ("ramp:10:35:10s", 9))
        self.assertIsNone(shown["request-success-total"])
        self.assertIsNone(shown["ttft-buckets-values"])
        self.assertEqual(shown["loras"], [])
        self.assertNotIn("waiting-requests", shown)
