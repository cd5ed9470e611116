"""
Seats and the queue for them.

The pool is a DeferredSemaphore, but the queue is our own: bounded, by priority, and able to pass over a sequence whose
adapter has no slot. A seat that falls free is granted on the next turn of the clock, never from inside leave().
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any

import attrs
from twisted.internet.defer import Deferred, DeferredSemaphore, succeed
from twisted.internet.interfaces import IReactorTime

from llmdsim.faults import RATE_LIMITED, Fault
from llmdsim.sim.lora import Adapters


@attrs.define(slots=True, eq=False)
class Seat:
    """One running sequence's place; times are clock seconds."""

    adapter: str | None
    queued: float
    granted: float


@attrs.define(slots=True, eq=False)
class _Waiter:
    adapter: str | None
    queued: float
    reserve: Callable[[], bool]
    granted: Deferred[Seat] | None = None  # None: granted, or gone


def always() -> bool:
    """For sequences that need nothing but a seat."""
    return True


_Queue = list[tuple[int, int, _Waiter]]  # a heap: (priority, arrival number, who)


class Scheduler:
    """
    Who runs next: smaller priority first, then first come first served.

    A sequence whose adapter has no slot is passed over; one that does not fit (KV blocks) holds up all behind it.
    """

    def __init__(self, clock: IReactorTime, seats: int, queue_limit: int, adapters: Adapters) -> None:
        self._clock = clock
        self._pool = DeferredSemaphore(seats)
        self._adapters = adapters
        self._queues: dict[str | None, _Queue] = {}
        self._waiting: dict[str | None, int] = {}
        self._arrivals = 0
        self._turn: Any = None
        self._short = False  # the next in the queue does not fit yet
        self.queue_limit = queue_limit
        self.waiting = 0

    @property
    def running(self) -> int:
        """How many seats are taken."""
        return self._pool.limit - self._pool.tokens

    def enter(
        self, adapter: str | None = None, priority: int = 0, reserve: Callable[[], bool] = always
    ) -> Deferred[Seat]:
        """
        Ask for a seat; the Deferred fires when the sequence may run, and cancelling it leaves the queue.

        ``reserve`` takes what else the sequence needs, and says whether it could; after True the seat is granted.
        Raises Fault(RATE_LIMITED) at once when the queue is full. While freed seats await their turn a newcomer
        queues, so that nobody is overtaken; those seats then count as room in the queue.
        """
        now = self._clock.seconds()
        if (
            self._turn is None
            and self._pool.tokens
            and not self._short
            and self._adapters.admits(adapter)
            and reserve()
        ):
            return succeed(self._grant(adapter, now, now))
        if self.waiting >= self.queue_limit + (self._pool.tokens if self._turn else 0):
            raise Fault(
                RATE_LIMITED,
                "Failed to enqueue request, waiting requests queue is full",
                headers=(("Retry-After", "1"),),
            )
        self._short = self._short or (self._turn is None and self._pool.tokens > 0 and self._adapters.admits(adapter))
        granted = self._wait(_Waiter(adapter, now, reserve), priority)
        if self._short:  # perhaps it goes before the one that does not fit
            self._schedule()
        return granted

    def leave(self, seat: Seat) -> None:
        """Give a seat back; the next in the queue gets it on the clock's next turn."""
        self._pool.release()
        self._adapters.give(seat.adapter)
        self._schedule()

    def waits(self, adapter: str | None) -> bool:
        """Whether a sequence of this adapter is in the queue."""
        return adapter in self._waiting

    def deferred(self) -> int:
        """How many of the waiting are held back by their adapter rather than by the number of seats."""
        return sum(count for adapter, count in self._waiting.items() if not self._adapters.admits(adapter))

    def _wait(self, waiter: _Waiter, priority: int) -> Deferred[Seat]:
        self._arrivals += 1
        heappush(self._queues.setdefault(waiter.adapter, []), (priority, self._arrivals, waiter))
        self._waiting[waiter.adapter] = self._waiting.get(waiter.adapter, 0) + 1
        self.waiting += 1
        waiter.granted = Deferred(lambda _: self._give_up(waiter))
        return waiter.granted

    def _give_up(self, waiter: _Waiter) -> None:
        self._forget(waiter)
        if self._short:  # perhaps it was the one that held up the others
            self._short = False
            self._schedule()

    def _forget(self, waiter: _Waiter) -> None:
        waiter.granted = None  # its place in the heap is skipped later: O(1) here
        left = self._waiting[waiter.adapter] - 1
        if left:
            self._waiting[waiter.adapter] = left
        else:
            del self._waiting[waiter.adapter]
        self.waiting -= 1

    def _grant(self, adapter: str | None, queued: float, now: float) -> Seat:
        self._pool.acquire()
        self._adapters.take(adapter)
        return Seat(adapter, queued, now)

    def _schedule(self) -> None:
        if self.waiting and self._turn is None:
            self._turn = self._clock.callLater(0, self._fill)

    def _fill(self) -> None:
        # At most the seats that are free now: one that falls free meanwhile has its own turn, so that a long queue
        # of short answers never keeps the reactor.
        for _ in range(self._pool.tokens):
            queue = self._next()
            if queue is None:
                self._turn = None
                return
            waiter = heappop(queue)[2]
            granted = waiter.granted
            self._forget(waiter)
            assert granted is not None  # _next() skips those that left
            granted.callback(self._grant(waiter.adapter, waiter.queued, self._clock.seconds()))
        self._turn = None
        if self._pool.tokens:
            self._schedule()

    def _next(self) -> _Queue | None:
        """The queue whose head may go: by priority, then base and loaded adapters before those that need a slot."""
        heads = [queue for queue in map(self._alive, list(self._queues)) if queue]
        ready = [queue for queue in heads if self._adapters.admits(queue[0][2].adapter)]
        first = min(ready, key=self._rank, default=None)
        self._short = first is not None and not first[0][2].reserve()
        return None if self._short else first

    def _rank(self, queue: _Queue) -> tuple[int, bool, int]:
        priority, arrival, waiter = queue[0]
        return priority, not self._adapters.holds(waiter.adapter), arrival

    def _alive(self, adapter: str | None) -> _Queue:
        queue = self._queues[adapter]
        while queue and queue[0][2].granted is None:
            heappop(queue)
        if not queue:
            del self._queues[adapter]
        return queue
