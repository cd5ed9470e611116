"""Who goes before whom: the older simulator's orders, adapters, sequences that do not fit."""

from __future__ import annotations

from itertools import islice

from twisted.internet.defer import CancelledError

from llmdsim.sim.scheduler import Seat
from llmdsim.test.test_scheduler import SchedulerCase

SPREAD = "l1", "l1", "l2", "l3", "l4", "l5", "l1", "l2", "l3", "l4", "l5"
APART, SERVICE = 0.125, 1.25  # seconds: the reference's 100 ms and 1 s, in fractions of two


class ReferenceOrderTests(SchedulerCase):
    """The orders of the older simulator; arrivals are numbered, and those in one set may start in any order."""

    def started(self, seats: int, slots: int, apart: float, *wanted: str) -> list[int]:
        """The arrivals in the order in which they got a seat."""
        self.start(seats, slots=slots)
        order: list[int] = []

        def serve(seat: Seat, number: int) -> None:
            order.append(number)
            self.clock.callLater(SERVICE, self.scheduler.leave, seat)

        for number, adapter in enumerate(wanted):
            self.scheduler.enter(adapter).addCallback(serve, number)
            self.clock.advance(apart)
        self.clock.pump([APART] * 100)
        return order

    def assert_order(self, order: list[int], *groups: set[int]) -> None:
        following = iter(order)
        self.assertEqual([set(islice(following, len(group))) for group in groups], list(groups))
        self.assertEqual(list(following), [])

    def test_one_seat_and_one_slot_serve_the_loaded_adapter_first(self) -> None:
        order = self.started(1, 1, 0, "l1", "l1", "l2", "l3", "l4", "l1", "l2", "l3", "l4")
        self.assertEqual(order, [0, 1, 5, 2, 6, 3, 7, 4, 8])

    def test_two_seats_and_one_slot_are_filled_with_one_adapter(self) -> None:
        order = self.started(2, 1, 0, "l1", "l1", "l2", "l3", "l4", "l2", "l3", "l4")
        self.assert_order(order, {0, 1}, {2, 5}, {3, 6}, {4, 7})

    def test_with_three_slots_a_fourth_adapter_waits_for_an_idle_one(self) -> None:
        for seats in (4, 5):
            order = self.started(seats, 3, APART, *SPREAD)
            self.assert_order(order, {0}, {1}, {2}, {3}, {6}, {7}, {8}, {4, 9}, {5, 10})

    def test_with_a_slot_for_each_a_loaded_adapter_still_goes_first(self) -> None:
        self.assertEqual(self.started(5, 5, APART, *SPREAD), [0, 1, 2, 3, 4, 6, 7, 8, 9, 5, 10])


class AdapterTests(SchedulerCase):
    def test_one_whose_adapter_has_no_slot_is_passed_over(self) -> None:
        self.start(2)
        self.taken("l1")
        self.enter("other adapter", "l2")
        self.assertEqual((self.scheduler.running, self.scheduler.waiting, self.scheduler.deferred()), (1, 1, 1))
        self.enter("base")
        self.assertEqual(self.order, ["base"])

    def test_an_adapter_that_waits_runs_when_the_last_user_of_the_slot_leaves(self) -> None:
        self.start(3)
        first, second = self.taken("l1"), self.taken("l1")
        self.enter("l2", "l2")
        self.scheduler.leave(first)
        self.turn()
        self.assertEqual((self.order, self.scheduler.waits("l2")), ([], True))
        self.scheduler.leave(second)
        self.turn()
        self.assertEqual((self.order, self.scheduler.waits("l2")), (["l2"], False))

    def test_with_a_seat_and_a_slot_to_give_priority_decides_between_base_and_adapter(self) -> None:
        self.start(1, slots=2)
        seat = self.taken()
        self.enter("base", None, 0)
        self.enter("urgent", "l1", -1)
        self.scheduler.leave(seat)
        self.turn()
        self.assertEqual(self.order, ["urgent"])


class FitTests(SchedulerCase):
    """Sequences that need more than a seat: KV blocks."""

    def setUp(self) -> None:
        self.start(3)
        self.room = False
        self.seat = self.taken()
        self.large = self.scheduler.enter(None, 0, lambda: self.room)
        self.enter("small")

    def test_one_that_does_not_fit_holds_up_all_behind_it(self) -> None:
        self.turn()
        self.assertNoResult(self.large)
        self.assertEqual((self.order, self.scheduler.running, self.scheduler.waiting), ([], 1, 2))

    def test_one_that_goes_before_it_and_fits_is_not_held_up(self) -> None:
        self.enter("urgent", priority=-1)
        self.turn()
        self.assertEqual(self.order, ["urgent"])

    def test_it_goes_when_somebody_has_made_room(self) -> None:
        self.room = True
        self.scheduler.leave(self.seat)
        self.turn()
        self.successResultOf(self.large)
        self.assertEqual(self.order, ["small"])

    def test_when_it_gives_up_those_behind_it_go(self) -> None:
        self.large.cancel()
        self.failureResultOf(self.large, CancelledError)
        self.turn()
        self.assertEqual(self.order, ["small"])
