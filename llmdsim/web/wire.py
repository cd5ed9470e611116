# Most of twisted.web has no annotations yet.
# mypy: disable-error-code="no-untyped-call"
"""
How answers and streams are written on a connection, and what of twisted.web's insides that takes.

HTTP/1 requests of our own Site write bytes made ready beforehand; any other request (a stock Site, HTTP/2) goes
through twisted.web's public API and says the same. Nothing here knows a route.
"""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from typing import Any, Protocol

from twisted.internet.interfaces import IPushProducer
from twisted.web.http import HTTPChannel
from twisted.web.iweb import INonQueuedRequestFactory, IRequest
from twisted.web.server import Request as StockRequest
from zope.interface import provider

from llmdsim.web.answer import Answer
from llmdsim.web.head import PHRASES, SERVER, head, whole
from llmdsim.web.transport import Endpoint

__all__ = ["Answer", "Endpoint", "Outlet", "Request", "gone", "hang_up", "header", "open_stream", "reply"]

EVENT_STREAM = b"text/event-stream; charset=utf-8"
# A client that is refused while it still sends its body is listened to for so many bytes more: closing on unread input
# would reset the connection, and the client would never read why.
LINGER = 1 << 20


class Outlet(Protocol):
    """The open body of one response."""

    def send(self, data: bytes) -> None:
        """Write one piece: an HTTP chunk, at once where nothing is queued. A client that left is not an error."""

    def finish(self, data: bytes = b"") -> None:
        """Write what is left, and the end of the body with it; later pieces are dropped."""

    def listen(self, producer: IPushProducer) -> None:
        """Let the connection pause, resume and stop ``producer``; finishing ends it."""


def open_stream(
    http: IRequest, headers: tuple[tuple[bytes, bytes], ...] = (), content_type: bytes = EVENT_STREAM
) -> Outlet:
    """
    Write the head of a 200 answer whose length is not known.

    The head waits in the connection's buffer, so that what is sent in the same turn leaves with it.
    """
    if http.startedWriting:
        raise RuntimeError("this request has its answer already")
    if not _direct(http):
        _stock_head(http, Answer(b"", 200, content_type, headers))
        return _StockOutlet(http)
    http.startedWriting = 1
    http.chunked = int(http.clientproto == b"HTTP/1.1")
    framing = b"transfer-encoding: chunked\r\n" if http.chunked else b""
    http.transport.write(head(http, 200, framing, content_type, headers))
    return _ChunkedOutlet(http) if http.chunked else _IdentityOutlet(http)


def reply(http: IRequest, answer: Answer) -> None:
    """Write a whole answer and end the request, in one write where the connection is ours."""
    if gone(http):
        return
    if http.startedWriting:
        raise RuntimeError("this request has its answer already")
    if not _direct(http):
        _stock_reply(http, answer)
        return
    http.startedWriting = 1
    http.code = answer.status
    http.sentLength = len(answer.body)
    _send_now(http.transport)(whole(http, answer))
    http.close()


def header(http: Any, name: bytes) -> str | None:
    """A request header as text, whatever its bytes are; the first, where there are several."""
    values: list[bytes] | None = http.requestHeaders.getRawHeaders(name)
    return values[0].decode("latin-1") if values else None


def gone(http: Any) -> bool:
    """Whether the client left before it had its answer."""
    # twisted.web deletes ``channel`` when a request is finished, and sets it to None when its connection is lost.
    return not http.finished and http.channel is None


def hang_up(http: IRequest) -> None:
    """Break off an answer that has begun: the client sees that its body has no end."""
    # HTTP/2 has abortConnection, which resets one stream; on HTTP/1 what was written leaves first.
    request: Any = http
    close: Callable[[], None] = getattr(request.channel, "abortConnection", request.loseConnection)
    close()


@provider(INonQueuedRequestFactory)
class Request(StockRequest):
    """A request of our own Site: body in memory and limited, hot routes past Klein, answers in one write."""

    # The public names of twisted.web that are wider here than it says.
    channel: Any
    site: Any
    transport: Any
    content: Any

    _refused = False
    # Bytes that the body may still have; below zero, how far it is over.
    _room = 0

    def gotLength(self, length: int | None) -> None:
        """The head has arrived; ``length`` is None for a chunked body."""
        # Always in memory: a temporary file would block the reactor.
        self.content = BytesIO()
        self._room = self.channel.site.max_body
        if (length or 0) > self._room:
            # Nobody shall be told to continue.
            self.requestHeaders.removeHeader(b"expect")
            self._refuse()

    def handleContentChunk(self, data: bytes) -> None:
        """A piece of the body; what is over the limit is not kept."""
        self._room -= len(data)
        if self._refused:
            if self._room < -LINGER and _direct(self):
                self.channel.loseConnection()
        elif self._room < 0:
            self._refuse()
        else:
            self.content.write(data)

    def _refuse(self) -> None:
        """Answer 413 now; on HTTP/2 when the request has ended, since its stream lives as long as its answer."""
        self._refused = True
        if not _direct(self):
            return
        # The request line is private to the channel until the body is complete.
        self.method, self.uri, self.clientproto = self.channel._command, self.channel._path, self.channel._version
        self.path = self.uri.partition(b"?")[0]
        self.channel.persistent = False
        answer = self.channel.site.refuse(self, self._received())
        self.startedWriting = 1
        self.code = answer.status
        self.transport.write(whole(self, answer))
        self.channel.site.log(self)

    def process(self) -> None:
        """The request is complete: go to its handler."""
        self.site = self.channel.site
        if self._refused:
            self._part()
            return
        root = self.site.root_path
        if root and self.path.startswith(root + b"/"):
            self.path = self.path[len(root) :]
        serve = self.site.table.get((self.method, self.path))
        if serve is None:
            super().process()
            return
        waiting = serve(self)
        if waiting is not None:
            self.notifyFinish().addErrback(lambda left: waiting.cancel())

    def _part(self) -> None:
        """End the request of a refused body; on HTTP/2 that is when it is answered."""
        if _direct(self):
            self.channel.loseConnection()
        else:
            _stock_reply(self, self.site.refuse(self, self._received()))

    def _received(self) -> int:
        return int(self.channel.site.max_body) - self._room

    def close(self) -> None:
        """End a request whose answer was written past the stock API; what ``finish`` does besides writing."""
        if self.finished or self.channel is None:
            return
        self.site.log(self)
        self.finished = 1
        # Lets go of the channel, which takes the next request, and fires notifyFinish.
        self._cleanup()


class _ChunkedOutlet:
    """A body of HTTP/1.1, one chunk a piece."""

    __slots__ = ("_http", "_write")

    def __init__(self, http: Any) -> None:
        self._http = http
        self._write = _send_now(http.transport)

    def send(self, data: bytes) -> None:
        # An empty chunk would end the body.
        if data:
            self._write(b"%x\r\n%b\r\n" % (len(data), data))

    def finish(self, data: bytes = b"") -> None:
        self._end(b"%x\r\n%b\r\n0\r\n\r\n" % (len(data), data) if data else b"0\r\n\r\n")

    def listen(self, producer: IPushProducer) -> None:
        self._http.registerProducer(producer, True)

    def _end(self, data: bytes) -> None:
        self._write(data)
        # The connection belongs to the next request from here on.
        self._write = _drop
        if self._http.producer is not None and self._http.channel is not None:
            self._http.unregisterProducer()
        self._http.close()


class _IdentityOutlet(_ChunkedOutlet):
    """A body for HTTP/1.0: as it is, ended by the end of the connection."""

    __slots__ = ()

    def send(self, data: bytes) -> None:
        self._write(data)

    def finish(self, data: bytes = b"") -> None:
        self._end(data)


class _StockOutlet:
    """A body written through twisted.web's own API."""

    __slots__ = ("_http",)

    def __init__(self, http: Any) -> None:
        self._http = http

    def send(self, data: bytes) -> None:
        if data and not self._http.finished:
            self._http.write(data)

    def finish(self, data: bytes = b"") -> None:
        if self._http.finished or gone(self._http):
            return
        self.send(data)
        if self._http.producer is not None:
            self._http.unregisterProducer()
        self._http.finish()

    def listen(self, producer: IPushProducer) -> None:
        self._http.registerProducer(producer, True)


def _drop(data: bytes) -> None:
    pass


def _direct(http: Any) -> bool:
    # HTTP/2 hands our requests a stream of its own for a channel.
    return isinstance(http, Request) and isinstance(http.channel, HTTPChannel)


def _send_now(transport: Any) -> Callable[[bytes], None]:
    # TLS and the transports of tests have no sendNow. A TLS transport would hand out its socket's, and what it sends is
    # not encrypted, so only the transport's own class counts.
    return transport.sendNow if hasattr(type(transport), "sendNow") else transport.write


def _stock_head(http: Any, answer: Answer) -> None:
    http.setResponseCode(answer.status, PHRASES.get(answer.status, b""))
    http.setHeader(b"server", SERVER)
    http.setHeader(b"vary", b"Origin")
    # On the instance: without it twisted.web calls everything HTML.
    http.defaultContentType = None
    if answer.content_type:
        http.setHeader(b"content-type", answer.content_type)
    for name, value in answer.headers:
        http.responseHeaders.addRawHeader(name, value)


def _stock_reply(http: Any, answer: Answer) -> None:
    _stock_head(http, answer)
    http.setHeader(b"content-length", b"%d" % len(answer.body))
    http.write(answer.body)
    http.finish()
