"""When an answer comes: the calculators, the load factor, and how durations are sampled."""

from __future__ import annotations

from random import Random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from llmdsim.config import Config
from llmdsim.sim.latency import Latency, Sampler


def make(running: int = 1, **flags: Any) -> Latency:
    """A calculator; the number of running sequences can be changed in its ``count``."""
    count = [running]
    latency = Latency(Config(model="m").evolve(**flags), Random(1), lambda: count[0])
    latency.count = count  # type: ignore[attr-defined]
    return latency


CONSTANT: dict[str, Any] = {"time_to_first_token": 2.0, "kv_cache_transfer_latency": 3.0}
PER_TOKEN: dict[str, Any] = {
    "prefill_overhead": 1.0,
    "prefill_time_per_token": 0.5,
    "kv_cache_transfer_time_per_token": 0.25,
}
BOTH = {**CONSTANT, **PER_TOKEN}


class CalculatorTests(SynchronousTestCase):
    def test_constant_ignores_the_prompt(self) -> None:
        latency = make(latency_calculator="constant", **BOTH)
        self.assertEqual((latency.ttft(10), latency.ttft(1000, 4)), (2.0, 2.0))
        self.assertEqual(latency.ttft(10, remote=True), 3.0)

    def test_constant_is_nothing_where_nothing_constant_is_set(self) -> None:
        latency = make(latency_calculator="constant", **PER_TOKEN)
        self.assertEqual((latency.ttft(10), latency.ttft(10, remote=True)), (0.0, 0.0))

    def test_per_token_counts_what_is_not_cached(self) -> None:
        latency = make(latency_calculator="per-token", **BOTH)
        self.assertEqual((latency.ttft(10), latency.ttft(10, 4), latency.ttft(10, 10)), (6.0, 4.0, 1.0))

    def test_a_remote_prefill_transfers_the_whole_prompt(self) -> None:
        latency = make(latency_calculator="per-token", **BOTH)
        self.assertEqual(latency.ttft(10, 4, remote=True), 2.5)

    def test_unset_is_constant_where_a_constant_is_set_and_else_per_token(self) -> None:
        self.assertEqual(make(**BOTH).ttft(10), 2.0)
        self.assertEqual(make(**BOTH).ttft(10, remote=True), 3.0)
        self.assertEqual(make(**PER_TOKEN).ttft(10), 6.0)
        self.assertEqual(make(**PER_TOKEN).ttft(10, remote=True), 2.5)

    def test_unset_decides_for_prefill_and_transfer_apart(self) -> None:
        latency = make(time_to_first_token=2.0, **PER_TOKEN)
        self.assertEqual((latency.ttft(10), latency.ttft(10, remote=True)), (2.0, 2.5))

    def test_fractions_of_a_millisecond_are_kept(self) -> None:
        self.assertAlmostEqual(make(prefill_time_per_token=0.000_000_5).ttft(3), 0.000_001_5, places=12)
        self.assertEqual(make(inter_token_latency=0.000_25).gap(), 0.000_25)


class LoadTests(SynchronousTestCase):
    def test_it_grows_evenly_from_1_to_the_factor_at_full_seats(self) -> None:
        factors = [make(running, max_num_seqs=5, time_factor_under_load=3.0).load() for running in range(1, 6)]
        self.assertEqual(factors, [1.0, 1.5, 2.0, 2.5, 3.0])

    def test_it_is_never_below_1(self) -> None:
        self.assertEqual(make(0, max_num_seqs=5, time_factor_under_load=3.0).load(), 1.0)

    def test_a_single_seat_knows_no_load(self) -> None:
        self.assertEqual(make(1, max_num_seqs=1, time_factor_under_load=3.0).load(), 1.0)

    def test_it_slows_local_prefill_and_gaps_but_no_transfer(self) -> None:
        loaded: dict[str, Any] = {
            "running": 5,
            "max_num_seqs": 5,
            "time_factor_under_load": 3.0,
            "inter_token_latency": 0.25,
        }
        self.assertEqual(make(**loaded, **CONSTANT).ttft(10), 6.0)
        self.assertEqual(make(**loaded, **CONSTANT).ttft(10, remote=True), 3.0)
        self.assertEqual(make(**loaded, **PER_TOKEN).ttft(10, 4), 12.0)
        self.assertEqual(make(**loaded, **PER_TOKEN).ttft(10, remote=True), 2.5)
        self.assertEqual(make(**loaded).gap(), 0.75)

    def test_it_is_read_at_each_draw(self) -> None:
        latency: Any = make(1, max_num_seqs=5, time_factor_under_load=3.0, inter_token_latency=0.25)
        self.assertEqual(latency.gap(), 0.25)
        latency.count[0] = 3
        self.assertEqual(latency.gap(), 0.5)

    def test_it_does_not_widen_the_deviation(self) -> None:
        flags: dict[str, Any] = {"max_num_seqs": 2, "time_factor_under_load": 2.0, "latency_distribution": "normal"}
        idle = make(1, inter_token_latency=10.0, inter_token_latency_std_dev=0.5, **flags)
        busy = make(2, inter_token_latency=10.0, inter_token_latency_std_dev=0.5, **flags)
        for _ in range(20):
            self.assertAlmostEqual(busy.gap() - 20.0, idle.gap() - 10.0)


class SampleTests(SynchronousTestCase):
    def test_without_a_deviation_it_is_the_mean(self) -> None:
        self.assertEqual(Sampler(Random(1))(0.125, 0.0), 0.125)

    @settings(deadline=None)
    @given(st.floats(0, 100), st.floats(0, 100), st.integers())
    def test_it_stays_within_0_3_to_1_7_of_the_mean(self, mean: float, deviation: float, seed: int) -> None:
        value = Sampler(Random(seed))(mean, deviation)
        self.assertGreaterEqual(value, mean * 0.3 * (1 - 1e-9))
        self.assertLessEqual(value, mean * 1.7 * (1 + 1e-9))

    def test_a_deviation_above_30_percent_is_taken_as_it_is(self) -> None:
        sample = Sampler(Random(1))
        values = [sample(1.0, 0.6) for _ in range(4000)]
        at_the_edges = sum(value in (min(values), max(values)) for value in values)
        self.assertGreater(at_the_edges, 800)  # a quarter lies more than 0.7 from the mean, and is clamped

    def test_the_normal_distribution_is_not_clamped_but_never_negative(self) -> None:
        sample = Sampler(Random(1), "normal")
        values = [sample(1.0, 1.0) for _ in range(1000)]
        self.assertEqual(min(values), 0.0)
        self.assertGreater(max(values), 1.7)

    def test_values_lie_around_the_mean(self) -> None:
        sample = Sampler(Random(1))
        values = [sample(1.0, 0.2) for _ in range(4000)]
        self.assertApproximates(sum(values) / 4000, 1.0, 0.02)
        self.assertApproximates(sum((value - 1) ** 2 for value in values) / 4000, 0.04, 0.004)

    def test_each_duration_has_its_own_deviation(self) -> None:
        for mean, deviation, draw in (
            ("time_to_first_token", "time_to_first_token_std_dev", lambda latency: latency.ttft(1)),
            ("prefill_overhead", "prefill_time_std_dev", lambda latency: latency.ttft(1)),
            ("kv_cache_transfer_latency", "kv_cache_transfer_latency_std_dev", lambda one: one.ttft(1, remote=True)),
            ("kv_cache_transfer_time_per_token", "kv_cache_transfer_time_std_dev", lambda x: x.ttft(1, remote=True)),
            ("inter_token_latency", "inter_token_latency_std_dev", lambda latency: latency.gap()),
            ("time_to_generate_image", "time_to_generate_image_std_dev", lambda latency: latency.image()),
        ):
            flags: dict[str, Any] = {mean: 1.0, deviation: 0.25}
            latency = make(**flags)
            self.assertGreater(len({draw(latency) for _ in range(10)}), 5, mean)
