from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from llmdsim.faults import Fault
from llmdsim.sim.state import Paused, State


class Engine:
    """An engine and its pace, which write down what they are told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def abort(self) -> None:
        self.told.append("abort")

    def freeze(self) -> None:
        self.told.append("freeze")

    def thaw(self) -> None:
        self.told.append("thaw")

    def reset_cache(self, running: bool) -> None:
        self.told.append(f"reset {running}")


class StateTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.engine = Engine()
        self.state = State(self.engine, self.engine)

    def come(self) -> Deferred[None]:
        """A newcomer; the Deferred fires when it may begin."""
        return Deferred.fromCoroutine(self.state.enter())


class SleepTests(StateTestCase):
    def test_an_awake_rank_lets_everybody_in(self) -> None:
        self.successResultOf(self.come())
        self.assertFalse(self.state.sleeping)

    def test_who_comes_while_it_sleeps_hangs_until_it_wakes_up(self) -> None:
        self.successResultOf(self.state.sleep())
        comers = [self.come(), self.come()]
        for comer in comers:
            self.assertNoResult(comer)
        self.assertEqual((self.state.hanging, self.state.level, self.state.sleeping), (2, 1, True))
        self.assertTrue(self.state.wake())
        for comer in comers:
            self.successResultOf(comer)
        self.assertEqual((self.state.hanging, self.state.level, self.state.sleeping), (0, 0, False))

    def test_who_leaves_while_hanging_is_forgotten(self) -> None:
        self.state.sleep()
        comer = self.come()
        comer.cancel()
        self.failureResultOf(comer)
        self.assertEqual(self.state.hanging, 0)
        self.state.wake()

    def test_who_is_let_in_may_send_another_away(self) -> None:
        self.state.sleep()
        first, second = self.come(), self.come()
        first.addCallback(lambda _: second.cancel())
        self.state.wake()
        self.failureResultOf(second)

    def test_it_sleeps_at_once_after_an_abort_and_forgets_its_cache(self) -> None:
        self.successResultOf(self.state.sleep(2))
        self.assertEqual(self.engine.told, ["abort", "thaw", "reset True"])
        self.assertEqual(self.state.level, 2)

    def test_level_0_keeps_memory_and_cache_and_has_no_name_on_the_gauge(self) -> None:
        self.successResultOf(self.state.sleep(0))
        self.assertNotIn("reset True", self.engine.told)
        self.assertEqual((self.state.level, self.state.sleeping), (-1, True))
        self.assertTrue(self.state.wake(["scheduling"]))
        self.assertEqual((self.state.level, self.state.sleeping), (0, False))

    def test_mode_wait_sleeps_when_the_last_has_left(self) -> None:
        self.come()
        asleep = self.state.sleep(1, "wait")
        self.assertNoResult(asleep)
        self.assertEqual((self.state.level, self.state.sleeping), (0, True))
        self.state.leave()
        self.successResultOf(asleep)
        self.assertEqual(self.state.level, 1)

    def test_it_falls_asleep_though_nobody_waits_to_hear_of_it(self) -> None:
        self.come()
        asleep = self.state.sleep(1, "wait")
        asleep.cancel()
        self.failureResultOf(asleep)
        self.state.leave()
        self.assertEqual(self.state.level, 1)


class TagTests(StateTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.state.sleep()

    def test_it_is_awake_when_all_its_memory_is(self) -> None:
        comer = self.come()
        self.assertFalse(self.state.wake(["weights"]))
        self.assertNoResult(comer)
        self.assertTrue(self.state.wake(["kv_cache"]))
        self.successResultOf(comer)

    def test_a_tag_of_what_is_awake_already_makes_the_others_void(self) -> None:
        self.state.wake(["weights"])
        self.assertFalse(self.state.wake(["weights", "kv_cache"]))
        self.assertTrue(self.state.sleeping)

    def test_the_tag_of_scheduling_wakes_no_memory(self) -> None:
        self.assertFalse(self.state.wake(["scheduling"]))
        self.assertTrue(self.state.wake(["scheduling", "weights", "kv_cache"]))

    def test_after_a_resume_newcomers_hang_on_until_memory_is_awake(self) -> None:
        self.state.resume()
        self.assertEqual((self.state.paused, self.state.sleeping), (False, True))
        self.assertNoResult(self.come())
        self.state.wake()
        self.assertEqual(self.state.hanging, 0)


class PauseTests(StateTestCase):
    def test_a_paused_rank_refuses_newcomers(self) -> None:
        for mode in ("abort", "wait"):
            self.state.pause(mode)
            fault = self.failureResultOf(self.come(), Paused).value
            self.assertEqual((fault.kind.status, fault.kind.type), (503, "ServiceUnavailableError"))
            self.assertEqual(fault.message, "Generation is paused. Please retry after it resumes.")
            self.state.resume()
            self.successResultOf(self.come())
            self.state.leave()

    def test_mode_keep_freezes_what_runs_and_lets_newcomers_hang(self) -> None:
        self.come()
        self.successResultOf(self.state.pause("keep"))
        self.assertEqual(self.engine.told, ["freeze"])
        comer = self.come()
        self.assertNoResult(comer)
        self.state.resume()
        self.successResultOf(comer)
        self.assertEqual(self.engine.told, ["freeze", "thaw"])

    def test_mode_wait_lets_frozen_ones_go_on_to_their_end(self) -> None:
        self.come()
        self.state.pause("keep")
        paused = self.state.pause("wait")
        self.assertNoResult(paused)
        self.assertEqual(self.engine.told, ["freeze", "thaw"])
        self.state.leave()
        self.successResultOf(paused)

    def test_the_cache_is_forgotten_after_the_last_has_left_and_only_on_demand(self) -> None:
        self.come()
        self.state.pause("wait")
        self.assertNotIn("reset True", self.engine.told)
        self.state.leave()
        self.assertEqual(self.engine.told.count("reset True"), 1)
        self.state.pause("wait", clear=False)
        self.assertEqual(self.engine.told.count("reset True"), 1)

    def test_a_paused_rank_that_falls_asleep_refuses_newcomers_still(self) -> None:
        self.state.pause()
        self.state.sleep()
        self.failureResultOf(self.come(), Paused)
        self.state.wake()
        self.successResultOf(self.come())

    def test_the_memory_of_the_cache_can_be_given_up_in_a_complete_pause_only(self) -> None:
        self.assertRaises(Fault, self.state.release)
        self.come()
        self.state.pause("wait")
        self.assertRaises(Fault, self.state.release)
        self.state.leave()
        self.state.release()
        self.assertEqual((self.state.level, self.state.sleeping), (-1, True))
        self.assertRaises(Fault, self.state.release)
        self.assertTrue(self.state.wake(["kv_cache"]))
