from __future__ import annotations

import sys
from typing import Any
from unittest.mock import patch

from twisted.internet.error import ConnectionDone
from twisted.internet.testing import StringTransport
from twisted.logger import globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from llmdsim.grpc.sniff import PREFACE, GrpcFactory
from llmdsim.test.doors import Door, message, text
from llmdsim.web.site import IDLE_TIMEOUT, Channel

try:
    from llmdsim.grpc import status
    from llmdsim.grpc import vllm_engine_pb2 as pb
    from llmdsim.test.calls import ENGINE, Caller

    missing = None
except ImportError:
    missing = "needs the extra grpc"


class Port:
    """A port with both doors, and one connection to it."""

    def __init__(self, *words: str) -> None:
        self.door = Door(*words)
        self.factory = GrpcFactory(self.door.site, self.door.rank)
        self.factory.doStart()
        self.transport: Any = None

    def open(self) -> Port:
        """Connect."""
        self.transport = StringTransport()
        self.transport.protocol = self.factory.buildProtocol(None)
        self.transport.protocol.makeConnection(self.transport)
        return self

    def say(self, data: bytes) -> bytes:
        """Send bytes; what came back."""
        self.transport.protocol.dataReceived(data)
        heard: bytes = self.transport.value()
        self.transport.clear()
        return heard

    def leave(self) -> None:
        """Close the connection from the client's end."""
        self.transport.protocol.connectionLost(Failure(ConnectionDone()))


class HttpTests(SynchronousTestCase):
    def test_http_has_its_connection_from_the_first_bytes_on(self) -> None:
        port = Port().open()
        self.assertIn(b"200 OK", port.say(message("/v1/completions", text(1))))
        self.assertIs(type(port.transport.protocol), Channel)
        self.assertIn(b"200 OK", port.say(message("/v1/completions", text(1))))

    def test_a_first_letter_of_the_preface_may_be_one_of_post(self) -> None:
        port, request = Port().open(), message("/v1/completions", text(1))
        said = [port.say(bytes([byte])) for byte in request]
        self.assertEqual(set(said[:-1]), {b""})
        self.assertIn(b"200 OK", said[-1])

    def test_bytes_that_only_begin_like_the_preface_are_http(self) -> None:
        for wrong in PREFACE[:-1] + b"x", b"PRINT / HTTP/1.1\r\nHost: x\r\n\r\n":
            self.assertIn(b"HTTP/1.1 4", Port().open().say(wrong))

    def test_an_idle_connection_is_swept_away_whatever_it_began_to_say(self) -> None:
        for said in b"", b"P", PREFACE[:-1]:
            port = Port().open()
            if said:
                port.say(said)
            port.door.clock.pump([IDLE_TIMEOUT / 4] * 6)
            self.assertTrue(port.transport.disconnecting)

    def test_a_connection_that_leaves_without_a_word_leaves_no_timer(self) -> None:
        port = Port().open()
        port.leave()
        self.assertEqual(port.door.clock.getDelayedCalls(), [])


class GrpcTests(SynchronousTestCase):
    skip = missing

    def call(self, port: Port) -> Any:
        caller = Caller(port.factory.buildProtocol(None))
        return caller, caller.heard(caller.call(ENGINE + "HealthCheck", pb.HealthCheckRequest()))

    def test_a_preface_leads_to_the_engine(self) -> None:
        self.assertEqual(self.call(Port())[1].status, status.OK)

    def test_a_preface_may_come_in_pieces(self) -> None:
        port = Port().open()
        said = [port.say(bytes([byte])) for byte in PREFACE]
        self.assertEqual(set(said[:-1]), {b""})
        self.assertEqual(said[-1][3], 4)  # a SETTINGS frame

    def test_a_connection_of_grpc_is_never_idle(self) -> None:
        port = Port()
        caller, _ = self.call(port)
        self.assertEqual(port.door.clock.getDelayedCalls(), [])
        self.assertFalse(caller.transport.disconnecting)

    def test_a_full_socket_pauses_grpc_and_not_the_channel_before_it(self) -> None:
        caller, _ = self.call(Port())
        self.assertIs(caller.transport.producer, caller.transport.protocol)

    def test_a_closed_port_tells_its_clients(self) -> None:
        port = Port()
        staying, leaving = self.call(port)[0], self.call(port)[0]
        leaving.leave()
        port.factory.doStop()
        staying.heard(1)
        self.assertEqual((staying.gone, staying.transport.disconnecting), (0, True))
        self.assertFalse(leaving.transport.disconnecting)


class MissingTests(SynchronousTestCase):
    def setUp(self) -> None:
        missing = patch.dict(sys.modules, {"llmdsim.grpc.connection": None})
        missing.start()
        self.addCleanup(missing.stop)
        self.logged: list[Any] = []
        note: Any = self.logged.append
        globalLogPublisher.addObserver(note)
        self.addCleanup(globalLogPublisher.removeObserver, note)

    def test_without_the_extra_http_is_as_ever(self) -> None:
        self.assertIn(b"200 OK", Port().open().say(message("/v1/completions", text(1))))
        self.assertEqual(self.logged, [])

    def test_without_the_extra_http_2_is_closed_and_that_is_said_once(self) -> None:
        port = Port()
        for _ in range(3):
            self.assertEqual(port.open().say(PREFACE), b"")
            self.assertTrue(port.transport.disconnecting)
        self.assertEqual(["HTTP/2 is refused" in event["log_format"] for event in self.logged], [True])
