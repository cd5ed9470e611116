"""
The sinks of the HTTP door: a stream of events, or one whole answer.

They hear a rank speak, and write what a dialect's writer makes of it.
"""

from __future__ import annotations

from typing import Protocol

from twisted.web.iweb import IRequest

from llmdsim.api.dialect import Writer
from llmdsim.faults import Fault
from llmdsim.sim.plan import Plan
from llmdsim.sim.state import Paused
from llmdsim.web.answer import Answer
from llmdsim.web.wire import Outlet, open_stream

Headers = tuple[tuple[bytes, bytes], ...]


class Ear(Protocol):
    """A sink with the door's half: what it does when the rank has finished or failed."""

    def begin(self, plan: Plan) -> None: ...
    def tokens(self, plan: Plan, start: int, stop: int) -> None: ...
    def end(self, plan: Plan) -> None: ...
    def answer(self) -> Answer | None: ...
    def fail(self, fault: Fault) -> None: ...


class EventStream:
    """Server-sent events. While the client reads too slowly, tokens are only counted; the next write carries them."""

    def __init__(self, http: IRequest, writer: Writer, headers: Headers, sequences: int) -> None:
        self._http, self._writer, self._headers, self._left = http, writer, headers, sequences
        self._outlet: Outlet | None = None
        self._spoken = False
        self._paused = False
        self._held: dict[int, tuple[Plan, int, int]] = {}  # while paused: choice -> plan, first and last unsent token
        self._tail = b""  # a sequence's last tokens wait for what follows them in the same turn
        self._ended: list[Plan] = []

    def begin(self, plan: Plan) -> None:
        """Send the head, once."""
        if self._outlet is None:
            self._outlet = open_stream(self._http, self._headers)
            self._outlet.listen(self)

    def tokens(self, plan: Plan, start: int, stop: int) -> None:
        """Send a slice of a plan, or note it while the client is slow."""
        if self._paused:
            held = self._held.get(plan.index)
            self._held[plan.index] = (plan, held[1] if held else start, stop)
            return
        data = self._writer.chunks(plan, start, stop)
        if not self._spoken:
            self._spoken = True
            data = self._writer.opening(plan) + data
        self._tail += data
        if stop < len(plan.texts):
            self._flush()

    def end(self, plan: Plan) -> None:
        """Note a sequence's end; the last one's tail leaves together with the closing."""
        self._ended.append(plan)
        self._left -= 1
        if self._left and self._tail:
            self._flush()

    def answer(self) -> None:
        """Close the stream."""
        self._release()
        self._finish(self._writer.closing(in_order(self._ended)))

    def fail(self, fault: Fault) -> None:
        """End with an error event; before the head, the fault has a status of its own and is raised again."""
        if isinstance(fault, Paused):
            self._outlet = open_stream(self._http, self._headers)
            fault = Fault(Paused.streamed, fault.message)
        if self._outlet is None:
            raise fault
        self._finish(self._writer.fault(fault))

    def pauseProducing(self) -> None:
        """The client reads too slowly."""
        self._paused = True

    def resumeProducing(self) -> None:
        """The client has caught up: send what was held."""
        self._release()
        self._flush()

    def stopProducing(self) -> None:
        """The client is gone; the handler is cancelled besides."""
        self._paused = True

    def _release(self) -> None:
        self._paused = False
        held, self._held = self._held, {}
        for plan, start, stop in held.values():
            self.tokens(plan, start, stop)

    def _flush(self) -> None:
        tail, self._tail = self._tail, b""
        if tail and self._outlet is not None:
            self._outlet.send(tail)

    def _finish(self, data: bytes) -> None:
        tail, self._tail = self._tail, b""
        if self._outlet is not None:
            self._outlet.finish(tail + data)


class Whole:
    """One JSON answer when every sequence has ended."""

    def __init__(self, writer: Writer, headers: Headers) -> None:
        self._writer, self._headers = writer, headers
        self._ended: list[Plan] = []

    def begin(self, plan: Plan) -> None:
        """Nothing is sent before the end."""

    def tokens(self, plan: Plan, start: int, stop: int) -> None:
        """The plan holds the tokens."""

    def end(self, plan: Plan) -> None:
        """Note a sequence's end."""
        self._ended.append(plan)

    def answer(self) -> Answer:
        """The whole answer."""
        return Answer(self._writer.whole(in_order(self._ended)), headers=self._headers)

    def fail(self, fault: Fault) -> None:
        """Nothing was sent, so the fault has its own status."""
        raise fault


def in_order(plans: list[Plan]) -> list[Plan]:
    """Plans by choice index."""
    return sorted(plans, key=lambda plan: plan.index)
