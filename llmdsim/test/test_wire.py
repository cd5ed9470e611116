"""The same requests in memory and over TCP: what the app answers must reach the client as it is."""

from __future__ import annotations

import re
from typing import Any

import treq
from treq.testing import StubTreq
from twisted.internet.defer import Deferred, DeferredList, inlineCallbacks
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Protocol
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase
from twisted.web.client import Agent

from llmdsim import tap
from llmdsim.test.doors import DONE, Door, Heard, events, free_port, message, said, text

FLAGS = "--model", "m", "--seed", "1", "--mode", "echo"
HI = [{"role": "user", "content": "one two three"}]
ASKED = {"messages": HI, "max_tokens": 9, "request_id": "r"}
USAGE = {"include_usage": True}
REQUESTS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "chat": ("POST", "/v1/chat/completions", {"json": ASKED}),
    "stream": ("POST", "/v1/chat/completions", {"json": {**ASKED, "stream": True, "stream_options": USAGE}}),
    "completions": ("POST", "/v1/completions", {"json": {"prompt": ["a b", "c"], "n": 2, "request_id": "r"}}),
    "lost": ("GET", "/v1/nowhere", {}),
    "wrong method": ("PUT", "/v1/models", {}),
    "refused": ("POST", "/v1/chat/completions", {"json": {**ASKED, "messages": [], "stream": True}}),
    "tokenize": ("POST", "/tokenize", {"json": {"prompt": "naïve 漢字", "return_token_strs": True}}),
    "models": ("GET", "/v1/models", {}),
    "metrics": ("GET", "/metrics", {}),
    "health": ("GET", "/health", {}),
    "head": ("HEAD", "/health", {}),
    "slash": ("GET", "/v1/models/", {}),
}


class RequestsMixin:
    """The rules; a subclass knows how to ``fetch``."""

    fetch: Any
    assertEqual: Any
    assertIn: Any
    assertTrue: Any

    @inlineCallbacks
    def test_a_chat_is_one_json_answer(self) -> Any:
        heard = yield self.fetch("chat")
        answer = heard.json()
        self.assertEqual((heard.status, answer["id"]), (200, "chatcmpl-r"))
        self.assertEqual(answer["choices"][0]["message"]["content"], "one two three")
        self.assertEqual(heard.header("content-type"), "application/json")

    @inlineCallbacks
    def test_a_stream_is_events_up_to_the_end_mark(self) -> Any:
        heard = yield self.fetch("stream")
        found = events(heard.body)
        self.assertEqual(heard.header("content-type"), "text/event-stream; charset=utf-8")
        self.assertEqual((said(found), found[-1]), ("one two three", DONE))
        self.assertEqual(found[-2]["usage"]["completion_tokens"], 4)

    @inlineCallbacks
    def test_completions_have_a_choice_for_each_prompt_and_number(self) -> Any:
        heard = yield self.fetch("completions")
        self.assertEqual([choice["text"] for choice in heard.json()["choices"]], ["a b", "a b", "c", "c"])

    @inlineCallbacks
    def test_what_is_not_served_is_said_in_details(self) -> Any:
        lost = yield self.fetch("lost")
        self.assertEqual((lost.status, lost.body), (404, b'{"detail":"Not Found"}'))
        wrong = yield self.fetch("wrong method")
        self.assertEqual((wrong.status, wrong.body), (405, b'{"detail":"Method Not Allowed"}'))
        self.assertEqual(wrong.header("allow"), "GET")

    @inlineCallbacks
    def test_a_refused_stream_is_plain_json(self) -> Any:
        heard = yield self.fetch("refused")
        self.assertEqual((heard.status, heard.header("content-type")), (400, "application/json"))
        self.assertTrue(heard.fault()[2].startswith("Cannot apply chat template to an empty conversation."))

    @inlineCallbacks
    def test_tokens_of_any_script_are_counted(self) -> Any:
        heard = yield self.fetch("tokenize")
        self.assertEqual("".join(heard.json()["token_strs"]), "naïve 漢字")

    @inlineCallbacks
    def test_models_metrics_and_health_are_there(self) -> Any:
        models = yield self.fetch("models")
        self.assertEqual([card["id"] for card in models.json()["data"]], ["m"])
        metrics = yield self.fetch("metrics")
        self.assertIn(b"\nvllm:num_requests_running{", metrics.body)
        health = yield self.fetch("health")
        self.assertEqual(health.body, b"{}")

    @inlineCallbacks
    def test_head_has_no_body(self) -> Any:
        heard = yield self.fetch("head")
        self.assertEqual((heard.status, heard.body), (405, b""))

    @inlineCallbacks
    def test_a_trailing_slash_is_redirected_to_where_the_client_asked(self) -> Any:
        heard = yield self.fetch("slash")
        self.assertEqual(heard.status, 307)
        self.assertTrue((heard.header("location") or "").endswith("/v1/models"))


@inlineCallbacks
def fetched(client: Any, base: str, name: str, **more: Any) -> Any:
    method, path, options = REQUESTS[name]
    response = yield client.request(method, base + path, allow_redirects=False, **options, **more)
    body = yield client.content(response)
    return Heard(response.code, response.headers, body)


class MemoryTests(RequestsMixin, TestCase):
    """In memory, through a stock Site."""

    def setUp(self) -> None:
        self.stub: Any = StubTreq(Door(*FLAGS[2:]).app.resource())

    def fetch(self, name: str) -> Any:
        return fetched(self.stub, "http://sim", name)


class TcpTestCase(TestCase):
    """A service of the real reactor, on a port of the loopback interface."""

    flags: tuple[str, ...] = FLAGS

    def setUp(self) -> None:
        from twisted.internet import reactor

        self.reactor: Any = reactor
        self.port = free_port()
        self.patch(tap, "_settle", lambda: None)  # what it freezes would hide other tests' garbage
        options = tap.Options()
        options.parseOptions([*self.flags, "--host", "127.0.0.1", "--port", str(self.port)])
        self.service = tap.makeService(options)
        self.service.privilegedStartService()
        self.service.startService()
        self.addCleanup(self.stop)

    @inlineCallbacks
    def stop(self) -> Any:
        yield self.service.stopService()
        for _ in range(500):  # the server's ends of our connections hear of their end in a later turn
            if not any(type(reader).__name__ == "EagerServer" for reader in self.reactor.getReaders()):
                return
            yield deferLater(self.reactor, 0.002)


class TcpTests(RequestsMixin, TcpTestCase):
    """Over TCP, through our own Site."""

    def fetch(self, name: str) -> Any:
        return fetched(treq, f"http://127.0.0.1:{self.port}", name, agent=Agent(self.reactor))

    @inlineCallbacks
    def test_both_ways_say_the_same_but_for_ids_and_times(self) -> Any:
        stub: Any = StubTreq(Door(*FLAGS[2:]).app.resource())
        for name in REQUESTS:
            far = yield self.fetch(name)
            near = yield fetched(stub, f"http://127.0.0.1:{self.port}", name)
            self.assertEqual(essence(far), essence(near), name)


def essence(heard: Heard) -> tuple[Any, ...]:
    """Status, headers and body without what is random or tells a time; of metrics, only which series there are."""
    body = re.sub(rb'"created":\d+|modelperm-\w+', b"", heard.body)
    body = re.sub(rb"(?m)^((?:vllm:|http_|llmdsim:|process_|python_)\S*(?:\{.*\})?) \S+$", rb"\1", body)
    hop = (b"date", b"content-length", b"transfer-encoding", b"content-encoding", b"connection")
    lines = {name.lower(): values for name, values in heard.headers.getAllRawHeaders() if name.lower() not in hop}
    return heard.status, lines, body


class Burst(Protocol):
    """A connection that sends so many requests, each after the answer to the one before; ``done`` gets the answers."""

    def __init__(self, request: bytes, count: int) -> None:
        self._request, self._left = request, count
        self._data = b""
        self.answers: list[bytes] = []
        self.done: Deferred[list[bytes]] = Deferred()

    def connectionMade(self) -> None:
        """Begin."""
        self._next()

    def dataReceived(self, data: bytes) -> None:
        """Part of an answer."""
        self._data += data
        head, found, body = self._data.partition(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head)
        if not found or length is None or len(body) < int(length[1]):
            return
        self.answers.append(head.partition(b"\r\n")[0])
        self._data = b""
        self._next()

    def connectionLost(self, reason: Any = None) -> None:
        """The end, wanted or not."""
        self.done.callback(self.answers)

    def _next(self) -> None:
        if not self._left:
            self.transport.loseConnection()  # type: ignore[union-attr]
            return
        self._left -= 1
        self.transport.write(self._request)  # type: ignore[union-attr]


class BurstTests(TcpTestCase):
    flags = "--model", "m", "--max-num-seqs", "1"

    @inlineCallbacks
    def test_900_requests_over_100_connections_for_one_seat_all_finish(self) -> Any:
        # Longer than one turn of the reactor may say, so that the seat is taken when the others come.
        request = message("/v1/completions", text(600))
        bursts = [Burst(request, 9) for _ in range(100)]
        endpoint = TCP4ClientEndpoint(self.reactor, "127.0.0.1", self.port)
        yield DeferredList([connectProtocol(endpoint, burst) for burst in bursts], fireOnOneErrback=True)
        found = yield DeferredList([burst.done for burst in bursts], fireOnOneErrback=True)
        self.assertEqual([answer for _, answers in found for answer in answers], [b"HTTP/1.1 200 OK"] * 900)
