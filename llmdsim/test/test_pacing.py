"""When each token leaves: deadlines, late tokens, and streams that fail or are dropped."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from llmdsim.sim.pacing import BURST
from llmdsim.test.support import Ear, a_plan, make_rank, metric, speak

GAP = 0.125


class PacingCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.start()

    def start(self, gap: float = GAP, **flags: Any) -> None:
        self.rank, self.clock = make_rank(inter_token_latency=gap, **flags)

    def ear(self, then: Any = lambda what: None) -> Ear:
        return Ear(self.clock, then)

    def boom(self, what: str) -> None:
        """A sink that fails at its second token."""
        if what == "0 1:2":
            raise ZeroDivisionError


class DeadlineTests(PacingCase):
    def test_the_first_token_leaves_when_it_is_due_and_then_one_each_gap(self) -> None:
        ear = self.ear()
        speak(self.rank, a_plan(3), ear, due=0.5)
        self.clock.pump([0.0625] * 20)
        self.assertEqual(ear.notes, [(0.5, "0 0:1"), (0.625, "0 1:2"), (0.75, "0 2:3"), (0.75, "0 end")])

    def test_what_is_due_already_is_spoken_at_once(self) -> None:
        ear = self.ear()
        stream = speak(self.rank, a_plan(1), ear)
        self.assertEqual(ear.heard, ["0 0:1", "0 end"])
        self.successResultOf(stream.done)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_lateness_does_not_add_up(self) -> None:
        ear = self.ear()
        speak(self.rank, a_plan(101), ear)
        late = 0.03
        while "0 end" not in ear.heard:
            (call,) = self.clock.getDelayedCalls()
            self.clock.advance(call.getTime() - self.clock.seconds() + late)
        self.assertAlmostEqual(ear.when("0 end"), 100 * GAP + late)
        self.assertEqual(len(ear.heard), 102)

    @settings(deadline=None)
    @given(st.lists(st.floats(0.001, 1), min_size=1, max_size=30))
    def test_after_any_turn_exactly_what_is_due_has_been_spoken(self, turns: list[float]) -> None:
        self.start()
        ear = self.ear()
        speak(self.rank, a_plan(1000), ear, due=GAP)
        for turn in turns:
            self.clock.advance(turn)
            spoken = int(ear.heard[-1].partition(":")[2]) if ear.heard else 0
            self.assertIn(spoken, (int(self.clock.seconds() / GAP), int((self.clock.seconds() + 0.001) / GAP)))

    def test_late_tokens_share_one_call(self) -> None:
        ear = self.ear()
        speak(self.rank, a_plan(9), ear)
        self.clock.advance(0.7)
        self.clock.advance(0.05)
        self.clock.advance(5)
        self.assertEqual(ear.heard, ["0 0:1", "0 1:6", "0 6:7", "0 7:9", "0 end"])

    def test_gaps_below_a_millisecond_are_kept(self) -> None:
        self.start(0.000_25)
        ear = self.ear()
        speak(self.rank, a_plan(401), ear)
        self.clock.pump([0.001] * 99)
        self.assertNotIn("0 end", ear.heard)
        self.clock.advance(0.002)
        self.assertIn("0 end", ear.heard)

    def test_a_new_gap_holds_for_the_streams_that_speak_already(self) -> None:
        ear = self.ear()
        speak(self.rank, a_plan(4), ear)
        self.rank.pacer.gap = lambda: 0.5
        self.clock.pump([GAP] * 20)
        self.assertEqual([when for when, _ in ear.notes], [0.0, 0.125, 0.625, 1.125, 1.125])

    def test_a_long_answer_at_zero_latency_leaves_the_reactor_a_turn_between_bursts(self) -> None:
        self.start(0.0)
        ears = [self.ear(), self.ear()]
        for index, ear in enumerate(ears):
            speak(self.rank, a_plan(2 * BURST + 1, index), ear)
        self.assertEqual([ear.heard for ear in ears], [[f"0 0:{BURST}"], [f"1 0:{BURST}"]])
        self.clock.advance(0)
        self.assertEqual(len(ears[0].heard), 1)
        self.clock.pump([0.001] * 2)
        self.assertEqual(ears[0].heard[1:], [f"0 {BURST}:{2 * BURST}", f"0 {2 * BURST}:{2 * BURST + 1}", "0 end"])


class TogetherTests(PacingCase):
    def test_all_streams_share_one_call_of_the_clock(self) -> None:
        for index in range(50):
            speak(self.rank, a_plan(5, index), self.ear(), due=index / 64)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.clock.advance(0.25)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)

    def test_an_earlier_deadline_moves_the_call(self) -> None:
        early, late = self.ear(), self.ear()
        speak(self.rank, a_plan(1, 0), late, due=2)
        speak(self.rank, a_plan(1, 1), early, due=1)
        self.clock.advance(1)
        self.assertEqual((early.heard, late.heard), (["1 0:1", "1 end"], []))

    def test_streams_that_are_due_together_speak_in_the_order_of_their_deadlines(self) -> None:
        heard: list[str] = []
        for index, due in enumerate((3, 1, 2)):
            speak(self.rank, a_plan(1, index), self.ear(heard.append), due=due)
        self.clock.advance(3)
        self.assertEqual(heard[::2], ["1 0:1", "2 0:1", "0 0:1"])

    def test_one_that_begins_while_another_speaks_is_spoken_too(self) -> None:
        second = self.ear()
        start = {"0 1:2": lambda: speak(self.rank, a_plan(2, 1), second, due=self.clock.seconds())}
        speak(self.rank, a_plan(3), self.ear(lambda what: start.get(what, list)()))
        self.clock.pump([GAP] * 4)
        self.assertEqual(second.notes, [(0.125, "1 0:1"), (0.25, "1 1:2"), (0.25, "1 end")])


class EndTests(PacingCase):
    def test_a_sink_that_raises_ends_only_its_own_stream(self) -> None:
        broken, whole = self.ear(self.boom), self.ear()
        first, second = speak(self.rank, a_plan(4, 0), broken), speak(self.rank, a_plan(4, 1), whole)
        self.clock.pump([GAP] * 4)
        self.failureResultOf(first.done, ZeroDivisionError)
        self.successResultOf(second.done)
        self.assertEqual(broken.heard, ["0 0:1", "0 1:2"])
        self.assertEqual(whole.heard[-2:], ["1 3:4", "1 end"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_sink_that_raises_at_the_end_or_at_once_fails_its_stream(self) -> None:
        for tokens in (1, 2):
            stream = speak(self.rank, a_plan(tokens), self.ear(lambda what: 1 // (what != "0 end")))
            self.clock.advance(1)
            self.failureResultOf(stream.done, ZeroDivisionError)
        stream = speak(self.rank, a_plan(1), self.ear(lambda what: 1 // 0))
        self.failureResultOf(stream.done, ZeroDivisionError)

    def test_a_dropped_stream_is_silent_and_needs_no_clock(self) -> None:
        ear = self.ear()
        stream = speak(self.rank, a_plan(9), ear)
        self.rank.pacer.drop(stream)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.clock.pump([GAP] * 9)
        self.assertEqual(ear.heard, ["0 0:1"])

    def test_a_stream_can_be_dropped_by_itself_and_by_another_while_they_speak(self) -> None:
        streams: list[Any] = []
        ears = [self.ear(lambda what: what == "0 1:2" and [*map(self.rank.pacer.drop, streams)]), self.ear()]
        streams += [speak(self.rank, a_plan(9, index), ear) for index, ear in enumerate(ears)]
        self.clock.pump([GAP] * 9)
        self.assertEqual([ear.heard for ear in ears], [["0 0:1", "0 1:2"], ["1 0:1"]])

    def test_dropping_one_of_many_leaves_the_others_on_time(self) -> None:
        ears = [self.ear() for _ in range(5)]
        streams = [speak(self.rank, a_plan(3, index), ear, due=1) for index, ear in enumerate(ears)]
        self.rank.pacer.drop(streams[2])
        self.clock.pump([1, GAP, GAP])
        self.assertEqual([ear.heard.count(f"{index} end") for index, ear in enumerate(ears)], [1, 1, 0, 1, 1])


class FrozenTests(PacingCase):
    def test_all_streams_go_on_where_they_stopped(self) -> None:
        ear = self.ear()
        speak(self.rank, a_plan(3), ear, due=0.25)
        self.clock.advance(0.25)
        self.rank.pacer.freeze()
        self.clock.pump([1] * 4)
        self.assertEqual((ear.heard, self.clock.getDelayedCalls()), (["0 0:1"], []))
        self.rank.pacer.thaw()
        self.clock.pump([0.0625] * 10)
        self.assertEqual(ear.notes[1:], [(4.375, "0 1:2"), (4.5, "0 2:3"), (4.5, "0 end")])

    def test_one_that_begins_meanwhile_is_late_by_no_more_than_it_has_waited(self) -> None:
        self.rank.pacer.freeze()
        self.clock.advance(60)
        ear = self.ear()
        speak(self.rank, a_plan(1), ear, due=60.25)
        self.clock.advance(1)
        self.rank.pacer.thaw()
        self.clock.pump([0.25] * 8)
        self.assertEqual(ear.heard, ["0 0:1", "0 end"])


class MeasureTests(PacingCase):
    def value(self, name: str) -> float | None:
        return metric(self.rank, name)

    def test_gaps_are_measured_as_they_were_and_not_as_configured(self) -> None:
        speak(self.rank, a_plan(4), self.ear())
        self.clock.pump([0.2, 0.3])
        self.assertEqual(self.value("vllm:inter_token_latency_seconds_count"), 3)
        self.assertAlmostEqual(self.value("vllm:inter_token_latency_seconds_sum") or 0, 0.5)

    def test_tokens_count_as_they_leave(self) -> None:
        speak(self.rank, a_plan(9), self.ear())
        self.clock.advance(2 * GAP)
        self.assertEqual(self.value("vllm:generation_tokens_total"), 3)
        self.assertEqual(self.value("vllm:prompt_tokens_total"), 1)

    def test_a_turn_of_all_streams_is_one_iteration(self) -> None:
        for index in range(3):
            speak(self.rank, a_plan(2, index), self.ear(), due=1)
        self.clock.pump([1, GAP])
        self.assertEqual(self.value("vllm:iteration_tokens_total_count"), 2)
        self.assertEqual(self.value("vllm:iteration_tokens_total_sum"), 3 * 2 + 3)
