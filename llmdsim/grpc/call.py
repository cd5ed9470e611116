"""
One call of a connection: its messages in, its answer out within the client's windows, its deadline, its end.

What the call means is its listener's; frames are the connection's.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Protocol

from h2.errors import ErrorCodes
from h2.stream import H2Stream
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from llmdsim.faults import Fault
from llmdsim.grpc.messages import Assembly, Listener
from llmdsim.grpc.status import (
    CANCELLED,
    DEADLINE_EXCEEDED,
    INTERNAL,
    UNIMPLEMENTED,
    Refusal,
    Status,
    seconds,
    status_of,
    trailers,
)

log = Logger()

Headers = list[tuple[bytes, bytes]]
HEADERS: Headers = [
    (b":status", b"200"),
    (b"content-type", b"application/grpc"),
    (b"grpc-accept-encoding", b"identity"),
]


class Wire(Protocol):
    """The connection, as a call needs it. ``room`` is how many bytes one DATA frame may have now."""

    clock: IReactorTime

    def room(self, stream: H2Stream) -> int: ...
    def head(self, stream: H2Stream, headers: Headers) -> None: ...
    def data(self, stream: H2Stream, data: bytes) -> None: ...
    def close(self, stream: H2Stream, headers: Headers) -> None: ...
    def reset(self, stream: H2Stream, code: ErrorCodes) -> None: ...
    def wait(self, call: Call) -> None: ...
    def forget(self, call: Call) -> None: ...


class Call:
    """
    One call on one stream; everything it says after its end is dropped.

    ``blocked``: the client has no room, and the next ``send`` would only be kept.
    """

    __slots__ = (
        "_assembly",
        "_backlog",
        "_deadline",
        "_last",
        "_listener",
        "_opened",
        "_resume",
        "_work",
        "blocked",
        "over",
        "stream",
        "wire",
    )

    def __init__(self, wire: Wire, stream: H2Stream, limit: int) -> None:
        self.wire, self.stream = wire, stream
        self.over = False  # its end is decided: nothing more may be said
        self.blocked = False
        self._assembly = Assembly(limit)
        self._listener: Listener | None = None
        self._opened = False
        self._backlog = b""
        self._last: Status | None = None  # the end, while a backlog is still before it
        self._resume: Callable[[], None] | None = None
        self._work: Deferred[None] | None = None
        self._deadline: IDelayedCall | None = None

    # What the client says.

    def begin(self, method: Callable[[Call], Listener] | None, headers: Mapping[bytes, bytes]) -> None:
        """The head has arrived; ``method`` is None where its path is not known."""
        self._heed(self._begin, method, headers)

    def receive(self, data: bytes) -> None:
        """A part of the body."""
        self._heed(self._read, data)

    def ended(self) -> None:
        """The body is complete."""
        self._heed(self._end)

    def lost(self) -> None:
        """The client has cancelled, or is gone: what works for it is cancelled in this turn."""
        self.over = True
        self._let_go()
        self._quit()

    def _begin(self, method: Callable[[Call], Listener] | None, headers: Mapping[bytes, bytes]) -> None:
        timeout = headers.get(b"grpc-timeout")
        if timeout is not None:
            self._deadline = self.wire.clock.callLater(seconds(timeout), self._expire)
        if method is None:
            raise Refusal(UNIMPLEMENTED, "Method not found!")
        self._listener = method(self)

    def _read(self, data: bytes) -> None:
        for message in self._assembly.feed(data):
            if self._listener is not None and not self.over:
                self._listener.message(message)

    def _end(self) -> None:
        self._assembly.close()
        if self._listener is not None:
            self._listener.ended()

    def _heed(self, hear: Callable[..., None], *arguments: Any) -> None:
        if self.over:
            return
        try:
            hear(*arguments)
        except Refusal as refusal:
            self.finish(refusal.status)

    # What the client is told.

    @property
    def room(self) -> int:
        """How many bytes can leave now, at least in one frame."""
        return self.wire.room(self.stream)

    def open(self, resume: Callable[[], None] | None = None) -> None:
        """Send the head, once; ``resume`` is called when the call was blocked and is no more."""
        self._resume = resume
        if not self._opened and not self.over:
            self._opened = True
            self.wire.head(self.stream, HEADERS)

    def send(self, data: bytes) -> None:
        """Say framed messages; what there is no room for waits."""
        if self.over:
            return
        if not self._opened:
            self.open()
        if not self.blocked and len(data) <= self.wire.room(self.stream):
            self.wire.data(self.stream, data)
        else:
            self._backlog += data
            self._drain()

    def finish(self, status: Status) -> None:
        """End, after what waits."""
        if self.over:
            return
        self.over = True
        if self.blocked:
            self._last = status
        else:
            self._close(status)

    def wake(self) -> None:
        """There is room again."""
        self.blocked = False
        self._drain()
        if self.blocked:
            return
        if self._last is not None:
            self._close(self._last)
        elif self._resume is not None:
            self._resume()

    def _drain(self) -> None:
        while self._backlog and not self.blocked:
            room = self.wire.room(self.stream)
            if room <= 0:
                self.blocked = True
                self.wire.wait(self)
                return
            piece, self._backlog = self._backlog[:room], self._backlog[room:]
            self.wire.data(self.stream, piece)

    def _close(self, status: Status) -> None:
        self._let_go()
        self.wire.close(self.stream, trailers(status) if self._opened else HEADERS + trailers(status))

    def _let_go(self) -> None:
        self.wire.forget(self)
        self._backlog, self._resume = b"", None
        deadline, self._deadline = self._deadline, None
        if deadline is not None and deadline.active():
            deadline.cancel()

    # What works for it.

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        """Let a coroutine answer; what it raises ends the call, and the end of the call cancels it."""
        self._work = Deferred.fromCoroutine(work)
        self._work.addErrback(self._failed)

    def _failed(self, failure: Failure) -> None:
        error = failure.value
        if isinstance(error, Fault):
            self.finish(status_of(error))
        elif isinstance(error, Refusal):
            self.finish(error.status)
        elif isinstance(error, CancelledError):
            self.finish(Status(CANCELLED, "The request was cancelled"))
        else:
            log.failure("a call failed", failure)
            self.finish(Status(INTERNAL, "Internal server error"))

    def _expire(self) -> None:
        if self.blocked:  # a message may be half said, so that nothing but a reset can follow
            self.over = True
            self._let_go()
            self.wire.reset(self.stream, ErrorCodes.CANCEL)
        else:
            self.finish(Status(DEADLINE_EXCEEDED, "Deadline Exceeded"))
        self._quit()

    def _quit(self) -> None:
        work, self._work = self._work, None
        if work is not None:
            work.cancel()
