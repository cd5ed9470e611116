"""
Pacing: when each token leaves.

One Pacer a rank keeps a heap of absolute deadlines and one callLater for the earliest; what is due speaks in that turn.
Deadlines are absolute, so lateness never adds up. The loops here are the hot path: bare on purpose.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush, heapreplace
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from llmdsim.sim.metrics import Meters
from llmdsim.sim.plan import Plan, Sink, abort

SLACK = 0.0002  # seconds: what is due within this speaks now; epoll cannot tell times that close apart
BURST = 512  # tokens that one stream may speak in a turn, so that zero latency does not keep the reactor


class Pacer:
    """
    The clock of one rank's streams.

    ``gap`` draws the seconds to the next token, and may be replaced at any time. ``grow`` is told when a plan has
    spoken as many tokens as its ``boundary`` says.
    """

    def __init__(
        self, clock: IReactorTime, gap: Callable[[], float], meters: Meters, grow: Callable[[Plan, int], None]
    ) -> None:
        self._clock = clock
        self._heap: list[list[Any]] = []  # [deadline, number, stream or None]; None: dropped
        self._numbers = 0
        self._timer: Any = None
        self._speaking = False
        self._frozen: float | None = None  # since when
        self.gap = gap
        self.grow = grow
        self.meters = meters
        self.turn_tokens = 0

    def speak(self, plan: Plan, sink: Sink, first_due: float) -> Stream:
        """Speak a plan from ``first_due`` (clock seconds) on; what is due already is spoken before this returns."""
        now = self._clock.seconds()
        if self._frozen is not None:
            first_due -= now - self._frozen  # thaw() moves it by all of the time
        stream = Stream(self, plan, sink, first_due)
        due = stream.step(now) if first_due <= now and self._frozen is None else first_due
        if due is not None:
            self._add(stream, due)
        if not self._speaking:
            self._end_turn()
        return stream

    def drop(self, stream: Stream) -> None:
        """Forget a stream; it will not speak again."""
        if stream.entry is not None:
            stream.entry[2] = None
            stream.entry = None
        if not self._speaking:
            self._arm()

    def freeze(self) -> None:
        """Speak no more until ``thaw``."""
        if self._frozen is None:
            self._frozen = self._clock.seconds()
            self._disarm()

    def thaw(self) -> None:
        """Go on where ``freeze`` stopped: all deadlines move by the time between."""
        if self._frozen is None:
            return
        late = self._clock.seconds() - self._frozen
        self._frozen = None
        for entry in self._heap:
            entry[0] += late  # all by the same, so that it stays a heap
            if entry[2] is not None:
                entry[2].due += late
        self._arm()

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _add(self, stream: Stream, due: float) -> None:
        self._numbers += 1
        stream.entry = entry = [due, self._numbers, stream]
        heappush(self._heap, entry)
        if not self._speaking:
            self._arm()

    def _arm(self) -> None:
        heap, timer = self._heap, self._timer
        while heap and heap[0][2] is None:
            heappop(heap)
        if not heap or self._frozen is not None:
            self._disarm()
            return
        due = heap[0][0]
        if timer is not None:
            if timer.getTime() <= due:
                return
            timer.cancel()
        self._timer = self._clock.callLater(max(0.0, due - self._clock.seconds()), self._tick)

    def _tick(self) -> None:
        self._timer = None
        self._speaking = True
        heap = self._heap
        now = self._clock.seconds()
        limit = now + SLACK
        while heap:
            entry = heap[0]
            if entry[0] > limit:
                break
            stream = entry[2]
            due = None if stream is None else stream.step(now)
            if due is None:
                self._remove(entry)
            elif heap[0] is entry:
                entry[0] = due
                heapreplace(heap, entry)
            else:  # speaking added an earlier deadline
                entry[2] = None
                self._add(stream, due)
        self._speaking = False
        self._end_turn()
        self._arm()

    def _remove(self, entry: list[Any]) -> None:
        if self._heap[0] is entry:
            heappop(self._heap)
        else:
            entry[2] = None

    def _end_turn(self) -> None:
        if self.turn_tokens:
            self.meters.step(self.turn_tokens)
            self.turn_tokens = 0


class Stream:
    """One sequence being spoken. ``done`` fires when its last token has left; who waits no longer drops it."""

    __slots__ = ("done", "due", "entry", "index", "pacer", "plan", "sink", "size")

    def __init__(self, pacer: Pacer, plan: Plan, sink: Sink, due: float) -> None:
        self.pacer, self.plan, self.sink = pacer, plan, sink
        self.index, self.size, self.due = 0, len(plan.texts), due
        self.entry: list[Any] | None = None
        self.done: Deferred[None] = Deferred()

    def step(self, now: float) -> float | None:
        """Speak what is due; the next deadline, or None at the end. What a sink raises ends this stream alone."""
        try:
            return self._step(now)
        except Exception:
            self.entry = None
            self.done.errback(Failure())
            return None

    def cut(self) -> None:
        """Abort from within: what has not been spoken is forgotten, and the end follows at once."""
        self.pacer.drop(self)
        abort(self.plan, self.index)
        self.size = len(self.plan.texts)
        try:
            self.sink.tokens(self.plan, self.index, self.size)
            self.sink.end(self.plan)
        except Exception:
            self.done.errback(Failure())
        else:
            self.done.callback(None)

    def _step(self, now: float) -> float | None:
        pacer = self.pacer
        start = index = self.index
        due, gap, limit = self.due, pacer.gap, now + SLACK
        stop = min(self.size, start + BURST)
        while True:
            index += 1
            if index >= self.size:
                break
            due += gap()
            if due > limit or index >= stop:
                break
        self._measure(now, start, index - start)
        self.index, self.due = index, due
        if index >= self.plan.boundary:
            pacer.grow(self.plan, index)
        self.sink.tokens(self.plan, start, index)
        if index < self.size:
            return max(due, limit + SLACK)  # what a burst left over waits for the reactor's next turn
        self.entry = None
        self.sink.end(self.plan)
        self.done.callback(None)
        return None

    def _measure(self, now: float, start: int, count: int) -> None:
        pacer, meters, plan = self.pacer, self.pacer.meters, self.plan
        meters.lag(max(0.0, now - self.due))
        if start:
            meters.inter_token(now - plan.last)
        else:
            plan.first = now
            meters.first_token(now - plan.arrival, plan.prompt_tokens, plan.cached_tokens, plan.external_tokens)
            pacer.turn_tokens += plan.prompt_tokens - plan.cached_tokens
        if count > 1:
            meters.inter_token_many(0.0, count - 1)
        plan.last = now
        pacer.turn_tokens += count
        meters.generated(count)
