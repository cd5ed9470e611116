from __future__ import annotations

import errno
from typing import Any

from twisted.internet.error import CannotListenError, ConnectionLost
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.selectreactor import SelectReactor
from twisted.internet.testing import MemoryReactor
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from llmdsim.web.transport import EagerPort, EagerServer, Endpoint


class Socket:
    """A socket whose every send takes the next of ``takes``: a number of bytes, or an error; then everything."""

    def __init__(self, *takes: int | OSError) -> None:
        self.takes = list(takes)
        self.sent: list[bytes] = []
        self.names = 0

    def send(self, data: bytes) -> int:
        taken = self.takes.pop(0) if self.takes else len(data)
        if isinstance(taken, OSError):
            raise taken
        self.sent.append(bytes(data[:taken]))
        return taken

    def getsockname(self) -> tuple[str, int]:
        self.names += 1
        return "127.0.0.1", 8000

    def setsockopt(self, level: int, name: int, value: int) -> None: ...
    def setblocking(self, blocking: bool) -> None: ...
    def shutdown(self, how: int) -> None: ...
    def close(self) -> None: ...

    def fileno(self) -> int:
        return 99


class Producer:
    """A producer that writes down what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def pauseProducing(self) -> None:
        self.told.append("pause")

    def resumeProducing(self) -> None:
        self.told.append("resume")

    def stopProducing(self) -> None:
        self.told.append("stop")


def full() -> OSError:
    return BlockingIOError(errno.EAGAIN, "full")


class SendNowTests(SynchronousTestCase):
    def connect(self, *takes: int | OSError) -> tuple[EagerServer, Socket, MemoryReactor]:
        reactor, socket = MemoryReactor(), Socket(*takes)
        port: Any = EagerPort(8000, Factory(), reactor=reactor)
        server = EagerServer(socket, Protocol(), ("10.0.0.7", 5), port, 0, reactor)  # type: ignore[arg-type]
        return server, socket, reactor

    def test_data_leaves_in_the_same_turn(self) -> None:
        server, socket, reactor = self.connect()
        server.sendNow(b"token")
        self.assertEqual(socket.sent, [b"token"])
        self.assertNotIn(server, reactor.getWriters())

    def test_a_stock_write_waits_for_the_reactor(self) -> None:
        server, socket, reactor = self.connect()
        server.write(b"head")
        self.assertEqual(socket.sent, [])
        self.assertIn(server, reactor.getWriters())

    def test_what_was_queued_before_leaves_first_and_in_one_piece(self) -> None:
        server, socket, _ = self.connect()
        server.write(b"head,")
        server.sendNow(b"token")
        server.doWrite()
        self.assertEqual(socket.sent, [b"head,token"])

    def test_a_full_kernel_buffer_queues_the_data(self) -> None:
        server, socket, reactor = self.connect(full())
        server.sendNow(b"token")
        self.assertIn(server, reactor.getWriters())
        server.doWrite()
        self.assertEqual(socket.sent, [b"token"])
        self.assertNotIn(server, reactor.getWriters())

    def test_the_rest_of_a_short_write_precedes_later_data(self) -> None:
        server, socket, _ = self.connect(2, 1)
        server.sendNow(b"abcd")
        server.sendNow(b"ef")
        server.doWrite()
        server.sendNow(b"gh")
        server.doWrite()
        self.assertEqual(b"".join(socket.sent), b"abcdefgh")
        server.sendNow(b"now")
        self.assertEqual(socket.sent[-1], b"now")

    def test_a_dead_connection_is_reported_by_the_reactors_own_write(self) -> None:
        dead = [BrokenPipeError(errno.EPIPE, "gone"), BrokenPipeError(errno.EPIPE, "gone")]
        server, _, _ = self.connect(*dead)
        server.sendNow(b"token")
        self.assertIsInstance(server.doWrite(), ConnectionLost)

    def test_a_lost_connection_swallows_data(self) -> None:
        server, socket, _ = self.connect()
        server.connectionLost(Failure(ConnectionLost()))
        server.sendNow(b"token")
        self.assertEqual(socket.sent, [])

    def test_a_closing_connection_still_sends_what_it_was_given(self) -> None:
        server, socket, _ = self.connect()
        server.loseConnection()
        server.sendNow(b"last")
        self.assertEqual(socket.sent, [])
        server.doWrite()
        self.assertEqual(socket.sent, [b"last"])

    def test_a_producer_is_paused_by_a_slow_reader_and_resumed_when_all_has_left(self) -> None:
        server, _, _ = self.connect(full())
        producer = Producer()
        server.registerProducer(producer, True)
        server.sendNow(b"x" * (server.bufferSize + 1))
        self.assertEqual(producer.told, ["pause"])
        server.doWrite()
        self.assertEqual(producer.told, ["pause", "resume"])

    def test_the_addresses_are_asked_of_the_kernel_once(self) -> None:
        server, socket, _ = self.connect()
        self.assertEqual((server.getHost(), server.getHost().port), (server.getHost(), 8000))
        self.assertEqual(server.getPeer().host, "10.0.0.7")
        self.assertEqual(socket.names, 1)


class EndpointTests(SynchronousTestCase):
    def test_a_reactor_in_memory_listens_its_own_way(self) -> None:
        reactor, factory = MemoryReactor(), Factory()
        self.successResultOf(Endpoint(reactor, "10.0.0.1", 8000).listen(factory))
        self.assertEqual(reactor.tcpServers, [(8000, factory, 4096, "10.0.0.1")])

    def test_a_real_reactor_gets_a_port_of_eager_connections(self) -> None:
        reactor = SelectReactor()
        port = self.successResultOf(Endpoint(reactor, "127.0.0.1", 0).listen(Factory()))
        self.addCleanup(port.connectionLost, None)
        self.addCleanup(port.stopReading)
        self.assertEqual((port.transport, port.backlog), (EagerServer, 4096))
        busy = Endpoint(reactor, "127.0.0.1", port.getHost().port).listen(Factory())
        self.failureResultOf(busy, CannotListenError)
