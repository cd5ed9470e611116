from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.testing import MemoryReactor
from twisted.trial.unittest import SynchronousTestCase

from llmdsim.faults import UNAVAILABLE, Fault
from llmdsim.simulated import Simulated
from llmdsim.test.doors import DONE, Client, Door, Script, chat, events, message, text
from llmdsim.test.test_transport import Socket
from llmdsim.web.transport import EagerPort, EagerServer

CHAT = "/v1/chat/completions"
TEXT = "/v1/completions"
# Fractions of two, so that sums of them are exact.
SLOW = "--time-to-first-token", "250ms", "--inter-token-latency", "125ms"
BUG = {"message": "Internal server error", "type": "InternalServerError", "param": None, "code": 500}


def stream(tokens: int, **fields: Any) -> dict[str, Any]:
    return chat(tokens, stream=True, **fields)


class TimeTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.door = Door(*SLOW, "--max-num-seqs", "1")

    def test_the_head_is_sent_when_the_seat_is_taken(self) -> None:
        first, second = Client(self.door).post(CHAT, stream(1)), Client(self.door).post(CHAT, stream(1))
        self.assertTrue(first.heard().startswith(b"HTTP/1.1 200 OK\r\n"))
        self.assertEqual(second.heard(), b"")
        self.door.clock.advance(0.25)
        head = second.heard()
        self.assertIn(b"content-type: text/event-stream; charset=utf-8\r\n", head)
        self.assertTrue(head.endswith(b"\r\n\r\n"))

    def test_role_and_first_token_come_at_ttft_and_then_one_token_a_gap(self) -> None:
        client = Client(self.door).post(CHAT, stream(3))
        self.door.clock.advance(0.249)
        self.assertEqual(client.events(), [])
        self.door.clock.advance(0.001)
        role, first = client.events()
        self.assertEqual(role["choices"][0]["delta"], {"role": "assistant", "content": ""})
        self.assertIsNone(first["choices"][0]["finish_reason"])
        self.door.clock.advance(0.124)
        self.assertEqual(client.events(), [])
        self.door.clock.advance(0.001)
        self.assertEqual(len(client.events()), 1)
        self.door.clock.advance(0.125)
        last, done = client.events()
        self.assertEqual((last["choices"][0]["finish_reason"], done), ("length", DONE))

    def test_a_completion_has_no_role_chunk(self) -> None:
        client = Client(self.door).post(TEXT, text(2, stream=True))
        self.door.clock.advance(0.25)
        self.assertEqual([list(event["choices"][0])[:2] for event in client.events()], [["index", "text"]])

    def test_a_choice_that_ends_while_another_waits_says_so_at_once(self) -> None:
        door = Door(*SLOW, "--max-num-seqs", "1", source=Script("one", "a b c d"))
        client = Client(door).post(CHAT, stream(9, n=2))
        door.clock.pump([0.25, 0.125])
        found = [(choice["index"], choice["finish_reason"]) for event in client.events() for choice in event["choices"]]
        self.assertEqual(found[-1], (0, "stop"))

    def test_a_late_clock_catches_up_in_one_write(self) -> None:
        client = Client(self.door).post(CHAT, stream(9))
        client.heard()
        self.door.clock.advance(0.7)
        self.assertEqual((len(client.writes), len(client.events())), (1, 5))

    def test_usage_is_the_last_event_and_counts_every_choice(self) -> None:
        door = Door()
        client = Client(door).post(CHAT, stream(3, n=2, stream_options={"include_usage": True}))
        *_, last, done = client.events()
        prompt = len(door.tokenizer.encode("### user: hi\n").ids)
        usage = {"prompt_tokens": prompt, "total_tokens": prompt + 6, "completion_tokens": 6}
        self.assertEqual((last["choices"], last["usage"], done), ([], usage, DONE))

    def test_continuous_usage_is_in_every_event(self) -> None:
        options = {"include_usage": True, "continuous_usage_stats": True}
        found = Client(Door()).post(CHAT, stream(3, stream_options=options)).events()[:-1]
        self.assertEqual([event["usage"]["completion_tokens"] for event in found], [0, 1, 2, 3, 3])

    def test_without_being_asked_for_there_is_no_usage_anywhere(self) -> None:
        self.assertNotIn(b'"usage"', Client(Door()).post(CHAT, stream(3)).heard())

    def test_at_zero_latency_a_whole_stream_leaves_in_one_segment(self) -> None:
        for body in (stream(9), stream(9, stream_options={"include_usage": True})):
            socket: Any = Socket()
            door, reactor = Door(), MemoryReactor()
            port = EagerPort(0, door.site, reactor=reactor)
            channel = door.site.buildProtocol(None)
            server = EagerServer(socket, channel, ("10.0.0.7", 5), port, 0, reactor)
            channel.makeConnection(server)
            channel.dataReceived(message(CHAT, body))
            server.doWrite()
            (sent,) = socket.sent
            self.assertTrue(sent.startswith(b"HTTP/1.1 200 OK\r\n"))
            self.assertTrue(sent.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n"))


class LeavingTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.door = Door(*SLOW, "--max-num-seqs", "1")

    def post(self, body: dict[str, Any]) -> Client:
        return Client(self.door).post(CHAT, body)

    def free(self) -> None:
        rank = self.door.rank
        self.assertEqual((rank.scheduler.running, rank.scheduler.waiting, rank.open), (0, 0, 0))
        self.assertEqual(self.door.gauge("vllm:num_requests_running"), 0)
        self.assertEqual(self.door.gauge("vllm:num_requests_waiting"), 0)
        self.assertEqual(self.door.clock.getDelayedCalls(), [])

    def test_a_client_that_leaves_in_mid_stream_frees_its_seat_at_once(self) -> None:
        client = self.post(stream(5))
        self.door.clock.advance(0.25)
        self.assertEqual(self.door.gauge("vllm:num_requests_running"), 1)
        client.leave()
        self.free()

    def test_a_client_that_leaves_before_the_first_token_frees_its_seat_at_once(self) -> None:
        for body in (stream(5), chat(5)):
            self.post(body).leave()
            self.free()

    def test_a_client_that_leaves_the_queue_is_forgotten(self) -> None:
        client = self.post(stream(1))
        for body in (stream(5), chat(5), stream(5, n=3)):
            queued = self.post(body)
            self.assertEqual(self.door.gauge("vllm:num_requests_waiting"), body.get("n", 1))
            queued.leave()
            self.assertEqual(self.door.gauge("vllm:num_requests_waiting"), 0)
        self.door.clock.pump([0.25, 0])
        client.leave()
        self.free()

    def test_a_client_that_leaves_lets_the_next_one_in(self) -> None:
        client = self.post(stream(5))
        after = self.post(stream(1))
        client.leave()
        self.door.clock.pump([0, 0.25])
        self.assertEqual(after.events()[-1], DONE)

    def test_a_client_that_leaves_while_it_is_paused_frees_its_seat(self) -> None:
        client = self.post(stream(5))
        client.channel.pauseProducing()
        self.door.clock.advance(0.25)
        client.leave()
        self.free()

    def test_a_client_that_leaves_while_its_prompt_is_tokenized_is_forgotten(self) -> None:
        threads: list[Deferred[Any]] = []

        def offload(*call: Any) -> Deferred[Any]:
            threads.append(Deferred())
            return threads[-1]

        self.door = Door(*SLOW, offload=offload)
        self.patch(self.door.tokenizer, "inline", 0)
        for body in (stream(5), chat(5), stream(5, n=2)):
            client = self.post(body)
            self.assertEqual(self.door.rank.open, 1)
            client.leave()
            self.free()
            threads.pop().callback(Simulated().encode("too late"))
            self.free()

    def test_a_client_with_one_choice_spoken_and_one_queued_frees_both(self) -> None:
        client = self.post(stream(5, n=2))
        self.door.clock.advance(0.25)
        client.leave()
        self.door.clock.advance(0)
        self.free()


class BrokenTests(SynchronousTestCase):
    def break_(self, door: Door, error: Exception) -> None:
        def gap() -> float:
            gaps.append(0.125)
            if len(gaps) > 2:
                raise error
            return gaps[-1]

        gaps: list[float] = []
        self.patch(door.rank.pacer, "gap", gap)

    def test_a_fault_after_the_head_is_an_event_and_the_end_mark(self) -> None:
        door = Door(*SLOW)
        self.break_(door, Fault(UNAVAILABLE, "gone"))
        client = Client(door).post(CHAT, stream(9))
        door.clock.pump([0.25, 0.125, 0.125])
        *_, event, done = client.events()
        error = {"message": "gone", "type": "ServiceUnavailableError", "param": None, "code": 503}
        self.assertEqual((event, done), ({"error": error}, DONE))
        self.assertEqual((door.rank.scheduler.running, door.rank.open), (0, 0))

    def test_a_bug_after_the_head_is_an_event_too_and_logged_once(self) -> None:
        for n in (1, 2):
            door = Door(*SLOW)
            self.break_(door, ZeroDivisionError("a secret"))
            client = Client(door).post(CHAT, stream(9, n=n))
            door.clock.pump([0.25, 0.125, 0.125])
            heard = client.heard()
            self.assertEqual(events(heard)[-2:], [{"error": BUG}, DONE])
            self.assertTrue(heard.endswith(b"\r\n0\r\n\r\n"))
            self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
            self.assertEqual((door.rank.scheduler.running, door.rank.open), (0, 0))

    def test_a_bug_before_the_head_is_plain_json_and_logged_once(self) -> None:
        door = Door()
        self.patch(door.rank.planner, "plan", lambda request: 1 // 0)
        heard = door.post(CHAT, stream(9))
        self.assertEqual((heard.json(), heard.header("content-type")), ({"error": BUG}, "application/json"))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_a_connection_serves_on_after_a_broken_stream(self) -> None:
        door = Door(*SLOW)
        self.break_(door, Fault(UNAVAILABLE, "gone"))
        client = Client(door).post(CHAT, stream(9))
        door.clock.pump([0.25, 0.125, 0.125])
        client.heard()
        self.assertEqual(client.post(TEXT, {"prompt": ""}).status(), 400)

    def test_a_broken_completion_says_so_in_vllms_spelling(self) -> None:
        door = Door(*SLOW)
        self.break_(door, ZeroDivisionError("a secret"))
        client = Client(door).post(TEXT, text(9, stream=True))
        door.clock.pump([0.25, 0.125, 0.125])
        self.flushLoggedErrors(ZeroDivisionError)
        event = b'data: {"error": {"message": "Internal server error", "type": "InternalServerError", '
        self.assertIn(event + b'"param": null, "code": 500}}\n\ndata: [DONE]\n\n', client.heard())
