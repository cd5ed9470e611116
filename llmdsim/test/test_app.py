from __future__ import annotations

import re
from contextvars import ContextVar
from typing import Any

from treq.testing import StubTreq
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.server import Site

from llmdsim.faults import RATE_LIMITED, UNAUTHORIZED, Fault
from llmdsim.test.test_site import Caller, House
from llmdsim.test.test_transport import Producer
from llmdsim.web.app import start
from llmdsim.web.site import Answer, App
from llmdsim.web.wire import open_stream

INTERNAL_ERROR = b'{"error":{"message":"Internal server error","type":"InternalServerError","param":null,"code":500}}'


class WaitingTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.house = House()

    def test_a_client_that_leaves_cancels_its_handler_and_is_not_counted(self) -> None:
        for table in (True, False):
            caller = Caller(self.house.app, table)
            caller.say("GET /wait HTTP/1.1")
            caller.leave()
        self.assertEqual((self.house.seen, self.house.served), (["cancelled", "cancelled"], []))

    def test_a_stream_that_fails_is_cut_off_and_logged(self) -> None:
        caller = Caller(self.house.app)
        caller.say("GET /stream HTTP/1.1")
        self.house.waits[0].errback(ValueError("broken"))
        self.assertEqual((caller.heard(), caller.transport.disconnecting), (b"", True))
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        caller.leave()
        self.assertEqual(self.house.served, [("/stream", "GET", 200, 0.0, 0, 0)])

    def test_a_coroutine_that_never_waits_needs_no_deferred(self) -> None:
        async def handler() -> Answer:
            return Answer(b"here")

        self.assertEqual(start(handler()), Answer(b"here"))

    def test_a_coroutine_catches_the_failure_it_waits_for(self) -> None:
        async def handler() -> Answer:
            for wait in self.house.waits:
                try:
                    await wait
                except ValueError as error:
                    return Answer(str(error).encode())
            return Answer()

        self.house.waits = [Deferred(), Deferred()]
        waiting: Any = start(handler())
        self.house.waits[0].callback(b"")
        self.house.waits[1].errback(ValueError("caught"))
        self.assertEqual(self.successResultOf(waiting), Answer(b"caught"))

    def test_what_a_handler_sets_in_its_context_stays_there(self) -> None:
        name: ContextVar[str] = ContextVar("name", default="nobody")

        async def handler(wait: Deferred[bytes]) -> Answer:
            name.set("somebody")
            await wait
            return Answer(name.get().encode())

        wait: Deferred[bytes] = Deferred()
        waiting: Any = start(handler(wait))
        self.assertEqual(name.get(), "nobody")
        wait.callback(b"")
        self.assertEqual(self.successResultOf(waiting), Answer(b"somebody"))

    def test_a_guard_is_asked_before_a_handler_and_before_a_404(self) -> None:
        def guard(http: Any) -> None:
            raise Fault(UNAUTHORIZED, "no")

        self.house.app.before.append(guard)
        for path in ("/stream", "/nowhere"):
            self.assertIn(b"HTTP/1.1 401", Caller(self.house.app).say(f"GET {path} HTTP/1.1"))


def office() -> tuple[App, list[tuple[Any, ...]]]:
    """An app whose routes fail in every way there is, and what it served."""
    served: list[tuple[Any, ...]] = []
    app = App(seconds=Clock().seconds, served=lambda *args: served.append(args))

    @app.route("/full", ["POST"], hot=True)
    def full(http: Any) -> Answer:
        raise Fault(RATE_LIMITED, "queue is full", "model", (("Retry-After", "1"),))

    @app.route("/bug", hot=True)
    async def bug(http: Any) -> Answer:
        raise ZeroDivisionError("a secret")

    @app.route("/item/<name>", ["GET", "DELETE"])
    async def item(http: Any, name: str) -> Answer:
        return Answer(name.encode(), 201, b"text/plain", ((b"x-one", b"1"),))

    @app.route("/empty", hot=True)
    def empty(http: Any) -> Answer:
        return Answer(content_type=b"")

    @app.route("/stream", hot=True)
    def stream(http: Any) -> None:
        outlet = open_stream(http, ((b"x-one", b"1"),))
        outlet.listen(Producer())
        outlet.send(b"one")
        outlet.send(b"")
        outlet.finish(b"two")

    return app, served


REQUESTS = [
    ("POST /full HTTP/1.1",),
    ("GET /full HTTP/1.1",),
    ("GET /bug HTTP/1.1",),
    ("GET /item/a%20b HTTP/1.1",),
    ("PUT /item/a HTTP/1.1",),
    ("HEAD /empty HTTP/1.1",),
    ("GET /empty?x=1 HTTP/1.1",),
    ("GET /empty HTTP/1.0",),
    ("GET /empty HTTP/1.1", "Connection: close"),
    ("GET /stream HTTP/1.1",),
    ("GET /stream HTTP/1.0",),
    ("GET /nowhere HTTP/1.1",),
    ("GET //empty HTTP/1.1",),
    ("GET /%ff HTTP/1.1",),
    ("GET /empty HTTP/1.1", "Host: " + "a" * 70),
    ("GET /empty HTTP/1.1", "Host: \xff"),
    ("GET /empty HTTP/1.1", "Host: [::1]:8000"),
    ("GET /empty/?x=1 HTTP/1.1", "Host: sim:80"),
    ("OPTIONS /nowhere HTTP/1.1", "Origin: http://x", "Access-Control-Request-Method: POST"),
    ("OPTIONS /full HTTP/1.1", "Origin: http://x"),
]


class TableTests(SynchronousTestCase):
    def test_the_table_and_klein_give_the_same_bytes_and_counts(self) -> None:
        app, served = office()
        for request in REQUESTS:
            answers = [Caller(app, table).say(*request) for table in (True, False)]
            self.assertEqual(answers[0], answers[1], request)
            self.assertTrue(answers[0].startswith(b"HTTP/1.1 "), request)
            self.assertEqual(served[-1], served[-2], request)
        self.assertEqual(len(served), 2 * len(REQUESTS))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)

    def test_a_stock_site_says_the_same_in_its_own_words(self) -> None:
        app, _ = office()
        for request in REQUESTS:
            ours = Caller(app, table=False).say(*request)
            self.assertEqual(Stock(app).say(*request), essence(ours), request)
        self.flushLoggedErrors(ZeroDivisionError)


class Stock(Caller):
    """A client of twisted.web's own Site with the same app."""

    def __init__(self, app: App) -> None:
        super().__init__(app)
        self.transport = StringTransport()
        self.channel = Site(app.resource(), reactor=self.clock).buildProtocol(None)
        self.channel.makeConnection(self.transport)

    def say(self, *lines: str, body: bytes = b"") -> Any:
        return essence(super().say(*lines, body=body))


def essence(heard: bytes) -> tuple[bytes, list[bytes], bytes]:
    """Status line, headers in no order and no case, body; twisted.web says HTTP/1.0 to whom it is enough."""
    head, _, body = heard.partition(b"\r\n\r\n")
    status, *headers = re.sub(rb"^HTTP/1.[01]", b"HTTP", head).split(b"\r\n")
    lines = [name.lower() + value for name, colon, value in (line.partition(b":") for line in headers)]
    return status, sorted(line for line in lines if not line.startswith((b"date", b"connection"))), body


class AnswerTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.app, self.served = office()
        self.treq: Any = StubTreq(self.app.resource())

    def ask(self, method: str, path: str, **options: Any) -> tuple[int, bytes, Any]:
        options.setdefault("allow_redirects", False)
        response = self.successResultOf(self.treq.request(method, f"http://sim:8000{path}", **options))
        return response.code, self.successResultOf(self.treq.content(response)), response.headers

    def test_a_fault_is_the_envelope_of_vllm_with_its_headers(self) -> None:
        code, body, headers = self.ask("POST", "/full", data=b"{}")
        error = b'{"error":{"message":"queue is full","type":"RateLimitError","param":"model","code":429}}'
        self.assertEqual((code, body), (429, error))
        self.assertEqual(headers.getRawHeaders("retry-after"), ["1"])
        self.assertEqual(self.served, [("/full", "POST", 429, 0.0, 2, len(error))])

    def test_a_bug_is_logged_whole_and_told_to_nobody(self) -> None:
        self.assertEqual(self.ask("GET", "/bug")[:2], (500, INTERNAL_ERROR))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_an_unknown_path_and_a_wrong_method_have_vllms_details(self) -> None:
        self.assertEqual(self.ask("GET", "/nowhere")[:2], (404, b'{"detail":"Not Found"}'))
        code, body, headers = self.ask("PUT", "/item/a")
        self.assertEqual((code, body), (405, b'{"detail":"Method Not Allowed"}'))
        self.assertEqual(headers.getRawHeaders("allow"), ["DELETE, GET"])
        self.assertEqual(self.ask("HEAD", "/empty")[0], 405)
        self.assertEqual([args[0] for args in self.served], ["none"] * 3)

    def test_a_trailing_slash_of_a_known_path_is_redirected(self) -> None:
        code, body, headers = self.ask("POST", "/empty/?x=1")
        self.assertEqual((code, body), (307, b""))
        self.assertEqual(headers.getRawHeaders("location"), ["http://sim:8000/empty?x=1"])
        self.assertIsNone(headers.getRawHeaders("content-type"))
        self.assertEqual(self.ask("GET", "/nowhere/")[0], 404)

    def test_the_parts_of_a_url_reach_the_handler(self) -> None:
        code, body, headers = self.ask("DELETE", "/item/a%20b")
        self.assertEqual((code, body, headers.getRawHeaders("x-one")), (201, b"a b", ["1"]))

    def test_a_stream_has_its_type_and_counts_no_bytes(self) -> None:
        code, body, headers = self.ask("GET", "/stream")
        self.assertEqual((code, body), (200, b"onetwo"))
        self.assertEqual(headers.getRawHeaders("content-type"), ["text/event-stream; charset=utf-8"])
        self.assertEqual(self.served, [("/stream", "GET", 200, 0.0, 0, 0)])

    def test_a_url_is_declared_once_for_a_method(self) -> None:
        self.assertRaises(ValueError, self.app.route("/full", ["GET", "POST"]), None)
        self.app.route("/full", ["GET"])(lambda http: Answer())

    def test_only_a_fixed_path_can_be_hot(self) -> None:
        self.assertRaises(ValueError, self.app.route, "/v1/<name>", hot=True)
