"""What sequences have of the KV cache: hits, waiting for blocks, giving them back."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError
from twisted.trial.unittest import SynchronousTestCase

from llmdsim.faults import Fault
from llmdsim.sim.cache import Cleared, Stored
from llmdsim.sim.rank import Rank
from llmdsim.test.support import Ear, adapter, adapters, make_rank, metric, request, serve

PROMPT = tuple(range(52))


class MemoryTests(SynchronousTestCase):
    def start(self, **flags: Any) -> None:
        self.rank, self.clock = make_rank(enable_kvcache=True, **flags)

    def say(self, rank: Rank | None = None, prompt: tuple[int, ...] = PROMPT, tokens: int = 2, **fields: Any) -> Ear:
        rank = rank or self.rank
        ear = Ear(self.clock)
        self.successResultOf(serve(rank, request(tokens, prompts=(prompt,), **fields), ear))
        return ear

    def cached(self, **fields: Any) -> int:
        return self.say(**fields).plans[0].cached_tokens

    def test_a_prompt_that_was_seen_is_cached_in_full_blocks_but_never_to_its_last_token(self):
        self.start()
        self.assertEqual([self.cached(), self.cached()], [0, 48])
        self.assertEqual([self.cached(prompt=PROMPT[:48]), self.cached(prompt=PROMPT[:33])], [32, 32])

    def test_generated_blocks_are_hit_by_the_next_turn_of_a_conversation(self):
        self.start()
        plan = self.say(tokens=20).plans[0]
        self.assertEqual(self.cached(prompt=(*PROMPT, *plan.ids[:16])), 64)

    def test_choices_of_one_prompt_hit_the_blocks_of_the_first(self):
        self.start(max_num_seqs=3)
        self.say(n=3)
        queries, hits = (metric(self.rank, f"vllm:prefix_cache_{name}_total") for name in ("queries", "hits"))
        self.assertEqual((queries, hits), (156, 96))

    def test_adapters_and_salts_do_not_share_blocks(self):
        self.start(lora_modules=adapters("l1"), max_num_seqs=1)
        self.say()
        self.assertEqual([self.cached(model=adapter("l1")), self.cached(cache_salt="s")], [0, 0])
        self.assertEqual([self.cached(model=adapter("l1")), self.cached(cache_salt="s")], [48, 48])

    def test_cached_tokens_shorten_the_time_to_the_first_token(self):
        self.start(prefill_time_per_token=1.0, latency_calculator="per-token")
        for wait in (52, 4):
            ear, asked = Ear(self.clock), self.clock.seconds()
            served = serve(self.rank, request(1, prompts=(PROMPT,)), ear)
            self.clock.advance(wait)
            self.successResultOf(served)
            self.assertEqual(ear.when("0 0:1") - asked, wait)

    def test_usage_counts_the_blocks_in_use_only(self):
        self.start(kv_cache_size=11, time_to_first_token=1.0)
        served = serve(self.rank, request(1, prompts=(PROMPT,)), Ear(self.clock))
        self.assertEqual(metric(self.rank, "vllm:kv_cache_usage_perc"), 0.4)
        self.clock.advance(1)
        self.successResultOf(served)
        self.assertEqual(metric(self.rank, "vllm:kv_cache_usage_perc"), 0.0)

    def test_one_that_can_never_fit_is_refused(self):
        self.start(kv_cache_size=4)
        fault = self.failureResultOf(serve(self.rank, request(1, prompts=(PROMPT,)), Ear(self.clock)), Fault).value
        self.assertEqual(fault.kind.status, 400)

    def test_one_that_does_not_fit_yet_waits_and_holds_up_those_behind_it(self):
        self.start(kv_cache_size=6, max_num_seqs=5, time_to_first_token=1.0)
        ears = [Ear(self.clock) for _ in range(3)]
        prompts = (PROMPT, PROMPT[::-1], (7,))
        for ear, prompt in zip(ears, prompts, strict=True):
            serve(self.rank, request(1, prompts=(prompt,)), ear)
        self.assertEqual((self.rank.scheduler.running, self.rank.scheduler.waiting), (1, 2))
        self.clock.pump([1, 0, 1])
        self.assertEqual([ear.when("0 0:1") for ear in ears], [1, 2, 2])

    def test_one_that_leaves_while_it_holds_up_others_lets_them_go(self):
        self.start(kv_cache_size=6, max_num_seqs=5, time_to_first_token=1.0)
        served = [serve(self.rank, request(1, prompts=(p,)), Ear(self.clock)) for p in (PROMPT, PROMPT[::-1], (7,))]
        served[1].cancel()
        self.failureResultOf(served[1], CancelledError)
        self.clock.advance(0)
        self.assertEqual((self.rank.scheduler.running, self.rank.scheduler.waiting), (2, 0))

    def test_whoever_leaves_gives_blocks_back_in_the_same_turn(self):
        self.start(time_to_first_token=1.0)
        served = serve(self.rank, request(1, prompts=(PROMPT,)), Ear(self.clock))
        served.cancel()
        self.failureResultOf(served, CancelledError)
        self.assertEqual(self.rank.memory.usage(), 0.0)

    def test_a_request_that_is_refused_for_its_last_choice_leaves_no_blocks_behind(self):
        self.start(max_num_seqs=1, max_waiting_queue_length=1, time_to_first_token=1.0)
        self.failureResultOf(serve(self.rank, request(1, prompts=(PROMPT,), n=3), Ear(self.clock)), Fault)
        self.assertEqual((self.rank.memory.usage(), self.rank.scheduler.running), (0.0, 0))

    def test_without_a_cache_nothing_is_cached_and_everything_fits(self):
        self.rank, self.clock = make_rank(kv_cache_size=1)
        self.assertEqual([self.cached(), self.cached()], [0, 0])
        self.assertEqual(metric(self.rank, "vllm:prefix_cache_queries_total"), 0)


class EventTests(SynchronousTestCase):
    def test_the_caches_changes_are_told(self):
        noted: list[Any] = []
        rank, clock = make_rank(enable_kvcache=True, note=noted.append)
        self.successResultOf(serve(rank, request(14, prompts=(PROMPT,)), Ear(clock)))
        self.assertEqual([list(event.ids) for event in noted[:1]], [list(PROMPT[:48])])
        self.assertEqual([type(event) for event in noted], [Stored, Stored])
        self.assertEqual(noted[1].parent, noted[0].keys[-1])
        self.assertTrue(rank.reset_cache())
        self.assertEqual(type(noted[-1]), Cleared)
