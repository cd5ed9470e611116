"""
Responses that can be asked for again, and those that are still being made in the background.

Knows no HTTP: a background response speaks to whoever follows it, a follower being a sink.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from llmdsim.api.response_events import ResponseWriter
from llmdsim.api.response_input import spoken
from llmdsim.api.responses import REFUSED, unknown
from llmdsim.faults import INTERNAL, Fault, bad_value
from llmdsim.sim.plan import Plan, Sink

log = Logger()

MOST = 1000
ROOM = 64 << 20
ACTIVE = ("queued", "in_progress")


class Background:
    """
    A response that is made without a listener: a sink that remembers how far it came, and tells its followers.

    ``task`` is the rank's work; cancelling it frees the seat. ``fault`` is why it failed, if it did.
    """

    def __init__(self, writer: ResponseWriter, prompt_tokens: int) -> None:
        self.writer = writer
        self.response = writer.pending("queued", prompt_tokens)
        self.task: Deferred[None] | None = None
        self.fault: Fault | None = None
        self._plan: Plan | None = None
        self._spoken = 0
        self._ended = False
        self._followers: dict[Deferred[None], Sink] = {}

    @property
    def active(self) -> bool:
        """Whether there is more to come."""
        return self.response["status"] in ACTIVE

    def begin(self, plan: Plan) -> None:
        """It has a seat."""
        self._plan = plan
        self.response["status"] = "in_progress"
        self._tell("begin", plan)

    def tokens(self, plan: Plan, start: int, stop: int) -> None:
        """Some tokens."""
        self._spoken = stop
        self._tell("tokens", plan, start, stop)

    def end(self, plan: Plan) -> None:
        """The last token has been spoken."""
        self._ended = True
        self.response = self.writer.finished(plan)
        self._tell("end", plan)
        self._release(None)

    def fail(self, fault: Fault) -> None:
        """It will not be finished: followers are told why."""
        self.fault = fault
        self._stop("failed", fault)

    def cancel(self) -> dict[str, Any]:
        """Stop it, and give its last state. Raises Fault where it has ended already."""
        if not self.active:
            raise not_active()
        self._stop("cancelled", Fault(INTERNAL, "The response was cancelled."))
        if self.task is not None:
            self.task.cancel()
        return self.response

    def follow(self, sink: Sink) -> Deferred[None]:
        """Tell a sink all that was said and will be; fires when it has heard the end, fails with the response."""
        following: Deferred[None] = Deferred(self._leave)
        plan = self._plan
        if plan is not None:
            sink.begin(plan)
            if self._spoken:
                sink.tokens(plan, 0, self._spoken)
        self._followers[following] = sink
        if self._ended and plan is not None:
            sink.end(plan)
            self._release(None)
        elif not self.active:
            self._release(self.fault or Fault(INTERNAL, "The response was cancelled."))
        return following

    def _leave(self, following: Deferred[None]) -> None:
        self._followers.pop(following, None)

    def _tell(self, what: str, *arguments: Any) -> None:
        for following, sink in list(self._followers.items()):
            try:
                getattr(sink, what)(*arguments)
            except Exception:
                log.failure("a follower failed")
                del self._followers[following]
                following.errback(Fault(INTERNAL, "Internal server error"))

    def _stop(self, status: str, fault: Fault) -> None:
        self.response["status"] = status
        self._release(fault)

    def _release(self, fault: Fault | None) -> None:
        followers, self._followers = self._followers, {}
        for following in followers:
            if fault is None:
                following.callback(None)
            else:
                following.errback(fault)


@attrs.frozen(slots=True)
class Kept:
    """
    One stored response: its object or the background that makes it, and the conversation that it answers.

    ``size`` is about how many bytes it holds.
    """

    messages: Sequence[Mapping[str, Any]]
    size: int
    told: dict[str, Any] | None = None
    background: Background | None = None

    @property
    def response(self) -> dict[str, Any]:
        """The object as it is now."""
        if self.background is not None:
            return self.background.response
        assert self.told is not None
        return self.told


class Store:
    """The newest responses: at most ``most``, of about ``room`` bytes in all. Those still being made are kept."""

    def __init__(self, most: int = MOST, room: int = ROOM) -> None:
        self._most, self._room = most, room
        self._kept: dict[str, Kept] = {}
        self._size = 0

    def put(self, id: str, kept: Kept) -> None:
        """Keep a response, in place of an older one of its id."""
        self._drop(id)
        self._kept[id] = kept
        self._size += kept.size
        if len(self._kept) > self._most or self._size > self._room:
            self._forget(id)

    def get(self, id: str) -> Kept:
        """A response. Raises Fault where there is none."""
        kept = self._kept.get(id)
        if kept is None:
            raise unknown(id)
        return kept

    def conversation(self, id: str) -> list[Mapping[str, Any]]:
        """The messages that a response ends, its own among them. Raises Fault where there is none."""
        kept = self.get(id)
        return [*kept.messages, *spoken(kept.response["output"])]

    def followed(self, id: str) -> Background:
        """A response that can be streamed again. Raises Fault."""
        background = self.get(id).background
        if background is None:
            raise bad_value(f"Unknown response_id: {id}", "response_id", id)
        return background

    def cancel(self, id: str) -> dict[str, Any]:
        """Stop a background response. Raises Fault where there is none, or nothing to stop."""
        background = self.get(id).background
        if background is None:
            raise not_active()
        return background.cancel()

    def _drop(self, id: str) -> None:
        kept = self._kept.pop(id, None)
        if kept is not None:
            self._size -= kept.size

    def _forget(self, newest: str) -> None:
        for id, kept in list(self._kept.items()):
            if len(self._kept) <= self._most and self._size <= self._room:
                return
            if id != newest and not (kept.background and kept.background.active):
                self._drop(id)


def not_active() -> Fault:
    """Only what is still being made can be cancelled."""
    return Fault(REFUSED, "Cannot cancel a synchronous response.", "response_id")
