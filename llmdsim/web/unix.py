# Most of twisted.internet has no annotations yet.
# mypy: disable-error-code="no-untyped-call"
"""
A listening Unix socket, for ``--uds``.
"""

from __future__ import annotations

import os
import socket
import stat
from typing import Any

import attrs
from twisted.internet import defer
from twisted.internet.interfaces import IListeningPort, IProtocolFactory, IStreamServerEndpoint
from zope.interface import implementer

MODE = 0o660  # owner and group: without API keys, whoever may connect may ask
BACKLOG = 4096


@implementer(IStreamServerEndpoint)
@attrs.frozen
class UnixEndpoint:
    """Where a server listens: ``path``, of which a socket that nobody listens on any more is removed first."""

    reactor: Any
    path: str

    def listen(self, protocolFactory: IProtocolFactory) -> defer.Deferred[IListeningPort]:
        """Fires with the open port, or fails with CannotListenError."""
        return defer.execute(self._open, protocolFactory)

    def _open(self, factory: IProtocolFactory) -> Any:
        if _stale(self.path):
            os.unlink(self.path)
        return self.reactor.listenUNIX(self.path, factory, backlog=BACKLOG, mode=MODE)


def _stale(path: str) -> bool:
    """Whether a dead server left this socket; another kind of file is never stale."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            return False
        with socket.socket(socket.AF_UNIX) as probe:
            probe.setblocking(False)  # a full backlog means that somebody lives
            probe.connect(path)
    except ConnectionRefusedError:
        return True
    except OSError:
        return False
    return False
