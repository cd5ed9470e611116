"""What a rank measures on the way of a request, read from its page."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError
from twisted.trial.unittest import SynchronousTestCase

from llmdsim.test.support import Ear, adapter, adapters, make_rank, metric, request, serve

SLOW: dict[str, Any] = {"time_to_first_token": 0.25, "inter_token_latency": 0.125}


class MetricsCase(SynchronousTestCase):
    def start(self, **flags: Any) -> None:
        self.rank, self.clock = make_rank(**flags)

    def ask(self, *arguments: Any, **fields: Any) -> Any:
        return serve(self.rank, request(*arguments, **fields), Ear(self.clock))

    def value(self, name: str, **labels: str) -> float | None:
        return metric(self.rank, f"vllm:{name}", **labels)

    def sums(self, *names: str) -> list[float | None]:
        return [self.value(f"{name}_sum") for name in names]

    def counts(self, *names: str) -> list[float | None]:
        return [self.value(f"{name}_count") for name in names]


class TimeTests(MetricsCase):
    times = (
        "time_to_first_token_seconds",
        "request_queue_time_seconds",
        "request_prefill_time_seconds",
        "request_decode_time_seconds",
        "request_inference_time_seconds",
        "e2e_request_latency_seconds",
        "request_time_per_output_token_seconds",
        "inter_token_latency_seconds",
    )

    def test_a_request_alone(self) -> None:
        self.start(**SLOW)
        self.ask(5)
        self.clock.pump([0.25, *[0.125] * 4])
        self.assertEqual(self.sums(*self.times), [0.25, 0.0, 0.25, 0.5, 0.75, 0.75, 0.125, 0.5])
        self.assertEqual(self.counts(*self.times), [1, 1, 1, 1, 1, 1, 1, 4])

    def test_the_first_token_is_measured_from_arrival_and_the_rest_from_the_seat(self) -> None:
        self.start(max_num_seqs=1, **SLOW)
        self.ask(1)
        self.clock.advance(0.125)
        self.ask(3)
        self.clock.pump([0.125, 0.25, 0.125, 0.125])
        waited = [0.375, 0.125, 0.25, 0.25, 0.5, 0.625, 0.125, 0.25]
        alone = [0.25, 0.0, 0.25, 0.0, 0.25, 0.25, 0.0, 0.0]
        self.assertEqual(self.sums(*self.times), [a + b for a, b in zip(waited, alone, strict=True)])

    def test_lateness_is_measured_too(self) -> None:
        self.start(**SLOW)
        self.ask(3)
        self.clock.pump([0.5, 0.5])
        self.assertEqual(self.sums(*self.times), [0.5, 0.0, 0.5, 0.0, 0.5, 0.5, 0.0, 0.0])

    def test_each_choice_is_measured(self) -> None:
        self.start(max_num_seqs=1, **SLOW)
        self.ask(1, n=2)
        self.clock.pump([0.25, 0.25])
        self.assertEqual(self.counts(*self.times), [2, 2, 2, 2, 2, 2, 2, 0])
        self.assertEqual(self.sums(*self.times)[:3], [0.75, 0.25, 0.5])


class CountTests(MetricsCase):
    def test_running_and_waiting_are_those_of_the_moment(self) -> None:
        self.start(max_num_seqs=1, **SLOW)
        self.ask(1, n=3)
        gauges = "num_requests_running", "num_requests_waiting"
        seen = []
        for _ in range(4):
            seen.append([self.value(name) for name in gauges])
            self.clock.advance(0.25)
        self.assertEqual(seen, [[1, 2], [1, 1], [1, 0], [0, 0]])

    def test_a_finished_sequence_counts_under_its_reason(self) -> None:
        self.start()
        self.ask(5)
        self.ask(9, prompts=("SAY<<one two>>",))
        reasons = [self.value("request_success_total", finished_reason=reason) for reason in ("length", "stop")]
        self.assertEqual(reasons, [1, 1])
        self.assertEqual(self.value("generation_tokens_total"), 5 + 3)

    def test_prompts_and_answers_are_counted_for_every_choice(self) -> None:
        self.start()
        self.ask(4, prompts=("a b c",), n=2)
        self.assertEqual((self.value("prompt_tokens_total"), self.value("generation_tokens_total")), (6, 8))
        self.assertEqual(self.sums("request_prompt_tokens", "request_generation_tokens"), [6, 8])

    def test_choices_have_one_parent_for_each_prompt(self) -> None:
        # As captured from vLLM: the sum of n is the number of sequences, though one request had two prompts.
        self.start()
        self.ask(4, n=3)
        self.ask(5, prompts=("a", "b"))
        names = "request_params_n", "request_max_num_generation_tokens"
        self.assertEqual((self.counts(*names), self.sums(*names)), ([3, 3], [5, 14]))

    def test_max_tokens_is_what_could_be_generated_whoever_set_it(self) -> None:
        # As captured from vLLM: one observation for each sequence, also where the client set no limit.
        self.start(max_model_len=100)
        self.ask(30, prompts=("a b",))
        self.ask(None, prompts=("a b",))
        self.ask(100, prompts=("a b",))
        self.assertEqual(self.counts("request_params_max_tokens"), [3])
        self.assertEqual(self.sums("request_params_max_tokens"), [30 + 98 + 98])

    def test_one_whose_client_left_is_no_success(self) -> None:
        self.start(**SLOW)
        done = self.ask(9)
        self.clock.advance(0.25)
        done.cancel()
        self.failureResultOf(done, CancelledError)
        names = "e2e_request_latency_seconds", "request_prompt_tokens", "request_params_n"
        self.assertEqual(self.counts(*names), [0, 0, 0])
        for reason in ("stop", "length", "abort", "error"):
            self.assertEqual(self.value("request_success_total", finished_reason=reason), 0)
        self.assertEqual(self.value("generation_tokens_total"), 1)

    def test_an_adapter_is_listed_while_it_has_a_request(self) -> None:
        self.start(lora_modules=adapters("l1", "l2"), max_loras=2, **SLOW)
        registry = self.rank.meters.registry

        def seen(names: str) -> float | None:
            labels = {"max_lora": "2", "running_lora_adapters": names, "waiting_lora_adapters": names}
            return registry.get_sample_value("vllm:lora_requests_info", labels)

        began = seen("")
        self.ask(1, model=adapter("l1"))
        self.clock.advance(0.125)
        self.ask(1, model=adapter("l2"))
        both = seen("l1,l2")
        self.clock.pump([0.125, 0.125])
        self.assertIsNotNone(began)
        times = [seen(names) for names in ("l1", "l1,l2", "l2", "")]
        self.assertEqual([time - (began or 0) for time in times if time], [0.0, 0.125, 0.25, 0.375])
        self.assertEqual(both, times[1])
