# Most of twisted.web has no annotations yet.
# mypy: disable-error-code="no-untyped-call"
"""
The Site that serves an App: connections, their limits, and which of the shortcuts are on.

Its requests and their answers are the wire's, its routes the app's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web import server
from twisted.web.http import HTTPChannel
from twisted.web.iweb import IRequest

from llmdsim.faults import TOO_LARGE, Fault
from llmdsim.web.answer import Answer
from llmdsim.web.app import App, Handler
from llmdsim.web.wire import Request

__all__ = ["Answer", "App", "Channel", "Handler", "SecureSite", "Site", "make_site"]

IDLE_TIMEOUT = 60.0
# The limits of uvicorn's parser, whose flags vLLM has: bytes of a request's head, and its header lines.
HEAD_SIZE = 4 << 20
HEAD_COUNT = 256


def make_site(
    app: App,
    *,
    clock: IReactorTime,
    max_body: int,
    table: bool = True,
    idle_timeout: float = IDLE_TIMEOUT,
    access_log: Callable[[IRequest], None] | None = None,
    secure: bool = False,
    head_size: int = HEAD_SIZE,
    head_count: int = HEAD_COUNT,
    root_path: str = "",
) -> Site:
    """
    A Site for ``app``, with every shortcut there is.

    ``max_body`` bytes are accepted as a body; a connection may be idle for ``idle_timeout`` seconds.
    ``table`` False sends hot routes through Klein too. ``access_log`` hears of each answered request.
    ``secure`` is for a Site behind TLS, where HTTP/2 may be negotiated. ``head_size`` and ``head_count`` limit the
    bytes and the lines of a request's head. What is asked for under ``root_path`` is served as without it.
    """
    kind = SecureSite if secure else Site
    site = kind(app, clock, max_body, idle_timeout, app.table if table else {}, access_log)
    site.head_size, site.head_count = head_size, head_count
    site.root_path = root_path.rstrip("/").encode()
    return site


class Site(server.Site):
    """
    A Site for plain TCP.

    What it leaves out of twisted.web's, in CPU of a 780-byte answer that takes 235 us with the defaults:

    * bodies are not parsed as forms: 77 us;
    * no access log unless asked for: 26 us;
    * hot routes by a dict before Klein (``table``): 48 us;
    * head and body in one preformatted write (``requestFactory``): 11 us;
    * no proxy that may switch to HTTP/2 (``buildProtocol``): 2 us;
    * one sweep for idle connections instead of a timer for each request: 4 us.
    """

    requestFactory = Request
    noisy = False
    root_path = b""
    reactor: Any

    def __init__(
        self,
        app: App,
        clock: IReactorTime,
        max_body: int,
        idle_timeout: float,
        table: dict[tuple[bytes, bytes], Any],
        access_log: Callable[[IRequest], None] | None,
    ) -> None:
        super().__init__(app.resource(), reactor=clock, timeout=idle_timeout, parsePOSTFormSubmission=False)
        self.app = app
        self.max_body = max_body
        self.head_size, self.head_count = HEAD_SIZE, HEAD_COUNT
        self.table = table
        self._access_log = access_log
        self._idle_timeout = idle_timeout
        self._channels: set[Channel] = set()
        self._sweeping: Any = None

    def startFactory(self) -> None:
        """Nothing: the stock one opens an access log, and a timer that ticks for its dates."""

    def stopFactory(self) -> None:
        """Nothing was opened."""

    def acceptableProtocols(self) -> list[bytes]:
        """Only HTTP/1.1, even if this Site should find itself behind TLS."""
        return [b"http/1.1"]

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """A channel, with no proxy around it that waits for HTTP/2."""
        channel: Any = Channel()
        channel.factory = channel.site = self
        channel.requestFactory = self.requestFactory
        channel.MAX_LENGTH = channel.totalHeadersSize = self.head_size
        channel.maxHeaders = self.head_count
        # No timer: the sweep looks after idle connections.
        channel.timeOut = None
        channel.callLater = self.reactor.callLater
        return channel

    def log(self, request: Any) -> None:
        """An answered request, for whoever asked to hear of them."""
        if self._access_log is not None:
            self._access_log(request)

    def refuse(self, request: IRequest, size: int) -> Answer:
        """The answer to a body that is larger than ``max_body``; ``size`` is what is known of it."""
        return self.app.refuse(request, Fault(TOO_LARGE, f"Request body is larger than {self.max_body} bytes"), size)

    def opened(self, channel: Channel) -> None:
        """A connection to be swept when it is idle."""
        self._channels.add(channel)
        if self._sweeping is None:
            self._sweeping = self.reactor.callLater(self._idle_timeout / 4, self._sweep)

    def closed(self, channel: Channel) -> None:
        """A connection is gone; with the last one goes the sweep."""
        self._channels.discard(channel)
        if self._sweeping is not None and not self._channels:
            self._sweeping.cancel()
            self._sweeping = None

    def _sweep(self) -> None:
        self._sweeping = self.reactor.callLater(self._idle_timeout / 4, self._sweep)
        limit = self.reactor.seconds() - self._idle_timeout
        for channel in [channel for channel in self._channels if channel.idle_since <= limit]:
            channel.expire()


class SecureSite(Site):
    """A Site for TLS: HTTP/2 where the client wants it, and the stock timers that go with its channels."""

    acceptableProtocols = server.Site.acceptableProtocols
    buildProtocol = server.Site.buildProtocol


class Channel(HTTPChannel):
    """A connection of HTTP/1 that knows since when it has been idle."""

    # The clock's seconds; "never" while a request is being answered, however long that takes.
    idle_since = float("inf")
    site: Site
    transport: Any

    def connectionMade(self) -> None:
        """A client has come."""
        super().connectionMade()
        self._heard()
        self.site.opened(self)

    def dataReceived(self, data: bytes) -> None:
        """Part of a request: whoever sends is not idle."""
        # Nothing more from a client that was answered for good (a malformed request, a body too large).
        if self.transport.disconnecting:
            return
        if self.idle_since != float("inf"):
            self._heard()
        super().dataReceived(data)

    def allContentReceived(self) -> None:
        """A request is complete, and will be answered."""
        self.idle_since = float("inf")
        super().allContentReceived()

    def requestDone(self, request: IRequest) -> None:
        """A request is answered; the next one may be here already."""
        self._heard()
        super().requestDone(request)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The client has left, or was sent away."""
        self.site.closed(self)
        super().connectionLost(reason)

    def expire(self) -> None:
        """Close; what has not been read by the next sweep is thrown away."""
        if self.transport.disconnecting:
            self.transport.abortConnection()
        else:
            self.loseConnection()

    def _heard(self) -> None:
        self.idle_since = self.site.reactor.seconds()
