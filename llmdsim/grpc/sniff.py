# Much of Twisted has no annotations yet.
# mypy: disable-error-code="no-untyped-call"
"""
Which door a connection wants: the preface of HTTP/2 leads to gRPC, anything else is HTTP/1.

The libraries of gRPC are an extra: without them a connection of HTTP/2 is closed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Protocol, ServerFactory, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from llmdsim.sim.rank import Rank

if TYPE_CHECKING:
    from llmdsim.grpc.connection import Connection

log = Logger()

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
MEGABYTE = 1 << 20

Connect = Callable[["Callable[[Connection], None]"], "Connection"]


class GrpcFactory(ServerFactory):
    """A port in clear text with both doors: HTTP/1 as a Site speaks it, and gRPC for the rank."""

    noisy = False

    def __init__(self, site: Any, rank: Rank) -> None:
        self._site = site
        self._connect, self._missing = _connector(rank)
        self._connections: set[Connection] = set()
        self._told = False

    def startFactory(self) -> None:
        """The port is open."""
        self._site.doStart()

    def stopFactory(self) -> None:
        """The port is closed; clients of gRPC would stay for ever, so they are told."""
        self._site.doStop()
        for connection in list(self._connections):
            connection.leave()

    def buildProtocol(self, addr: IAddress | None) -> Sniffer:
        """What looks at a connection's first bytes."""
        return Sniffer(self._site.buildProtocol(addr), self.connect)

    def connect(self) -> Connection | None:
        """A connection of HTTP/2; None where that cannot be spoken."""
        if self._connect is None:
            self._tell()
            return None
        connection = self._connect(self._connections.discard)
        self._connections.add(connection)
        return connection

    def _tell(self) -> None:
        if not self._told:
            self._told = True
            log.warn("HTTP/2 is refused: gRPC needs the extra llmdsim[grpc] ({why})", why=self._missing)


def _connector(rank: Rank) -> tuple[Connect | None, str]:
    """What makes connections, or None and why there is nothing."""
    try:
        from llmdsim.grpc.connection import Connection
        from llmdsim.grpc.services import methods
    except Exception as problem:  # protobuf refuses code of another version with an exception of its own
        return None, str(problem)
    known, limit = methods(rank), rank.config.max_request_body_size_mb * MEGABYTE
    return lambda closed: Connection(rank.clock, known, limit, closed), ""


class Sniffer(Protocol):
    """A connection until its first bytes; then the protocol that they ask for has it, and this is gone."""

    transport: Any

    def __init__(self, channel: Any, connect: Callable[[], Connection | None]) -> None:
        self._channel, self._connect = channel, connect
        self._heard = b""

    def makeConnection(self, transport: Any) -> None:
        """A client has come: an HTTP channel has it already, so that an idle one is swept away like any other."""
        self.transport = transport
        self._channel.makeConnection(transport)

    def dataReceived(self, data: bytes) -> None:
        """The first bytes, perhaps not all of a preface."""
        heard = self._heard + data
        if heard.startswith(PREFACE):
            self._to_grpc(heard)
        elif PREFACE.startswith(heard):
            self._heard = heard
        else:
            self.transport.protocol = self._channel
            self._channel.dataReceived(heard)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The client has left without a word."""
        self._channel.connectionLost(reason)

    def _to_grpc(self, heard: bytes) -> None:
        connection = self._connect()
        if connection is None:
            self.transport.loseConnection()
            return
        # The channel has heard nothing, and shall believe that nothing will come.
        self.transport.unregisterProducer()
        self._channel.connectionLost(Failure(ConnectionDone()))
        self.transport.protocol = connection
        connection.makeConnection(self.transport)
        connection.dataReceived(heard)
