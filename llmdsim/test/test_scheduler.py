"""Seats and the queue: who runs next, who waits, who is refused."""

from __future__ import annotations

import sys
from collections.abc import Callable
from time import process_time
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from llmdsim.faults import RATE_LIMITED, Fault
from llmdsim.sim.lora import Adapters
from llmdsim.sim.scheduler import Scheduler, Seat
from llmdsim.test.support import adapters

NAMES = ("l1", "l2", "l3", "l4", "l5")


class CountingClock(Clock):
    """A clock that counts the calls it was asked for."""

    asked = 0

    def callLater(self, *arguments: Any, **named: Any) -> Any:
        """One more."""
        self.asked += 1
        return super().callLater(*arguments, **named)


class SchedulerCase(SynchronousTestCase):
    def start(self, seats: int = 1, queue: int = 1000, slots: int = 1) -> None:
        self.clock = CountingClock()
        self.adapters = Adapters(("m",), adapters(*NAMES), slots)
        self.scheduler = Scheduler(self.clock, seats, queue, self.adapters)
        self.order: list[str] = []

    def enter(self, name: str, adapter: str | None = None, priority: int = 0) -> Deferred[Seat]:
        """Ask for a seat; ``order`` tells who got one."""

        def seated(seat: Seat) -> Seat:
            self.order.append(name)
            return seat

        return self.scheduler.enter(adapter, priority).addCallback(seated)

    def taken(self, adapter: str | None = None) -> Seat:
        return self.successResultOf(self.scheduler.enter(adapter))

    def turn(self) -> None:
        self.clock.advance(0)


class SeatTests(SchedulerCase):
    def test_a_free_seat_is_given_at_once(self) -> None:
        self.start(2)
        seats = [self.taken(), self.taken()]
        self.assertEqual((self.scheduler.running, self.scheduler.waiting, len(seats)), (2, 0, 2))

    def test_a_freed_seat_is_granted_on_the_next_turn_never_inside_leave(self) -> None:
        self.start()
        seat = self.taken()
        self.enter("next")
        self.scheduler.leave(seat)
        self.assertEqual((self.order, self.scheduler.running), ([], 0))
        self.turn()
        self.assertEqual((self.order, self.scheduler.running), (["next"], 1))

    def test_a_newcomer_does_not_jump_the_queue_while_a_freed_seat_awaits_its_turn(self) -> None:
        self.start()
        seat = self.taken()
        first = self.enter("first")
        self.scheduler.leave(seat)
        self.enter("newcomer")
        self.assertEqual(self.order, [])
        self.turn()
        self.assertEqual(self.order, ["first"])
        self.scheduler.leave(self.successResultOf(first))
        self.turn()
        self.assertEqual(self.order, ["first", "newcomer"])

    def test_a_seat_tells_when_it_was_asked_for_and_when_it_was_granted(self) -> None:
        self.start()
        self.clock.advance(1)
        seat = self.taken()
        self.clock.advance(1)
        second = self.enter("second")
        self.clock.advance(2)
        self.scheduler.leave(seat)
        self.turn()
        later = self.successResultOf(second)
        self.assertEqual([(seat.queued, seat.granted), (later.queued, later.granted)], [(1, 1), (2, 4)])

    def test_seats_freed_together_are_all_granted_in_one_turn(self) -> None:
        self.start(3)
        seats = [self.taken() for _ in range(3)]
        for name in "abcd":
            self.enter(name)
        for seat in seats:
            self.scheduler.leave(seat)
        self.turn()
        self.assertEqual(self.order, ["a", "b", "c"])

    def test_900_that_leave_at_once_are_granted_one_seat_each_on_its_own_turn_without_recursion(self) -> None:
        self.start()
        seat = self.taken()
        depths = []

        def leave(seat: Seat) -> None:
            depths.append(depth())
            self.scheduler.leave(seat)

        for _ in range(900):
            self.scheduler.enter().addCallback(leave)
        self.scheduler.leave(seat)
        self.turn()
        self.assertEqual((len(depths), len(set(depths))), (900, 1))
        self.assertEqual(self.clock.asked, 900)
        self.assertEqual((self.scheduler.running, self.scheduler.waiting), (0, 0))


def depth() -> int:
    """How many frames are on the stack."""
    frame, count = sys._getframe(), 0
    while frame.f_back is not None:
        frame, count = frame.f_back, count + 1
    return count


class QueueTests(SchedulerCase):
    def refused(self, call: Callable[[], object]) -> Fault:
        return self.assertRaises(Fault, call)

    def test_a_full_queue_refuses_and_says_when_to_come_again(self) -> None:
        self.start(1, queue=2)
        self.taken()
        self.enter("a")
        self.enter("b")
        fault = self.refused(self.scheduler.enter)
        self.assertEqual((fault.kind, fault.headers), (RATE_LIMITED, (("Retry-After", "1"),)))
        self.assertEqual(fault.message, "Failed to enqueue request, waiting requests queue is full")
        self.assertEqual(self.scheduler.waiting, 2)

    def test_without_a_queue_only_a_free_seat_admits(self) -> None:
        self.start(1, queue=0)
        seat = self.taken()
        self.refused(self.scheduler.enter)
        self.scheduler.leave(seat)
        self.taken()

    def test_a_seat_just_freed_counts_as_room_in_the_queue(self) -> None:
        self.start(1, queue=1)
        seat = self.taken()
        self.enter("a")
        self.scheduler.leave(seat)
        self.enter("b")
        self.refused(self.scheduler.enter)
        self.turn()
        self.assertEqual((self.order, self.scheduler.waiting), (["a"], 1))
        self.refused(self.scheduler.enter)

    def test_one_that_is_cancelled_leaves_the_queue_at_once_and_its_place_goes_to_the_next(self) -> None:
        self.start(1, queue=2)
        seat = self.taken()
        gone = self.enter("gone")
        self.enter("next")
        gone.cancel()
        self.failureResultOf(gone, CancelledError)
        self.assertEqual(self.scheduler.waiting, 1)
        self.enter("last")
        self.scheduler.leave(seat)
        self.turn()
        self.assertEqual(self.order, ["next"])

    def test_10000_that_wait_can_cancel_quickly(self) -> None:
        self.start(1, queue=10_000)
        seat = self.taken()
        waiting = [self.enter("gone") for _ in range(10_000)]
        began = process_time()
        for deferred in reversed(waiting):
            deferred.cancel()
        self.assertLess(process_time() - began, 1)
        self.assertEqual(self.scheduler.waiting, 0)
        self.scheduler.leave(seat)
        self.turn()
        self.assertEqual((self.order, self.scheduler.running), ([], 0))
        for deferred in waiting:
            self.failureResultOf(deferred, CancelledError)

    def test_a_smaller_priority_goes_first_and_equal_ones_in_their_order(self) -> None:
        self.start()
        seat = self.taken()
        for name, priority in (("b", 1), ("a", -5), ("c", 1), ("0", 0)):
            self.enter(name, priority=priority).addCallback(self.scheduler.leave)
        self.scheduler.leave(seat)
        self.turn()
        self.assertEqual(self.order, ["a", "0", "b", "c"])
