"""A rank from its start to its end: readiness, ids, chance, aborts, adapters, draining."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError
from twisted.trial.unittest import SynchronousTestCase

from llmdsim.faults import UNAVAILABLE, Fault
from llmdsim.sim.rank import Rank
from llmdsim.test.support import Ear, adapter, adapters, free, make_rank, metric, request, serve

SLOW: dict[str, Any] = {"time_to_first_token": 0.25, "inter_token_latency": 0.125}


class StartTests(SynchronousTestCase):
    def test_a_rank_is_ready_when_its_startup_has_passed(self) -> None:
        rank, clock = make_rank(startup_duration=2.0)
        states = []
        for _ in range(3):
            states.append(rank.ready)
            clock.advance(1)
        self.assertEqual(states, [False, False, True])

    def test_ids_are_sixteen_hex_digits_and_all_different(self) -> None:
        rank, _ = make_rank()
        ids = [rank.new_id() for _ in range(1000)]
        self.assertEqual(len(set(ids)), 1000)
        for id in ids:
            self.assertRegex(id, r"\A[0-9a-f]{16}\Z")

    def test_ids_come_again_for_the_same_seed_and_port_only(self) -> None:
        ranks = make_rank(), make_rank(), make_rank(seed=2), make_rank(port=8001)
        ids = [rank.new_id() for rank, _ in ranks]
        self.assertEqual((ids[0], len(set(ids))), (ids[1], 3))


class ChanceTests(SynchronousTestCase):
    def answers(self, **flags: Any) -> list[Any]:
        rank, clock = make_rank(inter_token_latency=0.01, inter_token_latency_std_dev=0.002, **flags)
        ears = []
        for i in range(20):
            ears.append(Ear(clock))
            serve(rank, request(50, ignore_eos=False, n=1 + i % 2), ears[-1])
            clock.pump([0.1] * 10)
        return [(ear.notes, ear.text) for ear in ears]

    def test_the_same_seed_and_requests_give_the_same_answers_at_the_same_times(self) -> None:
        self.assertEqual(self.answers(), self.answers())
        self.assertNotEqual(self.answers(), self.answers(seed=2))

    def test_a_requests_own_seed_gives_its_answer_whatever_came_before(self) -> None:
        texts = []
        for before in (0, 3):
            rank, clock = make_rank()
            for _ in range(before):
                serve(rank, request(20), Ear(clock))
            ear = Ear(clock)
            serve(rank, request(20, seed=7), ear)
            texts.append(ear.text)
        self.assertEqual(texts[0], texts[1])


class AbortTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.rank, self.clock = make_rank(max_num_seqs=1, **SLOW)

    def test_one_that_speaks_ends_at_once_with_what_it_has_said(self) -> None:
        ear = Ear(self.clock)
        done = serve(self.rank, request(9, id="cmpl-1", bare_id="1"), ear)
        self.clock.pump([0.25, 0.125])
        self.assertEqual(self.rank.abort(["other", "1"]), 1)
        self.successResultOf(done)
        self.assertEqual(ear.heard[2:], ["0 1:2", "0 2:3", "0 end"])
        plan = ear.plans[0]
        self.assertEqual((len(plan.ids), plan.texts[2:], plan.finish), (2, [""], "abort"))
        self.assertTrue(free(self.rank))
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(metric(self.rank, "vllm:request_success_total", finished_reason="abort"), 1)

    def test_one_that_waits_ends_with_nothing_said(self) -> None:
        serve(self.rank, request(1), Ear(self.clock))
        ear = Ear(self.clock)
        done = serve(self.rank, request(9, id="cmpl-1"), ear)
        self.assertEqual(self.rank.abort(["cmpl-1"]), 1)
        self.successResultOf(done)
        self.assertEqual((ear.heard, ear.plans[0].finish), (["0 begin", "0 0:1", "0 end"], "abort"))
        self.assertEqual((self.rank.scheduler.waiting, [*ear.plans[0].ids]), (0, []))

    def test_only_sequences_that_were_going_on_are_counted(self) -> None:
        done = serve(self.rank, request(2, id="cmpl-1", n=2), Ear(self.clock))
        self.clock.pump([0.375, 0])
        self.assertEqual(self.rank.scheduler.running, 1)
        self.assertEqual(self.rank.abort(["cmpl-1"]), 1)
        self.successResultOf(done)

    def test_one_whose_sink_raises_frees_its_seat(self) -> None:
        ear = Ear(self.clock, lambda what: 1 // (what != "0 1:2"))
        done = serve(self.rank, request(9, id="cmpl-1"), ear)
        self.clock.advance(0.25)
        self.rank.abort(["cmpl-1"])
        self.failureResultOf(done, ZeroDivisionError)
        self.assertTrue(free(self.rank))


class AdapterTests(SynchronousTestCase):
    def slots(self, rank: Rank) -> dict[str, int | None]:
        return {name: rank.adapters.slot(name) for name in rank.adapters.known}

    def test_an_adapter_unloaded_while_it_speaks_goes_on_and_then_frees_its_slot(self) -> None:
        rank, clock = make_rank(lora_modules=adapters("l1", "l2"), **SLOW)
        first, second = Ear(clock), Ear(clock)
        serve(rank, request(3, model=adapter("l1")), first)
        serve(rank, request(1, model=adapter("l2")), second)
        rank.adapters.unload("l1")
        self.assertEqual((rank.adapters.slot("l1"), second.heard), (1, []))
        clock.pump([0.25, 0.125, 0.125, 0])
        self.assertEqual((first.heard[-1], rank.adapters.slot("l1"), self.slots(rank)), ("0 end", None, {"l2": 1}))
        self.assertEqual(second.heard, ["0 begin"])

    def test_one_that_leaves_gives_its_slot_to_the_next_adapter(self) -> None:
        rank, clock = make_rank(lora_modules=adapters("l1", "l2"), **SLOW)
        done = serve(rank, request(9, model=adapter("l1")), Ear(clock))
        waiting = Ear(clock)
        serve(rank, request(9, model=adapter("l2")), waiting)
        self.assertEqual(metric(rank, "vllm:num_requests_waiting_by_reason", reason="deferred"), 1)
        done.cancel()
        self.failureResultOf(done, CancelledError)
        clock.advance(0)
        self.assertEqual((waiting.heard, self.slots(rank)), (["0 begin"], {"l1": None, "l2": 1}))


class DrainTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.rank, self.clock = make_rank(max_num_seqs=1, **SLOW)

    def test_it_refuses_new_requests_and_waits_for_the_open_ones(self) -> None:
        ears = [Ear(self.clock), Ear(self.clock)]
        for ear in ears:
            serve(self.rank, request(1), ear)
        drained = self.rank.drain(30)
        refused = serve(self.rank, request(1), Ear(self.clock))
        fault = self.failureResultOf(refused, Fault).value
        self.assertEqual((fault.kind, fault.kind.status), (UNAVAILABLE, 503))
        self.clock.advance(0.25)
        self.assertNoResult(drained)
        self.clock.advance(0.25)
        self.successResultOf(drained)
        self.assertEqual([ear.heard[-1] for ear in ears], ["0 end", "0 end"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_without_open_requests_it_is_done_at_once(self) -> None:
        self.successResultOf(self.rank.drain(30))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_it_waits_no_longer_than_the_limit(self) -> None:
        ear = Ear(self.clock)
        done = serve(self.rank, request(100), ear)
        drained = self.rank.drain(5)
        self.clock.advance(4.75)
        self.assertNoResult(drained)
        self.clock.advance(0.25)
        self.successResultOf(drained)
        self.assertEqual((self.rank.open, "0 end" in ear.heard), (1, False))
        done.cancel()
        self.failureResultOf(done, CancelledError)

    def test_one_whose_client_leaves_is_waited_for_no_more(self) -> None:
        done = serve(self.rank, request(100), Ear(self.clock))
        drained = self.rank.drain(5)
        done.cancel()
        self.failureResultOf(done, CancelledError)
        self.successResultOf(drained)
