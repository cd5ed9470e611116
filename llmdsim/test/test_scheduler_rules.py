"""The scheduler's rules, held for whatever happens in whatever order."""

from __future__ import annotations

import attrs
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from llmdsim.faults import Fault
from llmdsim.sim.lora import Adapters
from llmdsim.sim.scheduler import Scheduler, Seat
from llmdsim.test.support import adapters

NAMES = ("l1", "l2", "l3")
QUEUE, BLOCKS = 4, 6

PLACES = st.integers(0, 20)
STEPS = st.lists(
    st.one_of(
        st.tuples(
            st.just("enter"),
            st.sampled_from((None, *NAMES)),
            st.integers(-1, 1),
            st.sampled_from((1, 1, BLOCKS // 2, BLOCKS)),
            st.booleans(),
        ),
        st.tuples(st.just("leave"), PLACES),
        st.tuples(st.just("cancel"), PLACES),
        st.tuples(st.just("unload"), st.sampled_from(NAMES)),
        st.tuples(st.just("turn")),
    ),
    max_size=60,
)


@attrs.define(eq=False)
class Guest:
    """Somebody who asked for a seat and needs some blocks; ``brief`` ones leave as soon as they have it."""

    adapter: str | None
    key: tuple[int, int]
    blocks: int
    brief: bool
    asked: Deferred[Seat] | None = None
    seat: Seat | None = None


class House:
    """A scheduler beside a plain model of it: lists of who runs and who waits."""

    def __init__(self, seats: int, slots: int) -> None:
        self.clock, self.seats, self.slots = Clock(), seats, slots
        self.adapters = Adapters(("m",), adapters(*NAMES), slots)
        self.scheduler = Scheduler(self.clock, seats, QUEUE, self.adapters)
        self.running: list[Guest] = []
        self.waiting: list[Guest] = []
        self.arrivals = 0

    def enter(self, adapter: str | None, priority: int, blocks: int, brief: bool) -> None:
        self.arrivals += 1
        guest = Guest(adapter, (priority, self.arrivals), blocks, brief)
        free = self.seats - len(self.running)
        try:
            guest.asked = self.scheduler.enter(adapter, priority, lambda: self.fits(guest))
        except Fault:
            assert len(self.waiting) >= QUEUE
            return
        self.waiting.append(guest)
        guest.asked.addCallback(self.seated, guest)
        assert len(self.waiting) <= QUEUE + free

    def seated(self, seat: Seat, guest: Guest) -> None:
        self.waiting.remove(guest)
        overtaken = [other for other in self.waiting if other.adapter == guest.adapter and other.key < guest.key]
        assert not overtaken, (guest, overtaken)
        guest.seat = seat
        self.running.append(guest)
        self.check()
        if guest.brief:
            self.leave(len(self.running) - 1)

    def leave(self, place: int) -> None:
        if self.running:
            guest = self.running.pop(place % len(self.running))
            assert guest.seat is not None
            self.scheduler.leave(guest.seat)

    def cancel(self, place: int) -> None:
        if self.waiting:
            guest = self.waiting.pop(place % len(self.waiting))
            assert guest.asked is not None
            guest.asked.addErrback(lambda failure: None)
            guest.asked.cancel()

    def unload(self, name: str) -> None:
        if name in self.adapters.known:
            self.adapters.unload(name)
        else:
            self.adapters.load(name, "/somewhere")

    def turn(self) -> None:
        self.clock.advance(0)
        admitted = [guest for guest in self.waiting if self.admits(guest.adapter)]
        if admitted and len(self.running) < self.seats:
            first = min(admitted, key=lambda guest: (guest.key[0], not self.adapters.holds(guest.adapter), guest.key))
            assert not self.fits(first), first

    def admits(self, adapter: str | None) -> bool:
        in_use = self.in_use()
        return adapter is None or adapter in in_use or len(in_use) < self.slots

    def fits(self, guest: Guest) -> bool:
        return sum(other.blocks for other in self.running) + guest.blocks <= BLOCKS

    def in_use(self) -> set[str]:
        return {guest.adapter for guest in self.running if guest.adapter is not None}

    def check(self) -> None:
        in_use = self.in_use()
        assert self.scheduler.running == len(self.running) <= self.seats
        assert self.scheduler.waiting == len(self.waiting)
        assert len(in_use) <= self.slots
        assert sum(guest.blocks for guest in self.running) <= BLOCKS
        numbers = [self.adapters.slot(name) for name in NAMES if self.adapters.slot(name) is not None]
        assert len(set(numbers)) == len(numbers), numbers
        assert set(numbers) <= set(range(1, self.slots + 1)), numbers
        assert all(self.adapters.slot(name) is not None for name in in_use)
        assert all(self.scheduler.waits(name) == any(g.adapter == name for g in self.waiting) for name in NAMES)


class RuleTests(SynchronousTestCase):
    @settings(max_examples=150, deadline=None)
    @given(st.integers(1, 4), st.integers(1, 3), STEPS)
    def test_nobody_is_lost_or_stuck_and_no_limit_is_exceeded(self, seats: int, slots: int, steps: list) -> None:
        house = House(seats, slots)
        for step, *arguments in steps:
            getattr(house, step)(*arguments)
            house.check()
        while house.running or house.waiting:
            house.leave(0)
            house.turn()
            house.check()
