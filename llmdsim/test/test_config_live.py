"""Changes to a running configuration."""

from __future__ import annotations

import json
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from llmdsim.config import Config, ConfigError, load

FAKE = {"running-requests": 1, "request-prompt-tokens": [1, 2, 3], "total-prompt-tokens": 12345}


def running(fake: dict[str, Any] | None = None) -> Config:
    argv = ["m", "--failure-types", "rate_limit", "--inter-token-latency", "5"]
    return load(argv if fake is None else [*argv, "--fake-metrics", json.dumps(fake)], {})


class Changes(SynchronousTestCase):
    def refused(self, config: Config, document: dict[str, Any]) -> str:
        return str(self.assertRaises(ConfigError, config.amend, document))

    def test_only_some_options_may_change(self) -> None:
        self.assertEqual(self.refused(running(), {"port": 1}), "field 'port' is not admin-configurable")
        self.assertEqual(self.refused(running(), {"moon": None}), "field 'moon' is not admin-configurable")

    def test_durations_are_go_durations_or_milliseconds(self) -> None:
        config = running().amend({"time-to-first-token": "1.5s", "prefill-overhead": 2.5, "inter-token-latency": None})
        self.assertEqual((config.time_to_first_token, config.prefill_overhead), (1.5, 0.0025))
        self.assertEqual(config.inter_token_latency, 0.005)

    def test_a_bad_duration_is_found_before_an_unknown_key(self) -> None:
        text = self.refused(running(), {"moon": 1, "prefill-overhead": "1d"})
        self.assertEqual(text, 'field "prefill-overhead": time: unknown unit "d" in duration "1d"')

    def test_a_value_of_the_wrong_type_is_named(self) -> None:
        text = self.refused(running(), {"failure-injection-rate": "x"})
        self.assertEqual(text, "failed to unmarshal payload: failure-injection-rate: expected an integer")

    def test_the_result_must_keep_the_rules(self) -> None:
        text = self.refused(running(), {"failure-injection-rate": 101})
        self.assertEqual(text, "failure injection rate should be between 0 and 100")

    def test_no_failure_types_are_all_of_them(self) -> None:
        for written in ("null", "[]"):
            self.assertEqual(running().amend({"failure-types": json.loads(written)}).failure_types, ())


class FakeMetrics(SynchronousTestCase):
    def amended(self, *updates: dict[str, Any]) -> dict[str, Any]:
        config = running(FAKE)
        for update in updates:
            config = config.amend({"fake-metrics": update})
        return dict(config.fake_metrics or {})

    def test_real_metrics_cannot_become_fake(self) -> None:
        error = self.assertRaises(ConfigError, running().amend, {"fake-metrics": {}, "failure-injection-rate": 5})
        self.assertEqual(str(error), "the simulator is reporting real metrics; fake metrics cannot be updated")

    def test_members_that_are_not_given_stay(self) -> None:
        before = self.amended()
        self.assertEqual(self.amended({"running-requests": None}), before)
        self.assertEqual(self.amended({"running-requests": 7}), {**before, "running-requests": 7})

    def test_a_new_array_counts_its_total_afresh(self) -> None:
        after = self.amended({"request-prompt-tokens": [10, 20]})
        self.assertEqual(after, {"running-requests": 1, "request-prompt-tokens": (10, 20)})
        after = self.amended({"request-prompt-tokens": [10, 20]}, {"total-prompt-tokens": 58})
        self.assertEqual((after["request-prompt-tokens"], after["total-prompt-tokens"]), ((10, 20), 58))

    def test_an_update_of_the_finish_reasons_sets_exactly_those(self) -> None:
        self.assertEqual(self.amended({"request-success-total": {"stop": 1}})["request-success-total"], {"stop": 1})

    def test_hits_and_queries_are_checked_after_the_merge(self) -> None:
        both = {"prefix-cache-hits": 1, "prefix-cache-queries": 2}
        self.assertEqual(self.amended(both, {"prefix-cache-hits": 2})["prefix-cache-hits"], 2)
        self.assertRaises(ConfigError, self.amended, both, {"prefix-cache-hits": 3})
