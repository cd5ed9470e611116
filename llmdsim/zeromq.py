"""
The sockets of KV events: txzmq's PUB and ROUTER, as the ``Wire`` that ``events`` asks for.

txzmq installs a reactor when it is imported, so that happens when the first socket is opened, and not before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import zmq

from llmdsim.events import EventSettings

LINGER = 1000  # milliseconds that closed sockets go on sending, in ZeroMQ's own thread
REPLIES = 256  # messages that may wait for one replay client; the rest waits for it in ``replay``
LONGEST_RETRY = 1000  # milliseconds between attempts to connect


class Sockets:
    """The open PUB socket of one publisher, and a ROUTER beside it once ``listen`` was called. Raises OSError."""

    def __init__(self, settings: EventSettings) -> None:
        from txzmq import ZmqFactory, ZmqPubConnection

        self._replay_endpoint = settings.replay_endpoint
        self._factory = ZmqFactory()
        # vLLM uses the process's context too: only within one can inproc:// endpoints be reached.
        self._factory.context.term()
        self._factory.context = zmq.Context.instance()
        self._factory.lingerPeriod = LINGER
        self._router: Any = None
        self._publisher = ZmqPubConnection(self._factory)
        self._publisher.socket.sndhwm = settings.queued
        _attach(self._publisher, "bind" if bound(settings.endpoint) else "connect", settings.endpoint)

    def send(self, frames: list[bytes]) -> None:
        """Publish a message; subscribers whose queue is full miss it."""
        self._publisher.send(frames)

    def listen(self, asked: Callable[[Sequence[bytes]], None]) -> None:
        """Open the replay socket; ``asked`` hears each request's frames, the identity first. Raises OSError."""
        from txzmq import ZmqRouterConnection

        router = ZmqRouterConnection(self._factory)
        router.socket.sndhwm = REPLIES
        router.socket.router_mandatory = True  # to be told of full queues, rather than lose replies
        router.socket.router_handover = True  # a client that comes back need not wait for its old connection to end
        router.messageReceived = asked
        _attach(router, "bind", self._replay_endpoint)
        self._router = router

    def reply(self, frames: list[bytes]) -> bool:
        """Answer the client that the first frame names; False: its queue is full. Raises OSError where it has gone."""
        try:
            self._router.send(frames)
        except zmq.Again:
            self._router.doRead()  # ZeroMQ tells only once that there are requests, and sending may have heard it
            return False
        except zmq.ZMQError as problem:
            raise _as_os_error(problem) from problem
        return True

    def close(self) -> None:
        """Close the sockets at once; what was sent may still leave."""
        for connection in list(self._factory.connections):
            connection.shutdown()


def bound(endpoint: str) -> bool:
    """Whether an endpoint is bound rather than connected to, by vLLM's rule."""
    return "*" in endpoint or "::" in endpoint or endpoint.startswith(("ipc://", "inproc://"))


def _attach(connection: Any, how: str, endpoint: str) -> None:
    from txzmq import ZmqEndpoint

    socket = connection.socket
    socket.ipv6 = "::" in endpoint
    socket.reconnect_ivl_max = LONGEST_RETRY
    socket.tcp_keepalive = 1  # a peer that vanished is connected to again
    socket.tcp_keepalive_idle, socket.tcp_keepalive_intvl, socket.tcp_keepalive_cnt = 30, 10, 3
    try:
        connection.addEndpoints([ZmqEndpoint(how, endpoint)])
    except zmq.ZMQError as problem:
        connection.shutdown()
        raise _as_os_error(problem) from problem


def _as_os_error(problem: zmq.ZMQError) -> OSError:
    return OSError(problem.errno, problem.strerror)
