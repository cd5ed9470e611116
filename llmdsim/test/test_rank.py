"""The way of a request through a rank: seats, the queue, leaving, refusals."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

from llmdsim.faults import BUSY, RATE_LIMITED, Fault
from llmdsim.sim.rank import Rank
from llmdsim.sim.request import Request
from llmdsim.simulated import Simulated
from llmdsim.test.support import Ear, adapter, adapters, free, make_rank, metric, request, serve

SLOW: dict[str, Any] = {"time_to_first_token": 0.25, "inter_token_latency": 0.125}


class RankCase(SynchronousTestCase):
    rank: Rank

    def start(self, **flags: Any) -> None:
        self.rank, self.clock = make_rank(**flags)

    def ask(self, *arguments: Any, **fields: Any) -> tuple[Ear, Deferred[None]]:
        ear = Ear(self.clock)
        return ear, serve(self.rank, request(*arguments, **fields), ear)

    def refused(self, *arguments: Any, **fields: Any) -> Fault:
        ear, done = self.ask(*arguments, **fields)
        self.assertEqual(ear.notes, [])
        fault: Fault = self.failureResultOf(done, Fault).value
        return fault

    def load(self) -> tuple[int, int]:
        return self.rank.scheduler.running, self.rank.scheduler.waiting


class SpeakingTests(RankCase):
    def test_an_answer_begins_with_its_seat_and_is_paced_from_there(self) -> None:
        self.start(max_num_seqs=1, **SLOW)
        (first, _), (second, done) = self.ask(2), self.ask(2)
        self.clock.pump([0.125] * 6)
        notes = [(0.0, "0 begin"), (0.25, "0 0:1"), (0.375, "0 1:2"), (0.375, "0 end")]
        self.assertEqual(first.notes, notes)
        self.assertEqual(second.notes, [(when + 0.375, what) for when, what in notes])
        self.successResultOf(done)
        self.assertTrue(free(self.rank))

    def test_a_late_clock_delays_no_later_token(self) -> None:
        self.start(**SLOW)
        ear, _ = self.ask(8)
        self.clock.pump([0.3, 0.2, 0.124, 0.001, 0.5])
        self.assertEqual(ear.when("0 end"), 1.125)

    def test_every_choice_takes_a_seat_and_the_request_ends_with_the_last(self) -> None:
        self.start(max_num_seqs=2, **SLOW)
        ear, done = self.ask(1, n=3)
        self.assertEqual((ear.heard, self.load()), (["0 begin", "1 begin"], (2, 1)))
        self.clock.advance(0.25)
        self.assertNoResult(done)
        self.clock.advance(0.25)
        self.successResultOf(done)
        self.assertEqual(ear.heard[-3:], ["2 begin", "2 0:1", "2 end"])

    def test_a_sink_that_raises_ends_only_its_own_request(self) -> None:
        for broken in ("0 begin", "0 0:1", "0 1:2", "0 end"):
            self.start(**SLOW)
            failed = serve(self.rank, request(2), Ear(self.clock, lambda what: 1 // (what != broken)))  # noqa: B023
            whole, done = self.ask(3)
            self.clock.pump([0.125] * 4)
            self.failureResultOf(failed, ZeroDivisionError)
            self.successResultOf(done)
            self.assertEqual((whole.heard[-1], free(self.rank)), ("0 end", True))

    def test_when_one_choice_fails_the_others_stop(self) -> None:
        for seats in (1, 2, 3):
            self.start(max_num_seqs=seats, **SLOW)
            ear = Ear(self.clock, lambda what: 1 // (what != "0 1:2"))
            done = serve(self.rank, request(5, n=3), ear)
            self.clock.pump([0.125] * 10)
            self.failureResultOf(done, ZeroDivisionError)
            self.assertFalse({"0 end", "1 end", "2 end"} & {*ear.heard})
            self.assertTrue(free(self.rank))

    def test_900_requests_at_zero_latency_for_one_seat_all_finish(self) -> None:
        self.start(max_num_seqs=1)
        slow = self.ask(513)  # more than a burst: it keeps the seat while the others come
        asked = [self.ask(2) for _ in range(900)]
        self.assertEqual(self.load(), (1, 900))
        self.clock.advance(0.01)
        self.clock.advance(0)
        for _, done in (slow, *asked):
            self.successResultOf(done)
        self.assertTrue(free(self.rank))


class LeavingTests(RankCase):
    def test_one_that_leaves_in_mid_stream_frees_its_seat_in_the_same_turn(self) -> None:
        self.start(max_num_seqs=1, **SLOW)
        ear, done = self.ask(9)
        self.clock.pump([0.25, 0.125])
        done.cancel()
        self.failureResultOf(done, CancelledError)
        self.assertTrue(free(self.rank))
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(ear.heard, ["0 begin", "0 0:1", "0 1:2"])
        self.assertEqual(metric(self.rank, "llmdsim:requests_aborted_total"), 1)

    def test_one_that_leaves_while_it_waits_is_forgotten_and_counted_once(self) -> None:
        self.start(max_num_seqs=1, **SLOW)
        self.ask(9)
        for n in (1, 3):
            ear, done = self.ask(9, n=n)
            self.assertEqual(self.load(), (1, n))
            done.cancel()
            self.failureResultOf(done, CancelledError)
            self.assertEqual((self.load(), ear.heard, self.rank.open), ((1, 0), [], 1))
        self.assertEqual(metric(self.rank, "llmdsim:requests_aborted_total"), 2)

    def test_one_that_leaves_with_a_choice_spoken_and_one_queued_frees_both(self) -> None:
        self.start(max_num_seqs=1, **SLOW)
        _, done = self.ask(9, n=2)
        self.assertEqual(self.load(), (1, 1))
        done.cancel()
        self.failureResultOf(done, CancelledError)
        self.assertTrue(free(self.rank))

    def test_one_that_leaves_while_its_prompt_is_tokenized_never_enters(self) -> None:
        class Slow(Simulated):
            inline = 0

        self.start(tokenizer=Slow(), offload=lambda *arguments: Deferred())
        _, done = self.ask()
        self.assertEqual(self.rank.open, 1)
        done.cancel()
        self.failureResultOf(done, CancelledError)
        self.assertTrue(free(self.rank))

    def test_a_sink_that_cancels_its_own_request_hears_no_more_of_it(self) -> None:
        self.start(**SLOW)
        asked: list[Deferred[None]] = []

        def leave(what: str) -> None:
            if what == "0 1:2":
                asked[0].cancel()

        ear = Ear(self.clock, leave)
        asked.append(serve(self.rank, request(9), ear))
        self.clock.pump([0.125] * 12)
        self.failureResultOf(asked[0], CancelledError)
        self.assertEqual((ear.heard, free(self.rank)), (["0 begin", "0 0:1", "0 1:2"], True))

    def test_a_seat_that_is_left_goes_to_the_next(self) -> None:
        self.start(max_num_seqs=1, **SLOW)
        _, done = self.ask(9)
        after, _ = self.ask(1)
        done.cancel()
        self.failureResultOf(done, CancelledError)
        self.clock.advance(0)
        self.assertEqual(after.heard, ["0 begin"])


class RefusedTests(RankCase):
    def test_a_full_queue_refuses_before_anything_is_said(self) -> None:
        self.start(max_num_seqs=1, max_waiting_queue_length=1, **SLOW)
        self.ask()
        self.ask()
        fault = self.refused()
        self.assertEqual((fault.kind, fault.headers), (RATE_LIMITED, (("Retry-After", "1"),)))
        self.assertEqual((fault.kind.status, self.load(), self.rank.open), (429, (1, 1), 2))

    def test_when_the_third_choice_does_not_fit_nothing_of_the_others_is_left(self) -> None:
        limits = {"max_num_seqs": 1, "max_waiting_queue_length": 1, "max_num_queued_tokens": 3}
        self.start(**limits, lora_modules=adapters("l1"), **SLOW)
        for model in (adapter("l1"), request().model):
            self.assertEqual(self.refused(n=3, model=model).kind, RATE_LIMITED)
            self.clock.advance(0)
            self.assertTrue(free(self.rank))
            self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.ask(n=2)[0].heard, ["0 begin"])

    def test_max_num_queued_reqs_counts_who_runs_and_who_waits(self) -> None:
        self.start(max_num_seqs=1, max_num_queued_reqs=2, **SLOW)
        self.ask(1)
        self.assertEqual(self.refused(n=2).kind, BUSY)
        self.ask(1)
        fault = self.refused()
        text = (
            "The engine is currently busy and cannot accept new requests. "
            "Please try again later or on a different instance."
        )
        self.assertEqual((fault.kind.status, fault.message, fault.headers), (503, text, ()))
        counted = {"model_name": "m", "reason": "max_num_queued_reqs"}
        rejections = self.rank.meters.registry.get_sample_value("vllm:admission_rejections_total", counted)
        self.assertEqual(rejections, 2)
        self.clock.advance(0.25)
        self.assertEqual(self.ask(1)[0].heard, [])
        self.assertEqual(self.load(), (1, 1))

    def test_max_num_queued_tokens_counts_the_prompts_in_the_house(self) -> None:
        self.start(max_num_queued_tokens=5, **SLOW)
        _, done = self.ask(prompts=("a b c",))
        self.assertEqual(self.refused(prompts=("a b c",)).kind, BUSY)
        self.ask(1, prompts=("a b",))
        done.cancel()
        self.failureResultOf(done, CancelledError)
        self.ask(1, prompts=("a b c",))
        self.assertEqual(self.load(), (2, 0))

    def test_a_refused_request_is_open_no_more(self) -> None:
        self.start(max_model_len=4)
        self.refused(5)
        self.assertTrue(free(self.rank))


class OrderTests(RankCase):
    def started(self, *asked: Request) -> list[str]:
        """Requests by their ids in the order in which a single seat serves them, behind one that holds it."""
        self.ask(1)
        ears = {one.id: Ear(self.clock) for one in asked}
        for one in asked:
            serve(self.rank, one, ears[one.id])
        self.clock.pump([0.25] * (len(asked) + 1))
        return sorted(ears, key=lambda id: ears[id].when("0 begin"))

    def test_priority_counts_only_where_the_policy_says_so(self) -> None:
        asked = [request(1, id=id, priority=priority) for id, priority in (("a", 2), ("b", 1), ("c", 2), ("d", -1))]
        for policy, order in (("fcfs", ["a", "b", "c", "d"]), ("priority", ["d", "b", "a", "c"])):
            self.start(max_num_seqs=1, scheduling_policy=policy, **SLOW)
            self.assertEqual(self.started(*asked), order)

    def test_a_loaded_adapter_goes_before_one_that_needs_a_slot(self) -> None:
        self.start(max_num_seqs=1, lora_modules=adapters("l1", "l2"), **SLOW)
        asked = [request(1, id=id, model=adapter(name)) for id, name in (("a", "l1"), ("b", "l2"), ("c", "l1"))]
        self.assertEqual(self.started(*asked), ["a", "c", "b"])
