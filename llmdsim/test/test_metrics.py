"""A rank's meters: what each verb moves, read back from the page by prometheus_client's parser."""

from __future__ import annotations

import attrs
from prometheus_client.parser import text_string_to_metric_families
from twisted.trial.unittest import SynchronousTestCase

from llmdsim.sim.meter import render
from llmdsim.sim.metrics import Finished, Load, Meters
from llmdsim.sim.series import cache_info

DONE = Finished(
    reason="stop",
    prompt_tokens=48,
    cached_tokens=32,
    generated=5,
    max_tokens=16,
    arrival=10.0,
    queued=10.0,
    scheduled=11.0,
    first=13.0,
    last=17.0,
    now=17.5,
)


class MetersCase(SynchronousTestCase):
    def setUp(self):
        self.load = Load()
        self.now = 1000.0

    def meters(self, **changed):
        options = {
            "model_name": "base",
            "engine": 1,
            "max_model_len": 512,
            "cache_info": cache_info(block_size=16, num_gpu_blocks=64, max_model_len=512),
            "max_loras": 2,
            "deprecated": False,
            "load": lambda: self.load,
            "wall": lambda: self.now,
        }
        return Meters(**{**options, **changed})

    def families(self, meters):
        page = render(meters.registry, "")[0].decode()
        return {family.name: family for family in text_string_to_metric_families(page)}

    def samples(self, meters):
        """Every value of the page by name and the values of those labels that tell series of a rank apart."""
        common = {"engine", "model_name"}
        return {
            (
                sample.name,
                *(value for label, value in sorted(sample.labels.items()) if label not in common),
            ): sample.value
            for family in self.families(meters).values()
            for sample in family.samples
        }

    def moved(self, verb, *arguments):
        """What a verb changes on the page, without buckets and the process's own values."""
        meters = self.meters()
        before = self.samples(meters)
        getattr(meters, verb)(*arguments)
        return {
            "/".join(key): value
            for key, value in self.samples(meters).items()
            if value != before.get(key) and not key[0].endswith("_bucket") and key[0].startswith(("vllm:", "llmdsim:"))
        }


class PageTests(MetersCase):
    def test_every_series_is_there_before_the_first_request(self):
        samples = self.samples(self.meters())
        for key in (
            ("vllm:request_success_total", "repetition"),
            ("vllm:prompt_tokens_by_source_total", "external_kv_transfer"),
            ("vllm:prompt_tokens_cached_by_source_total", "p2p"),
            ("vllm:admission_rejections_total", "max_num_queued_tokens"),
            ("vllm:inter_token_latency_seconds_count",),
        ):
            self.assertEqual(samples[key], 0)

    def test_every_counter_and_histogram_tells_when_it_began(self):
        families = self.families(self.meters())
        own = [name for name in families if name.startswith(("vllm:", "llmdsim:")) and not name.endswith("_created")]
        for name in own:
            began = [sample.value for sample in families.get(f"{name}_created", families[name]).samples]
            if families[name].type != "gauge":
                self.assertEqual(set(began), {self.now}, name)

    def test_rejections_alone_are_not_told_apart_by_engine(self):
        families = self.families(self.meters()).values()
        without = {f.name for f in families if f.type == "counter" for s in f.samples if "engine" not in s.labels}
        self.assertEqual({name for name in without if name.startswith("vllm:")}, {"vllm:admission_rejections"})

    def test_token_histograms_reach_up_to_the_context_length(self):
        for limit, last in ((5, "5.0"), (256, "200.0"), (1000, "1000.0"), (1024, "1000.0")):
            samples = self.families(self.meters(max_model_len=limit))["vllm:request_prompt_tokens"].samples
            edges = [sample.labels["le"] for sample in samples if "le" in sample.labels]
            self.assertEqual(edges[0], "1.0")
            self.assertEqual(edges[-2:], [last, "+Inf"])

    def test_the_process_and_the_interpreter_are_shown_too(self):
        families = self.families(self.meters())
        self.assertLessEqual({"python_info", "python_gc_collections"}, set(families))

    def test_ranks_do_not_share_their_numbers(self):
        first, second = self.meters(engine=0), self.meters(engine=1)
        first.generated(3)
        self.assertEqual(self.samples(second)["vllm:generation_tokens_total",], 0)


class GaugeTests(MetersCase):
    def test_gauges_show_the_load_at_the_time_of_the_scrape(self):
        meters = self.meters()
        self.load = Load(running=3, waiting=5, deferred=2, kv_usage=0.25, sleep_level=0)
        samples = self.samples(meters)
        self.assertEqual(samples["vllm:num_requests_running",], 3)
        self.assertEqual(samples["vllm:num_requests_waiting",], 5)
        self.assertEqual(samples["vllm:num_requests_waiting_by_reason", "capacity"], 3)
        self.assertEqual(samples["vllm:num_requests_waiting_by_reason", "deferred"], 2)
        self.assertEqual(samples["vllm:kv_cache_usage_perc",], 0.25)

    def test_exactly_one_sleep_state_holds(self):
        meters = self.meters()
        for level, state in enumerate(("awake", "weights_offloaded", "discard_all")):
            self.load = Load(sleep_level=level)
            states = {k[1]: v for k, v in self.samples(meters).items() if k[0] == "vllm:engine_sleep_state"}
            self.assertEqual([name for name, held in states.items() if held], [state])

    def test_the_cache_is_described_by_its_size_and_the_rank(self):
        (sample,) = self.families(self.meters())["vllm:cache_config_info"].samples
        self.assertEqual(sample.value, 1)
        told = [sample.labels[name] for name in ("engine", "block_size", "num_gpu_blocks", "kv_cache_max_concurrency")]
        self.assertEqual(told, ["1", "16", "64", "2.0"])


class LoraTests(MetersCase):
    def shown(self, meters):
        return {
            (sample.labels["running_lora_adapters"], sample.labels["waiting_lora_adapters"]): sample.value
            for sample in self.families(meters)["vllm:lora_requests_info"].samples
        }

    def test_a_combination_stays_with_the_time_when_it_was_last_seen(self):
        meters = self.meters()
        for running, waiting in ((["a", "b"], ["b"]), ([], []), (["a", "b"], ["b"])):
            self.now += 1
            meters.lora(running, waiting)
        self.assertEqual(self.shown(meters), {("", ""): 1002, ("a,b", "b"): 1003})

    def test_adapters_are_shown_only_where_they_are_served(self):
        self.assertNotIn("vllm:lora_requests_info", self.families(self.meters(max_loras=None)))


class DeprecatedTests(MetersCase):
    def test_older_names_show_the_same_numbers(self):
        meters = self.meters(deprecated=True)
        meters.inter_token(0.3)
        self.load = Load(kv_usage=0.5)
        samples = self.samples(meters)
        self.assertEqual(samples["vllm:gpu_cache_usage_perc",], 0.5)
        self.assertEqual(samples["vllm:time_per_output_token_seconds_sum",], 0.3)
        self.assertEqual(samples["vllm:time_per_output_token_seconds_bucket", "0.3"], 1)

    def test_older_names_say_that_they_are_deprecated(self):
        families, new = self.families(self.meters(deprecated=True)), self.families(self.meters())
        older = set(families) - set(new)
        self.assertLessEqual({"vllm:gpu_cache_usage_perc", "vllm:time_per_output_token_seconds"}, older)
        for name in older:
            self.assertTrue(families[name].documentation.startswith("Deprecated"), name)


class VerbTests(MetersCase):
    def test_a_prompt_is_counted_by_where_its_tokens_came_from(self):
        self.assertEqual(
            self.moved("first_token", 0.5, 48, 32),
            {
                "vllm:time_to_first_token_seconds_count": 1,
                "vllm:time_to_first_token_seconds_sum": 0.5,
                "vllm:prompt_tokens_total": 48,
                "vllm:prompt_tokens_by_source_total/local_compute": 16,
                "vllm:prompt_tokens_by_source_total/local_cache_hit": 32,
                "vllm:prompt_tokens_cached_total": 32,
                "vllm:prompt_tokens_cached_by_source_total/device": 32,
            },
        )

    def test_a_finished_sequence_is_measured_between_its_moments(self):
        moved = self.moved("finished", DONE)
        sums = {key.removeprefix("vllm:").removesuffix("_sum"): v for key, v in moved.items() if key.endswith("_sum")}
        self.assertEqual(
            sums,
            {
                "request_prompt_tokens": 48,
                "request_prefill_kv_computed_tokens": 16,
                "request_generation_tokens": 5,
                "request_params_max_tokens": 16,
                "e2e_request_latency_seconds": 7.5,
                "request_queue_time_seconds": 1,
                "request_prefill_time_seconds": 2,
                "request_decode_time_seconds": 4,
                "request_inference_time_seconds": 6,
                "request_time_per_output_token_seconds": 1,
            },
        )
        self.assertEqual(moved["vllm:request_num_preemptions_count"], 1)
        self.assertEqual(moved["vllm:request_success_total/stop"], 1)

    def test_a_single_token_has_no_time_per_token(self):
        moved = self.moved("finished", attrs.evolve(DONE, generated=1))
        self.assertEqual(moved["vllm:request_time_per_output_token_seconds_count"], 1)
        self.assertNotIn("vllm:request_time_per_output_token_seconds_sum", moved)

    def test_a_limit_that_nobody_set_is_not_observed(self):
        moved = self.moved("finished", attrs.evolve(DONE, max_tokens=None))
        self.assertNotIn("vllm:request_params_max_tokens_count", moved)

    def test_a_reason_that_vllm_does_not_know_counts_as_stop(self):
        for reason, counted in (("length", "length"), ("error", "error"), ("tool_calls", "stop")):
            moved = self.moved("finished", attrs.evolve(DONE, reason=reason))
            self.assertEqual([key for key in moved if "success" in key], [f"vllm:request_success_total/{counted}"])

    def test_a_request_is_counted_once_for_all_its_choices(self):
        self.assertEqual(
            self.moved("parent_finished", 3, 20),
            {
                "vllm:request_params_n_count": 1,
                "vllm:request_params_n_sum": 3,
                "vllm:request_max_num_generation_tokens_count": 1,
                "vllm:request_max_num_generation_tokens_sum": 20,
            },
        )

    def test_a_client_that_left_is_counted_in_no_family_of_vllm(self):
        self.assertEqual(self.moved("aborted"), {"llmdsim:requests_aborted_total": 1})

    def test_small_verbs_move_their_own_family_only(self):
        for verb, arguments, moved in (
            ("rejected", ("max_num_queued_reqs",), {"vllm:admission_rejections_total/max_num_queued_reqs": 1}),
            ("prefix_lookup", (48, 32), {"vllm:prefix_cache_queries_total": 48, "vllm:prefix_cache_hits_total": 32}),
            ("generated", (4,), {"vllm:generation_tokens_total": 4}),
            ("step", (9,), {"vllm:iteration_tokens_total_count": 1, "vllm:iteration_tokens_total_sum": 9}),
            ("lag", (0.25,), {"llmdsim:pacing_lag_seconds_count": 1, "llmdsim:pacing_lag_seconds_sum": 0.25}),
            ("reactor_lag", (0.5,), {"llmdsim:reactor_lag_seconds_count": 1, "llmdsim:reactor_lag_seconds_sum": 0.5}),
        ):
            self.assertEqual(self.moved(verb, *arguments), moved)
