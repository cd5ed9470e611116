from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from llmdsim.test.doors import Client, Door

URL = "/v1/responses"
SLOW = "--time-to-first-token", "1s", "--inter-token-latency", "1s"
QUERY_ERROR = "bool_parsing", "int_parsing"


def ask(tokens: int, **fields: Any) -> dict[str, Any]:
    """A body whose answer has exactly so many tokens."""
    return {"input": "hi", "max_output_tokens": tokens, "ignore_eos": True, **fields}


def kinds(found: list[Any]) -> list[str]:
    """The types of events, without what they share."""
    return [event["type"].removeprefix("response.") for event in found]


class CreateTests(SynchronousTestCase):
    def test_an_answer_can_be_asked_for_again(self) -> None:
        door = Door()
        answer = door.post(URL, ask(3)).json()
        self.assertEqual(door.ask("GET", f"{URL}/{answer['id']}").json(), answer)

    def test_what_was_streamed_can_be_asked_for_too(self) -> None:
        door = Door()
        last = Client(door).post(URL, ask(3, stream=True)).events()[-1]
        self.assertEqual(last["type"], "response.incomplete")
        self.assertEqual(door.ask("GET", f"{URL}/{last['response']['id']}").json(), last["response"])

    def test_what_the_client_would_not_store_is_not_stored(self) -> None:
        door = Door()
        answer = door.post(URL, ask(3, store=False)).json()
        self.assertEqual(door.ask("GET", f"{URL}/{answer['id']}").status, 404)

    def test_a_strict_server_stores_only_where_its_environment_says_so(self) -> None:
        for environ, status in (({}, 404), ({"VLLM_ENABLE_RESPONSES_API_STORE": "1"}, 200)):
            door = Door("--strict", environ=environ)
            id = door.post(URL, ask(1)).json()["id"]
            self.assertEqual(door.ask("GET", f"{URL}/{id}").status, status)
            self.assertEqual(door.post(URL, ask(1, previous_response_id=id)).status, status)

    def test_a_conversation_goes_on(self) -> None:
        door = Door("--mode", "echo")
        first = door.post(URL, {"input": "one two"}).json()
        alone = door.post(URL, {"input": "three"}).json()
        second = door.post(URL, {"input": "three", "previous_response_id": first["id"]}).json()
        tokens = [each["usage"]["input_tokens"] for each in (alone, second)]
        self.assertGreater(tokens[1], tokens[0])
        self.assertEqual(second["previous_response_id"], first["id"])

    def test_the_first_events_are_sent_when_the_response_has_its_seat(self) -> None:
        door = Door(*SLOW)
        client = Client(door).post(URL, ask(2, stream=True))
        self.assertEqual(kinds(client.events()), ["created", "in_progress"])
        door.clock.advance(1)
        self.assertEqual(kinds(client.events()), ["output_item.added", "content_part.added", "output_text.delta"])

    def test_a_stream_has_no_end_mark_but_an_end(self) -> None:
        data = Client(Door()).post(URL, ask(2, stream=True)).heard()
        self.assertNotIn(b"[DONE]", data)
        self.assertTrue(data.endswith(b"0\r\n\r\n"))

    def test_a_slow_reader_gets_what_it_missed_as_numbered_events(self) -> None:
        door = Door(*SLOW)
        client = Client(door).post(URL, ask(4, stream=True))
        reader: Any = client.transport.producer
        reader.pauseProducing()
        door.clock.pump([1, 1, 1])
        reader.resumeProducing()
        door.clock.advance(1)
        found = client.events()
        self.assertEqual([event["sequence_number"] for event in found], [*range(len(found))])
        self.assertEqual(kinds(found).count("output_text.delta"), 4)

    def test_a_stream_that_fails_is_cut_off(self) -> None:
        door = Door("--time-to-first-token", "1s")
        client = Client(door).post(URL, ask(3, stream=True))
        self.patch(door.rank.pacer, "gap", lambda: 1 // 0)
        door.clock.advance(1)
        data = client.heard()
        self.assertNotIn(b"0\r\n\r\n", data[-5:])
        self.assertTrue(client.transport.disconnecting)
        self.flushLoggedErrors()

    def test_a_bug_is_a_500_where_nothing_was_sent(self) -> None:
        door = Door()
        self.patch(door.rank.pacer, "gap", lambda: 1 // 0)
        heard = door.post(URL, ask(3))
        self.assertEqual(heard.fault(), (500, "InternalServerError", "Internal server error", None))
        self.flushLoggedErrors(ZeroDivisionError)

    def test_a_client_that_leaves_frees_its_seat_and_stores_nothing(self) -> None:
        door = Door(*SLOW)
        client = Client(door).post(URL, ask(3, request_id="r"))
        client.leave()
        self.assertEqual(door.rank.open, 0)
        self.assertEqual(door.ask("GET", f"{URL}/resp_r").status, 404)

    def test_a_prompt_that_is_too_long_is_refused_before_a_stream_begins(self) -> None:
        door = Door("--max-model-len", "20")
        for fields in ({"stream": True}, {"background": True}):
            heard = door.post(URL, {"input": "word " * 20, **fields})
            self.assertEqual((heard.status, heard.fault()[3]), (400, "input_tokens"))


class BackgroundTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.door = Door(*SLOW)

    def status(self, id: str) -> Any:
        return self.door.ask("GET", f"{URL}/{id}").json()["status"]

    def test_a_background_is_queued_then_made_then_complete(self) -> None:
        queued = self.door.post(URL, ask(2, background=True)).json()
        self.assertEqual((queued["status"], queued["background"], queued["output"]), ("queued", True, []))
        self.assertEqual(queued["max_output_tokens"], 2)
        seen = [self.status(queued["id"])]
        self.door.clock.pump([1, 1])
        self.assertEqual([*seen, self.status(queued["id"])], ["in_progress", "incomplete"])

    def test_a_background_without_a_seat_waits(self) -> None:
        self.door = Door(*SLOW, "--max-num-seqs", "1")
        self.door.post(URL, ask(1, background=True))
        waiting = self.door.post(URL, ask(1, background=True)).json()["id"]
        self.assertEqual(self.status(waiting), "queued")
        self.door.clock.pump([1, 0])
        self.assertEqual(self.status(waiting), "in_progress")

    def test_a_full_queue_refuses_a_background(self) -> None:
        door = Door(*SLOW, "--max-num-seqs", "1", "--max-waiting-queue-length", "1")
        statuses = [door.post(URL, ask(1, background=True)).status for _ in range(3)]
        self.assertEqual(statuses, [200, 200, 429])

    def test_cancelling_frees_the_seat_at_once(self) -> None:
        id = self.door.post(URL, ask(2, background=True)).json()["id"]
        heard = self.door.ask("POST", f"{URL}/{id}/cancel")
        self.assertEqual((heard.status, heard.json()["status"], self.status(id)), (200, "cancelled", "cancelled"))
        self.assertEqual((self.door.rank.open, self.door.rank.scheduler.running), (0, 0))
        again = self.door.ask("POST", f"{URL}/{id}/cancel").fault()
        self.assertEqual(again, (400, "invalid_request_error", "Cannot cancel a synchronous response.", "response_id"))

    def test_a_background_goes_on_when_its_listener_leaves(self) -> None:
        client = Client(self.door).post(URL, ask(2, background=True, stream=True, request_id="r"))
        self.assertEqual(kinds(client.events()), ["created", "in_progress"])
        client.leave()
        self.door.clock.pump([1, 1])
        self.assertEqual(self.status("resp_r"), "incomplete")

    def test_the_events_of_a_background_can_be_had_again_from_any_on(self) -> None:
        client = Client(self.door).post(URL, ask(2, background=True, stream=True, request_id="r"))
        self.door.clock.pump([1, 1])
        found = client.events()
        again = Client(self.door)
        for query, first in (("", 0), ("&starting_after=0", 1), ("&starting_after=5", 6)):
            again.channel.dataReceived(b"GET %b/resp_r?stream=true%b HTTP/1.1\r\n\r\n" % (URL.encode(), query.encode()))
            self.assertEqual(again.events(), found[first:])

    def test_a_listener_hears_that_its_response_was_cancelled_by_the_end_of_the_connection(self) -> None:
        client = Client(self.door).post(URL, ask(2, background=True, stream=True, request_id="r"))
        self.door.ask("POST", f"{URL}/resp_r/cancel")
        self.assertTrue(client.transport.disconnecting)
        self.flushLoggedErrors()

    def test_a_background_that_fails_says_so(self) -> None:
        id = self.door.post(URL, ask(2, background=True)).json()["id"]
        self.patch(self.door.rank.pacer, "gap", lambda: 1 // 0)
        self.door.clock.advance(1)
        self.assertEqual(self.status(id), "failed")
        self.flushLoggedErrors(ZeroDivisionError)

    def test_only_a_background_is_streamed_again(self) -> None:
        client = Client(self.door).post(URL, ask(1, request_id="r"))
        self.door.clock.advance(1)
        self.assertEqual(client.status(), 200)
        heard = self.door.ask("GET", f"{URL}/resp_r?stream=true")
        self.assertEqual(heard.fault()[2], "Unknown response_id: resp_r (parameter=response_id, value=resp_r)")

    def test_a_query_of_the_wrong_types_is_refused(self) -> None:
        message = self.door.ask("GET", f"{URL}/x?stream=maybe&starting_after=one").fault()[2]
        for error in QUERY_ERROR:
            self.assertIn(error, message)
