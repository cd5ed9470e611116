"""
Sends batches of KV events again to those who missed some, a slice at a time.

A client is served at its own pace: one that reads slowly, or not at all, holds up neither the others nor the reactor.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

import attrs
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

log = Logger()

SLICE = 32  # messages sent to one client in one turn of the clock
RETRY = 0.02  # seconds until a client whose queue is full is tried again
PATIENCE = 30.0  # seconds after which a client that reads nothing is given up
CLIENTS = 64  # served at a time
END = [b"", b"\xff" * 8, b""]


@attrs.define(eq=False)
class _Client:
    """Somebody who is owed messages; ``moved`` is when it last took one."""

    identity: bytes
    moved: float
    left: deque[list[bytes]]
    due: IDelayedCall | None = None


class Replay:
    """
    The last ``size`` messages of a publisher.

    ``reply`` sends frames to the client that the first of them names; False: its queue is full; OSError: it has gone.
    """

    def __init__(self, size: int, clock: IReactorTime, reply: Callable[[list[bytes]], bool]) -> None:
        self._kept: deque[tuple[int, list[bytes]]] = deque(maxlen=size)
        self._limit = 2 * size  # who is owed more must read before asking again
        self._clock, self._reply = clock, reply
        self._clients: dict[bytes, _Client] = {}

    def keep(self, number: int, message: list[bytes]) -> None:
        """Remember a message; the oldest one is forgotten where there are too many."""
        self._kept.append((number, message))

    def asked(self, frames: Sequence[bytes]) -> None:
        """Somebody's wish: its identity, an empty frame that may be missing, and the first number in eight bytes."""
        identity, *rest = frames
        if rest[:-1] not in ([], [b""]) or not rest or len(rest[-1]) < 8:
            return
        start = int.from_bytes(rest[-1][:8], "big")
        owed = [message for number, message in self._kept if number >= start]
        client = self._clients.get(identity)
        if client is None:
            self._begin(identity, [*owed, END])
        elif len(client.left) <= self._limit:
            client.left.extend([*owed, END])

    def stop(self) -> None:
        """Leave everybody alone."""
        for client in self._clients.values():
            if client.due is not None:
                client.due.cancel()
        self._clients.clear()

    def _begin(self, identity: bytes, owed: list[list[bytes]]) -> None:
        if len(self._clients) >= CLIENTS:
            log.warn("A replay of KV events is refused: {count} clients are being served", count=CLIENTS)
            return
        client = self._clients[identity] = _Client(identity, self._clock.seconds(), deque(owed))
        client.due = self._clock.callLater(0.0, self._serve, client)

    def _serve(self, client: _Client) -> None:
        client.due = None
        now = self._clock.seconds()
        try:
            moved = self._send(client)
        except OSError:  # it has gone, and nothing is owed to it any more
            del self._clients[client.identity]
            return
        if moved:
            client.moved = now
        if not client.left or now - client.moved > PATIENCE:
            del self._clients[client.identity]
            return
        client.due = self._clock.callLater(0.0 if moved else RETRY, self._serve, client)

    def _send(self, client: _Client) -> bool:
        """Send a client a slice of what it is owed; False: it took nothing."""
        left = client.left
        for sent in range(min(SLICE, len(left))):
            if not self._reply([client.identity, b"", *left[0]]):
                return sent > 0
            left.popleft()
        return True
