# Most of twisted.internet.tcp has no annotations yet.
# mypy: disable-error-code="no-untyped-call"
"""
A listening TCP endpoint whose connections can send at once.

Twisted buffers every write until the reactor's next turn; a token that is due should leave in this one.
"""

from __future__ import annotations

from typing import Any

import attrs
from twisted.internet import defer, tcp
from twisted.internet.interfaces import IAddress, IListeningPort, IProtocolFactory, IStreamServerEndpoint
from twisted.internet.posixbase import PosixReactorBase
from zope.interface import implementer


class EagerServer(tcp.Server):
    """A server's connection with ``sendNow`` beside the stock ``write``."""

    _host: IAddress | None = None
    _peer: IAddress | None = None

    def sendNow(self, data: bytes) -> None:
        """
        Write with no turn of the reactor between: ``send(2)`` when nothing is queued, else the stock ``write``.

        It saves two ``epoll_ctl`` and a turn for each token. ``write`` itself stays as it is, because the rest of
        twisted.web relies on its joining of small writes.
        """
        # The buffers and flags of twisted.internet.abstract.FileDescriptor: whatever they hold has to leave first, and
        # a connection that is closing, lost or under TLS knows best itself.
        busy = self._tempDataBuffer or self.dataBuffer or self.disconnecting or self._writeDisconnecting
        if busy or not self.connected or self.TLS:
            self.write(data)
            return
        try:
            sent = self.socket.send(data)
        except OSError:
            # The kernel's buffer is full, or the connection is dead: the stock doWrite waits for the first and
            # reports the second.
            sent = 0
        if sent != len(data):
            self.write(data[sent:])

    # A Request asks for both addresses: this saves a getsockname(2) and two attrs instances a request.

    def getHost(self) -> IAddress:
        """The address of this end; it cannot change while the connection lives."""
        if self._host is None:
            self._host = super().getHost()
        return self._host

    def getPeer(self) -> IAddress:
        """The address of the other end."""
        if self._peer is None:
            self._peer = super().getPeer()
        return self._peer


class EagerPort(tcp.Port):
    """A listening TCP port whose connections are eager."""

    transport = EagerServer


@implementer(IStreamServerEndpoint)
@attrs.frozen
class Endpoint:
    """
    Where a server listens: ``host`` is an IPv4 or IPv6 address (empty for all IPv4 ones), ``port`` may be 0.

    A reactor without file descriptors of its own (in memory, on Windows) listens in its stock way.
    """

    reactor: Any
    host: str
    port: int
    # Twisted's default of 50 drops the bursts in which load generators connect.
    backlog: int = 4096

    def listen(self, protocolFactory: IProtocolFactory) -> defer.Deferred[IListeningPort]:
        """Fires with the open port, or fails with CannotListenError."""
        return defer.execute(self._open, protocolFactory)

    def _open(self, factory: IProtocolFactory) -> Any:
        if not isinstance(self.reactor, PosixReactorBase):
            return self.reactor.listenTCP(self.port, factory, self.backlog, self.host)
        port = EagerPort(self.port, factory, self.backlog, self.host, self.reactor)
        port.startListening()
        return port
