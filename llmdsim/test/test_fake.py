from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from llmdsim.config import Function, fake
from llmdsim.sim.fake import value_at
from llmdsim.sim.meter import render
from llmdsim.test.doors import Door, text
from llmdsim.test.support import WALL, Ear, adapter, adapters, make_rank, request, serve

COMMON = {"engine": "0", "model_name": "m"}
ALWAYS = {"vllm:lora_requests_info", "vllm:cache_config_info"}


class FakeCase(SynchronousTestCase):
    def start(self, members: dict[str, Any], **flags: Any) -> None:
        given = fake.complete(fake.read(members) or {})
        self.rank, self.clock = make_rank(fake_metrics=given, fake_metrics_refresh_interval=0.125, **flags)

    def update(self, members: dict[str, Any]) -> None:
        self.rank.reconfigure(self.rank.config.amend({"fake-metrics": members}))

    def value(self, name: str, **labels: str) -> float | None:
        return self.rank.page.registry.get_sample_value(f"vllm:{name}", {**COMMON, **labels})

    def names(self) -> set[str]:
        return {metric.name for metric in self.rank.page.registry.collect()}


class SeriesTests(FakeCase):
    def test_only_what_is_configured_is_shown(self) -> None:
        self.start({"running-requests": 3, "total-prompt-tokens": 7})
        self.assertEqual(self.names() - ALWAYS, {"vllm:num_requests_running", "vllm:prompt_tokens"})
        self.assertEqual((self.value("num_requests_running"), self.value("prompt_tokens_total")), (3, 7))

    def test_what_really_happens_changes_nothing(self) -> None:
        self.start({"request-success-total": {"stop": 5}}, lora_modules=adapters("l1"), max_num_seqs=1)
        before = render(self.rank.page.registry, "")
        self.successResultOf(serve(self.rank, request(2), Ear(self.clock)))
        self.successResultOf(serve(self.rank, request(2, model=adapter("l1")), Ear(self.clock)))
        self.assertEqual(render(self.rank.page.registry, ""), before)

    def test_empty_arrays_have_no_series(self) -> None:
        self.start({"ttft-buckets-values": [], "request-prompt-tokens": []})
        self.assertEqual(self.names(), ALWAYS)

    def test_arrays_are_counts_in_each_bucket(self) -> None:
        self.start({"ttft-buckets-values": [1, 2, *[0] * 20, 3]})
        name = "time_to_first_token_seconds"
        buckets = [self.value(f"{name}_bucket", le=le) for le in ("0.001", "0.005", "2560.0", "+Inf")]
        self.assertEqual(buckets, [1, 3, 3, 6])
        self.assertEqual(self.value(f"{name}_count"), 6)
        self.assertAlmostEqual(self.value(f"{name}_sum"), 0.001 + 2 * 0.005 + 3 * 2561)

    def test_token_histograms_have_the_buckets_of_the_context(self) -> None:
        self.start({"request-generation-tokens": [0, 0, 0, 1]}, max_model_len=5)
        name = "request_generation_tokens"
        self.assertEqual((self.value(f"{name}_bucket", le="5.0"), self.value(f"{name}_sum")), (0, 6))

    def test_totals_are_given_or_counted_from_the_array(self) -> None:
        arrays = {"request-prompt-tokens": [10, 20, 30], "request-generation-tokens": [1]}
        self.start({**arrays, "total-generation-tokens": 12345})
        self.assertEqual(self.value("prompt_tokens_total"), 10 * 1 + 20 * 2 + 30 * 5)
        self.assertEqual(self.value("generation_tokens_total"), 12345)

    def test_reasons_that_are_not_given_are_0_at_start(self) -> None:
        self.start({"request-success-total": {"length": 4}})
        counts = {reason: self.value("request_success_total", finished_reason=reason) for reason in fake.REASONS}
        self.assertEqual(counts, {**dict.fromkeys(fake.REASONS, 0), "length": 4})

    def test_deprecated_names_follow_unless_strict(self) -> None:
        members = {"kv-cache-usage": 0.5, "tpot-buckets-values": [1]}
        self.start(members)
        self.assertEqual(self.value("gpu_cache_usage_perc"), 0.5)
        self.assertEqual(self.value("time_per_output_token_seconds_count"), 1)
        shown = self.names()
        self.start(members, strict=True)
        deprecated = {"vllm:gpu_cache_usage_perc", "vllm:time_per_output_token_seconds"}
        self.assertEqual(shown - self.names(), deprecated)

    def test_every_member_of_the_document_has_a_series(self) -> None:
        gauges = dict.fromkeys(fake.GAUGES, 1)
        arrays = {key: [1] for key in (*fake.TIMES, *fake.ARRAYS)}
        self.start({**gauges, **arrays, **dict.fromkeys(fake.COUNTERS, 1), "request-success-total": {}})
        real = {metric.name for metric in self.rank.meters.registry.collect()}
        self.assertLessEqual(self.names(), real)
        members = len((*gauges, *arrays, *fake.COUNTERS, "request-success-total"))
        self.assertEqual(len(self.names()), members + len(ALWAYS) + 2)  # two have an older name besides

    def test_adapters_are_those_of_the_document(self) -> None:
        states = [{"running": "a,b", "waiting": "c", "timestamp": 12}, {"running": "a"}]
        self.start({"loras": states}, max_loras=2)
        (family,) = [one for one in self.rank.page.registry.collect() if one.name == "vllm:lora_requests_info"]
        shown = [(*sorted(sample.labels.items()), sample.value) for sample in family.samples]
        most = ("max_lora", "2")
        first = (most, ("running_lora_adapters", "a,b"), ("waiting_lora_adapters", "c"), 12)
        second = (most, ("running_lora_adapters", "a"), ("waiting_lora_adapters", ""), WALL)
        self.assertEqual(shown, [first, second])

    def test_without_adapters_there_is_one_entry_of_the_time_when_it_was_set(self) -> None:
        self.start({"loras": [{"running": "a"}]})
        self.clock.advance(4)
        self.update({"loras": []})
        self.clock.advance(4)
        nobody = {"max_lora": "1", "running_lora_adapters": "", "waiting_lora_adapters": ""}
        registry = self.rank.page.registry
        self.assertEqual(registry.get_sample_value("vllm:lora_requests_info", nobody), WALL + 4)


class FunctionTests(FakeCase):
    def test_shapes(self) -> None:
        times = 0, 1, 2, 3, 4, 5
        expected = {
            "oscillate": [20, 30, 20, 10, 20, 30],
            "ramp": [10, 15, 20, 25, 30, 30],
            "rampreset": [10, 15, 20, 25, 10, 15],
            "squarewave": [10, 10, 30, 30, 10, 10],
        }
        for name, values in expected.items():
            drawn = [value_at(Function(name, 10, 30, 4), time) for time in times]
            for value, right in zip(drawn, values, strict=True):
                self.assertAlmostEqual(value, right, msg=name)

    def test_requests_are_whole_and_usage_is_not(self) -> None:
        self.start({"running-requests": "ramp:0:1:4s", "waiting-requests": 2.75, "kv-cache-usage": "ramp:0:1:4s"})
        self.clock.advance(3)
        values = [self.value(name) for name in ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc")]
        self.assertEqual(values, [0, 2, 0.75])

    def test_a_value_stands_for_one_refresh_interval(self) -> None:
        self.start({"kv-cache-usage": "ramp:0:1:1s"})
        seen = []
        for _ in range(4):
            self.clock.advance(0.0625)
            seen.append(self.value("kv_cache_usage_perc"))
        self.assertEqual(seen, [0.0, 0.125, 0.125, 0.25])

    def test_each_function_runs_from_when_it_was_set(self) -> None:
        self.start({"running-requests": "ramp:0:8:8s"})
        self.clock.advance(2)
        self.update({"waiting-requests": "ramp:0:8:8s"})
        self.clock.advance(3)
        self.assertEqual((self.value("num_requests_running"), self.value("num_requests_waiting")), (5, 3))

    def test_the_same_function_given_again_starts_anew(self) -> None:
        self.start({"running-requests": "ramp:0:8:8s"})
        self.clock.advance(2)
        self.update({"running-requests": "ramp:0:8:8s"})
        self.clock.advance(1)
        self.assertEqual(self.value("num_requests_running"), 1)

    def test_a_number_replaces_a_function_and_a_function_a_number(self) -> None:
        self.start({"running-requests": "ramp:0:8:8s", "waiting-requests": 5})
        self.update({"running-requests": 7, "waiting-requests": "squarewave:1:2:2s"})
        self.clock.advance(1)
        self.assertEqual((self.value("num_requests_running"), self.value("num_requests_waiting")), (7, 2))


class UpdateTests(FakeCase):
    def seen(self) -> tuple[float | None, float | None]:
        return self.value("request_prompt_tokens_count"), self.value("prompt_tokens_total")

    def test_arrays_and_totals_follow_each_other(self) -> None:
        self.start({"request-prompt-tokens": [1, 2, 3], "total-prompt-tokens": 12345})
        told = [self.seen()]
        updates: tuple[dict[str, Any], ...] = (
            {},
            {"request-prompt-tokens": [10, 20]},
            {"total-prompt-tokens": 58},
            {"request-prompt-tokens": []},
        )
        for members in updates:
            self.update(members)
            told.append(self.seen())
        self.assertEqual(told, [(6, 12345), (6, 12345), (30, 50), (30, 58), (None, None)])

    def test_reasons_of_an_update_are_all_there_are(self) -> None:
        self.start({"request-success-total": {"stop": 1}})
        self.update({"request-success-total": {"length": 2}})
        counts = [self.value("request_success_total", finished_reason=reason) for reason in ("stop", "length")]
        self.assertEqual(counts, [None, 2])
        self.update({"request-success-total": {}})
        self.assertEqual(self.names(), ALWAYS)

    def test_what_is_replaced_is_created_anew_and_the_rest_is_not(self) -> None:
        self.start({"ttft-buckets-values": [1], "tpot-buckets-values": [1]})
        self.clock.advance(5)
        self.update({"tpot-buckets-values": [2]})
        names = "time_to_first_token_seconds_created", "inter_token_latency_seconds_created"
        self.assertEqual([self.value(name) for name in names], [WALL, WALL + 5])


class PageTests(SynchronousTestCase):
    def test_fake_metrics_need_not_have_a_member_to_be_on(self) -> None:
        door = Door("--fake-metrics", "{}")
        door.post("/v1/completions", text(3))
        page = door.ask("GET", "/metrics").body.decode()
        shown = {line.partition("{")[0] for line in page.splitlines() if not line.startswith("#")}
        self.assertEqual(shown, ALWAYS)

    def test_adapters_must_be_written_as_they_are_shown(self) -> None:
        for wrong in ({"running": 1}, {"waiting": ["a"]}, {"timestamp": "now"}, "x"):
            with self.assertRaises(ValueError, msg=str(wrong)):
                fake.read({"loras": [wrong]})
