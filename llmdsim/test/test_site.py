from __future__ import annotations

import re
from io import BytesIO
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactor, StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from llmdsim.test.test_transport import Producer, Socket
from llmdsim.web.site import Answer, App, make_site
from llmdsim.web.transport import EagerPort, EagerServer
from llmdsim.web.wire import LINGER, open_stream

MAX_BODY = 1000


class Caller:
    """One client of a Site in memory."""

    def __init__(self, app: App, table: bool = True, **options: Any) -> None:
        self.clock = Clock()
        self.site = make_site(app, clock=self.clock, max_body=MAX_BODY, table=table, **options)
        self.transport = StringTransport()
        self.channel = self.site.buildProtocol(None)
        self.channel.makeConnection(self.transport)

    def say(self, *lines: str, body: bytes = b"") -> bytes:
        """Send a request; what came back since the last one, its date left out."""
        self.channel.dataReceived("\r\n".join([*lines, "", ""]).encode("latin-1") + body)
        return self.heard()

    def heard(self) -> bytes:
        data = self.transport.value()
        self.transport.clear()
        return re.sub(rb"date: [^\r]+\r\n", b"", data)

    def leave(self) -> None:
        self.channel.connectionLost(Failure(ConnectionDone()))


def answered(body: bytes, more: bytes = b"") -> bytes:
    """A whole answer as it is on the wire, its date left out."""
    head = b"HTTP/1.1 200 OK\r\nserver: uvicorn\r\ncontent-length: %d\r\ncontent-type: application/json\r\n"
    return head % len(body) + b"vary: Origin\r\n" + more + b"\r\n" + body


def streamed(body: bytes, framing: bytes = b"transfer-encoding: chunked\r\n", close: bytes = b"") -> bytes:
    head = b"HTTP/1.1 200 OK\r\nserver: uvicorn\r\n%bcontent-type: text/event-stream; charset=utf-8\r\n" % framing
    return head + b"vary: Origin\r\n" + close + b"\r\n" + body


class House:
    """An app with a few routes, and what happened in them."""

    def __init__(self) -> None:
        self.seen: list[Any] = []
        self.served: list[tuple[Any, ...]] = []
        self.waits: list[Deferred[bytes]] = []
        self.app = App(seconds=Clock().seconds, served=lambda *args: self.served.append(args))
        self.app.route("/echo", ["POST"], hot=True)(self.echo)
        self.app.route("/wait", hot=True)(self.wait)
        self.app.route("/stream", hot=True)(self.stream)

    def echo(self, http: Any) -> Answer:
        self.seen.append(type(http.content))
        return Answer(http.content.read())

    async def wait(self, http: Any) -> Answer:
        self.waits.append(Deferred())
        try:
            return Answer(await self.waits[-1])
        except CancelledError:
            self.seen.append("cancelled")
            raise

    async def stream(self, http: Any) -> None:
        outlet = open_stream(http)
        outlet.listen(self.producer)
        outlet.send(b"one")
        self.waits.append(Deferred())
        await self.waits[-1]
        outlet.finish(b"two")
        outlet.send(b"late")

    producer: Any = Producer()


class WireTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.house = House()
        self.house.producer = Producer()

    def call(self, **options: Any) -> Caller:
        return Caller(self.house.app, **options)

    def test_an_answer_has_the_headers_of_vllm_in_its_order(self) -> None:
        heard = self.call().say("POST /echo HTTP/1.1", "Content-Length: 2", body=b"{}")
        self.assertEqual(heard, answered(b"{}"))

    def test_the_date_is_an_http_date(self) -> None:
        caller = self.call()
        caller.channel.dataReceived(b"POST /echo HTTP/1.1\r\n\r\n")
        date = rb"HTTP/1.1 200 OK\r\ndate: \w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT\r\nserver: uvicorn\r\n"
        self.assertRegex(caller.transport.value(), date)

    def test_pipelined_requests_are_answered_in_their_order(self) -> None:
        caller = self.call()
        heard = caller.say("GET /wait HTTP/1.1", "", "POST /echo HTTP/1.1", "Content-Length: 1", body=b"2")
        self.assertEqual(heard, b"")
        self.house.waits[0].callback(b"1")
        self.assertEqual(caller.heard(), answered(b"1") + answered(b"2"))

    def test_a_connection_is_kept_until_the_client_wants_it_closed(self) -> None:
        caller = self.call()
        caller.say("POST /echo HTTP/1.1")
        self.assertFalse(caller.transport.disconnecting)
        heard = caller.say("POST /echo HTTP/1.1", "Connection: close")
        self.assertEqual(heard, answered(b"", b"connection: close\r\n"))
        self.assertTrue(caller.transport.disconnecting)

    def test_a_stream_is_chunks_and_what_comes_too_late_is_dropped(self) -> None:
        caller = self.call()
        self.assertEqual(caller.say("GET /stream HTTP/1.1"), streamed(b"3\r\none\r\n"))
        self.house.waits[0].callback(b"")
        self.assertEqual(caller.heard(), b"3\r\ntwo\r\n0\r\n\r\n")
        self.assertEqual(caller.say("POST /echo HTTP/1.1"), answered(b""))

    def test_http_1_0_gets_a_stream_as_it_is_and_then_the_end_of_the_connection(self) -> None:
        caller = self.call()
        close = b"connection: close\r\n"
        self.assertEqual(caller.say("GET /stream HTTP/1.0"), streamed(b"one", b"", close))
        self.house.waits[0].callback(b"")
        self.assertEqual((caller.heard(), caller.transport.disconnecting), (b"two", True))

    def test_the_connection_pauses_and_resumes_and_stops_a_stream(self) -> None:
        caller = self.call()
        caller.say("GET /stream HTTP/1.1")
        for event in (caller.channel.pauseProducing, caller.channel.resumeProducing, caller.channel.stopProducing):
            event()
        self.assertEqual(self.house.producer.told, ["pause", "resume", "stop"])

    def test_a_finished_stream_is_no_longer_told_of_the_connection(self) -> None:
        caller = self.call()
        caller.say("GET /stream HTTP/1.1")
        self.house.waits[0].callback(b"")
        caller.channel.pauseProducing()
        self.assertEqual(self.house.producer.told, [])

    def test_a_head_and_the_first_tokens_leave_in_one_segment(self) -> None:
        site = make_site(self.house.app, clock=Clock(), max_body=MAX_BODY)
        socket: Any = Socket()
        channel, port = site.buildProtocol(None), EagerPort(0, site, reactor=MemoryReactor())
        server = EagerServer(socket, channel, ("10.0.0.7", 5), port, 0, MemoryReactor())
        channel.makeConnection(server)
        channel.dataReceived(b"GET /stream HTTP/1.1\r\n\r\n")
        self.assertEqual(socket.sent, [])
        server.doWrite()
        self.assertTrue(socket.sent[0].endswith(b"\r\n\r\n3\r\none\r\n"))
        self.house.waits[0].callback(b"")
        self.assertEqual(socket.sent[1:], [b"3\r\ntwo\r\n0\r\n\r\n"])

    def test_a_header_of_a_guard_is_in_the_answer_and_cannot_smuggle_another(self) -> None:
        self.house.app.before.append(lambda http: http.setHeader(b"x-request-id", b"a"))
        self.house.app.route("/split")(lambda http: Answer(b"", headers=((b"x-name", b"b\r\nx-evil: c"),)))
        heard = self.call().say("GET /split HTTP/1.1")
        self.assertEqual(heard, answered(b"", b"x-name: b x-evil: c\r\nX-Request-Id: a\r\n"))

    def test_a_malformed_request_is_refused_without_a_word_in_the_log(self) -> None:
        caller = self.call()
        self.assertEqual(caller.say("nonsense"), b"HTTP/1.1 400 Bad Request\r\n\r\n")
        self.assertTrue(caller.transport.disconnecting)
        self.assertEqual(caller.say("GET /wait HTTP/1.1"), b"")

    def test_an_access_log_hears_of_answers_and_streams(self) -> None:
        heard: list[Any] = []
        caller = self.call(access_log=lambda http: heard.append((http.path, http.code)))
        caller.say("GET /stream HTTP/1.1")
        self.house.waits[0].callback(b"")
        caller.say("GET /nowhere HTTP/1.1")
        caller.say("POST /echo?x=1 HTTP/1.1", "Content-Length: 1001")
        self.assertEqual(heard, [(b"/stream", 200), (b"/nowhere", 404), (b"/echo", 413)])

    def test_a_site_behind_tls_speaks_http_1_the_same_way(self) -> None:
        caller = self.call(secure=True, idle_timeout=60)
        self.assertEqual(caller.say("GET /stream HTTP/1.1"), streamed(b"3\r\none\r\n"))
        caller.leave()


class BodyTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.house = House()
        self.caller = Caller(self.house.app)

    def refused(self, heard: bytes) -> None:
        self.assertTrue(heard.startswith(b"HTTP/1.1 413 "))
        self.assertIn(b"\r\nconnection: close\r\n", heard)
        message = b'{"error":{"message":"Request body is larger than 1000 bytes","type":"BadRequestError",'
        self.assertEqual(heard.partition(b"\r\n\r\n")[2], message + b'"param":null,"code":413}}')
        self.assertEqual(self.house.seen, [])

    def test_a_body_stays_in_memory(self) -> None:
        size = str(MAX_BODY)
        self.caller.say("POST /echo HTTP/1.1", f"Content-Length: {size}", body=b"x" * MAX_BODY)
        self.caller.say("POST /echo HTTP/1.1", "Transfer-Encoding: chunked", body=b"2\r\n{}\r\n0\r\n\r\n")
        self.assertEqual(self.house.seen, [BytesIO, BytesIO])

    def test_a_client_that_asks_first_is_told_to_continue(self) -> None:
        head = ("POST /echo HTTP/1.1", "Content-Length: 2", "Expect: 100-continue")
        self.assertEqual(self.caller.say(*head), b"HTTP/1.1 100 Continue\r\n\r\n")
        self.caller.channel.dataReceived(b"{}")
        self.assertEqual(self.caller.heard(), answered(b"{}"))

    def test_a_body_announced_too_large_is_refused_before_it_is_sent(self) -> None:
        self.refused(self.caller.say("POST /echo HTTP/1.1", "Content-Length: 1001", "Expect: 100-continue"))
        self.assertFalse(self.caller.transport.disconnecting)

    def test_a_refused_client_may_end_its_body_and_is_closed_then(self) -> None:
        self.refused(self.caller.say("POST /echo HTTP/1.1", "Content-Length: 1001", body=b"x" * 1000))
        self.caller.channel.dataReceived(b"xPOST /echo HTTP/1.1\r\n\r\n")
        self.assertEqual((self.caller.heard(), self.caller.transport.disconnecting), (b"", True))

    def test_a_refused_client_cannot_go_on_for_ever(self) -> None:
        self.caller.say("POST /echo HTTP/1.1", "Content-Length: 99999999", body=b"x" * (MAX_BODY + LINGER))
        self.assertFalse(self.caller.transport.disconnecting)
        self.caller.channel.dataReceived(b"x")
        self.assertTrue(self.caller.transport.disconnecting)

    def test_a_chunked_body_is_refused_when_it_grows_too_large(self) -> None:
        chunk = b"1f4\r\n" + b"x" * 500 + b"\r\n"
        self.assertEqual(self.caller.say("POST /echo HTTP/1.1", "Transfer-Encoding: chunked", body=chunk * 2), b"")
        self.caller.channel.dataReceived(chunk)
        self.refused(self.caller.heard())
        self.assertEqual(self.house.served, [("none", "POST", 413, 0.0, 1500, 111)])


class IdleTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.house = House()
        self.caller = Caller(self.house.app, idle_timeout=8)

    def test_an_idle_connection_is_closed_and_then_aborted(self) -> None:
        self.caller.clock.pump([2] * 3)
        self.caller.say("POST /echo HTTP/1.1")
        self.caller.clock.pump([2] * 3)
        self.assertFalse(self.caller.transport.disconnecting)
        self.caller.clock.pump([2])
        self.assertTrue(self.caller.transport.disconnecting)
        self.assertFalse(self.caller.transport.disconnected)
        self.caller.clock.pump([2])
        self.assertTrue(self.caller.transport.disconnected)

    def test_a_long_stream_is_not_idle(self) -> None:
        self.caller.say("GET /stream HTTP/1.1")
        self.caller.clock.pump([2] * 20)
        self.assertFalse(self.caller.transport.disconnecting)

    def test_a_request_that_never_ends_is_idle(self) -> None:
        self.caller.channel.dataReceived(b"POST /echo HTTP/1.1\r\nContent-")
        self.caller.clock.pump([2] * 5)
        self.assertTrue(self.caller.transport.disconnecting)

    def test_no_timer_is_left_when_nobody_is_connected(self) -> None:
        self.caller.leave()
        self.assertEqual(self.caller.clock.getDelayedCalls(), [])
