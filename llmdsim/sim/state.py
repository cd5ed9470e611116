"""
Awake, asleep or paused: what becomes of a rank's requests in each state, as in vLLM 0.33.

It holds newcomers back and says when the rank is idle; ending, freezing and forgetting are the engine's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

from twisted.internet.defer import Deferred

from llmdsim.faults import INTERNAL, UNAVAILABLE, Fault, Kind

MODES = ("abort", "wait", "keep")
MEMORY = frozenset(("weights", "kv_cache"))
SCHEDULING = "scheduling"  # the tag that wakes a rank that sleeps at level 0
NO_LEVEL = -1


class Engine(Protocol):
    """What a state does to a rank."""

    def abort(self) -> object:
        """End every running and queued sequence now, with finish reason ``abort``."""

    def reset_cache(self, running: bool) -> object:
        """Forget the prefix cache; with ``running`` even while sequences use it."""


class Pace(Protocol):
    """What a state does to sequences that are being spoken."""

    def freeze(self) -> None:
        """Speak no more until ``thaw``."""

    def thaw(self) -> None:
        """Go on where ``freeze`` stopped; nothing where it did not."""


class Paused(Fault):
    """A newcomer's refusal; a stream tells it in an event after status 200, with ``streamed`` for its kind."""

    streamed = Kind(503, INTERNAL.type)

    def __init__(self) -> None:
        super().__init__(UNAVAILABLE, "Generation is paused. Please retry after it resumes.")


class State:
    """
    The state of one rank.

    Asleep or paused, it refuses newcomers (pause modes abort and wait) or lets them hang (mode keep, any sleep). What
    runs already is aborted, waited for or frozen, by the mode.
    ``level`` is what vLLM's gauge shows: 0 awake, 1 or 2 asleep, -1 asleep in a way that the gauge has no name for.
    """

    def __init__(self, engine: Engine, pace: Pace) -> None:
        self._engine, self._pace = engine, pace
        self._asleep: frozenset[str] = frozenset()
        self._refuses = False
        self._open = 0
        self._hanging: dict[Deferred[None], None] = {}  # in order of arrival
        self._when_idle: list[Callable[[], None]] = []
        self.paused = False
        self.level = 0

    @property
    def sleeping(self) -> bool:
        """Whether newcomers are held back for any reason; for vLLM a pause is a sleep too."""
        return self.paused or bool(self._asleep)

    @property
    def hanging(self) -> int:
        """How many requests wait for the rank to wake up; vLLM counts them as waiting."""
        return len(self._hanging)

    async def enter(self) -> None:
        """
        Returns when a request may begin; ``leave`` must follow then, and only then.

        Raises Paused. Cancelling leaves the queue.
        """
        while self.sleeping:
            if self._refuses:
                raise Paused
            gate: Deferred[None] = Deferred(self._forget)
            self._hanging[gate] = None
            await gate
        self._open += 1

    def leave(self) -> None:
        """A request has ended."""
        self._open -= 1
        if self._open:
            return
        waiting, self._when_idle = self._when_idle, []
        for finish in waiting:
            finish()

    def pause(self, mode: str = "abort", clear: bool = True) -> Deferred[None]:
        """
        Stop; fires when nothing runs, or all is frozen. Mode keep freezes and lets newcomers hang.

        ``clear`` forgets the prefix cache in the end, but not in mode keep. Cancelling does not end the pause.
        """
        self._refuses = mode != "keep"
        return self._halt(mode, lambda: self._clear(clear and mode != "keep"))

    def resume(self) -> None:
        """Go on after a pause; with memory asleep newcomers hang on."""
        self.paused = self._refuses = False
        self._pace.thaw()
        if not self._asleep:
            self._let_in()

    def sleep(self, level: int = 1, mode: str = "abort") -> Deferred[None]:
        """Pause without refusing newcomers; from level 1 on give up memory too. Fires when all that is done."""

        def finish() -> None:
            self._clear(level > 0)
            self._asleep |= MEMORY if level else frozenset()
            self.level = level or NO_LEVEL

        return self._halt(mode, finish)

    def wake(self, tags: Iterable[str] | None = None) -> bool:
        """
        Get memory back (None: all of it), and go on once it is all there; returns whether it is.

        One tag of memory that is not asleep makes the tags void.
        """
        wanted = self._asleep if tags is None else frozenset(tags) - {SCHEDULING}
        if wanted <= self._asleep:
            self._asleep -= wanted
        if self._asleep:
            return False
        self.level = 0
        self.resume()
        return True

    def release(self) -> None:
        """Give up the memory of the KV cache. Fault(INTERNAL) unless the pause is complete and all memory awake."""
        if not self.paused or self._when_idle or self._asleep:
            raise Fault(INTERNAL, "Internal server error")
        self._clear(True)
        self._asleep = frozenset(("kv_cache",))
        self.level = NO_LEVEL

    def _halt(self, mode: str, finish: Callable[[], None]) -> Deferred[None]:
        self.paused = True
        if mode == "abort":
            self._engine.abort()
        if mode == "keep":
            self._pace.freeze()
        else:
            self._pace.thaw()
        return self._once(finish, at_once=mode == "keep" or not self._open)

    def _once(self, finish: Callable[[], None], at_once: bool) -> Deferred[None]:
        """Finish now or when idle, whether or not somebody still waits to hear of it."""
        halted: Deferred[None] = Deferred()

        def done() -> None:
            finish()
            if not halted.called:
                halted.callback(None)

        if at_once:
            done()
        else:
            self._when_idle.append(done)
        return halted

    def _clear(self, clear: bool) -> None:
        if clear:
            self._engine.reset_cache(True)

    def _let_in(self) -> None:
        hanging, self._hanging = self._hanging, {}
        for gate in hanging:
            if not gate.called:  # one that was let in may have cancelled another
                gate.callback(None)

    def _forget(self, gate: Deferred[None]) -> None:
        self._hanging.pop(gate, None)
