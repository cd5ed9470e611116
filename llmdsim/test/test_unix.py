from __future__ import annotations

import os
import socket
import stat

from twisted.internet.address import UNIXAddress
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import Factory
from twisted.internet.selectreactor import SelectReactor
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from llmdsim.test.doors import Door
from llmdsim.web.unix import UnixEndpoint


class UnixEndpointTests(SynchronousTestCase):
    def setUp(self) -> None:
        # The path of a socket may have 107 bytes, and a temporary directory of trial's own is long.
        self.path = f"/tmp/llmdsim-test-{os.getpid()}.sock"
        self.addCleanup(self.remove)

    def remove(self) -> None:
        if os.path.exists(self.path):
            os.unlink(self.path)

    def listen(self) -> IListeningPort:
        port = self.successResultOf(UnixEndpoint(SelectReactor(), self.path).listen(Factory()))
        self.addCleanup(port.connectionLost, None)
        self.addCleanup(port.stopReading)
        return port

    def leave(self) -> None:
        """A socket as a killed server leaves it."""
        dead = socket.socket(socket.AF_UNIX)
        dead.bind(self.path)
        dead.close()

    def test_owner_and_group_may_connect(self) -> None:
        self.listen()
        self.assertEqual(stat.S_IMODE(os.stat(self.path).st_mode), 0o660)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(self.path)

    def test_the_socket_of_a_dead_server_is_replaced(self) -> None:
        self.leave()
        self.listen()

    def test_the_socket_of_a_living_server_is_left_alone(self) -> None:
        self.listen()
        busy = UnixEndpoint(SelectReactor(), self.path).listen(Factory())
        self.failureResultOf(busy, CannotListenError)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(self.path)

    def test_a_file_that_is_no_socket_is_left_alone(self) -> None:
        with open(self.path, "w") as file:
            file.write("mine")
        busy = UnixEndpoint(SelectReactor(), self.path).listen(Factory())
        self.failureResultOf(busy, CannotListenError)
        self.assertTrue(os.path.isfile(self.path))


class NamelessTests(SynchronousTestCase):
    def ask(self, line: bytes) -> bytes:
        transport = StringTransport(UNIXAddress(b""))
        transport.hostAddr = UNIXAddress(b"/run/sim.sock")
        channel = Door("--strict").site.buildProtocol(None)
        channel.makeConnection(transport)
        channel.dataReceived(line + b"\r\n\r\n")
        return transport.value()

    def test_a_client_may_leave_out_the_name_of_the_host(self) -> None:
        self.assertTrue(self.ask(b"GET /version HTTP/1.0").startswith(b"HTTP/1.1 200"))
        self.assertIn(b"location: http://localhost/version\r\n", self.ask(b"GET /version/ HTTP/1.0"))
