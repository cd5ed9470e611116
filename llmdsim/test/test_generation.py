from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from llmdsim.test.doors import Client, Door, chat, text
from llmdsim.test.support import WALL

CHAT = "/v1/chat/completions"
TEXT = "/v1/completions"
QUEUE_FULL = 429, "RateLimitError", "Failed to enqueue request, waiting requests queue is full", None


class WholeTests(SynchronousTestCase):
    def test_an_answer_comes_when_its_last_token_is_due(self) -> None:
        door = Door("--time-to-first-token", "250ms", "--inter-token-latency", "125ms")
        clients = [Client(door).post(CHAT, chat(5)), Client(door).post(TEXT, text(5))]
        door.clock.pump([0.25, 0.125, 0.125, 0.125, 0.124])
        self.assertEqual([client.status() for client in clients], [None, None])
        door.clock.advance(0.001)
        self.assertEqual([client.status() for client in clients], [200, 200])

    def test_created_is_when_the_request_came(self) -> None:
        door = Door("--time-to-first-token", "5s")
        client = Client(door).post(CHAT, chat(1))
        door.clock.advance(5)
        self.assertIn(b'"created":%d,' % WALL, client.heard())

    def test_n_choices_are_in_order_and_share_one_prompt(self) -> None:
        answer = Door().post(CHAT, chat(3, n=3)).json()
        self.assertEqual([choice["index"] for choice in answer["choices"]], [0, 1, 2])
        usage = answer["usage"]
        self.assertEqual(usage["completion_tokens"], 9)
        self.assertEqual(usage["total_tokens"], usage["prompt_tokens"] + 9)

    def test_choices_of_several_prompts_are_in_the_order_of_the_prompts(self) -> None:
        for prompts, answers in ((["a", "b b"], ["a", "a", "b b", "b b"]), ([[1], [2, 3]], ["1", "1", "2,3", "2,3"])):
            answer = Door("--mode", "echo").post(TEXT, {"prompt": prompts, "max_tokens": 9, "n": 2}).json()
            self.assertEqual([choice["index"] for choice in answer["choices"]], [0, 1, 2, 3])
            self.assertEqual([choice["text"] for choice in answer["choices"]], answers)
            self.assertEqual(answer["usage"]["prompt_tokens"], 3)

    def test_a_bug_is_logged_once_and_told_to_nobody(self) -> None:
        door = Door()
        self.patch(door.rank.pacer, "gap", lambda: 1 // 0)
        heard = door.post(CHAT, chat(2))
        self.assertEqual(heard.fault(), (500, "InternalServerError", "Internal server error", None))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual((door.rank.scheduler.running, door.rank.open), (0, 0))

    def test_900_requests_at_once_for_one_seat_all_finish_in_their_order(self) -> None:
        door = Door("--max-num-seqs", "1", "--time-to-first-token", "10ms")
        finished: list[int] = []
        clients = [Client(door).post(TEXT, text(1), f"X-Request-Id: {i}") for i in range(900)]
        waiting = dict(enumerate(clients))
        for _ in range(900):
            door.clock.pump([0.01, 0])
            for i in [i for i, client in waiting.items() if client.writes][:2]:
                self.assertEqual(waiting.pop(i).status(), 200)
                finished.append(i)
        self.assertEqual(finished, list(range(900)))
        self.assertEqual((door.rank.scheduler.running, door.rank.scheduler.waiting, door.rank.open), (0, 0, 0))


class RefusedTests(SynchronousTestCase):
    def test_an_unknown_model_is_vllms_404(self) -> None:
        door = Door("--served-model-name", "base", "alias2")
        fault = 404, "NotFoundError", "The model `nope` does not exist. Valid aliases: base, alias2.", "model"
        for path, body in ((CHAT, chat(1)), (TEXT, text(1)), (TEXT, text(1, stream=True))):
            self.assertEqual(door.post(path, {**body, "model": "nope"}).fault(), fault)

    def test_an_alias_and_no_model_at_all_are_answered_as_the_first_served_name(self) -> None:
        door = Door("--served-model-name", "base", "alias2")
        for model in ("base", "alias2", None):
            self.assertEqual(door.post(TEXT, {**text(1), "model": model}).json()["model"], "base")
        self.assertEqual(door.post(TEXT, {"prompt": "hi"}).json()["model"], "base")

    def test_an_adapter_answers_under_its_own_name(self) -> None:
        door = Door("--lora-modules", "l1=/adapters/l1")
        self.assertEqual(door.post(TEXT, {**text(1), "model": "l1"}).json()["model"], "l1")

    def test_a_full_queue_is_429_for_streams_too(self) -> None:
        door = Door("--max-num-seqs", "1", "--max-waiting-queue-length", "0", "--time-to-first-token", "1s")
        Client(door).post(CHAT, chat(1))
        for body in (chat(1), chat(1, stream=True)):
            heard = door.post(CHAT, body)
            self.assertEqual(heard.fault(), QUEUE_FULL)
            self.assertEqual((heard.header("retry-after"), heard.header("content-type")), ("1", "application/json"))

    def test_too_many_choices_for_the_queue_are_refused_together_and_leave_nothing(self) -> None:
        door = Door("--max-num-seqs", "2", "--max-waiting-queue-length", "1", "--time-to-first-token", "1s")
        self.assertEqual(door.post(CHAT, chat(1, n=4, stream=True)).fault(), QUEUE_FULL)
        self.assertEqual((door.rank.scheduler.running, door.rank.scheduler.waiting, door.rank.open), (0, 0, 0))
        client = Client(door).post(CHAT, chat(1, n=2))
        door.clock.pump([0, 1])
        self.assertEqual(client.status(), 200)

    def test_more_than_the_house_may_hold_is_vllms_503(self) -> None:
        door = Door("--max-num-queued-reqs", "1", "--time-to-first-token", "1s")
        Client(door).post(CHAT, chat(1))
        status, kind, message, _ = door.post(CHAT, chat(1, stream=True)).fault()
        self.assertEqual((status, kind), (503, "Service Unavailable"))
        self.assertTrue(message.startswith("The engine is currently busy and cannot accept new requests."))

    def test_a_draining_server_answers_503_and_finishes_what_it_began(self) -> None:
        door = Door("--time-to-first-token", "1s")
        open_ones = [Client(door).post(CHAT, chat(1)), Client(door).post(CHAT, chat(1, stream=True))]
        drained = door.rank.drain(30)
        for body in (chat(1), chat(1, stream=True)):
            refused = door.post(CHAT, body).fault()
            self.assertEqual(refused, (503, "ServiceUnavailableError", "server is shutting down", None))
        self.assertEqual(door.ask("GET", "/health").status, 200)
        self.assertNoResult(drained)
        door.clock.advance(1)
        self.assertEqual([client.status() for client in open_ones], [200, 200])
        self.successResultOf(drained)

    def test_a_body_over_the_limit_is_413(self) -> None:
        client = Client(Door("--max-request-body-size-mb", "1")).post(TEXT, {"prompt": "x" * (1 << 20)})
        heard = client.heard()
        self.assertTrue(heard.startswith(b"HTTP/1.1 413 "), heard)
        self.assertIn(b'"message":"Request body is larger than 1048576 bytes","type":"BadRequestError"', heard)

    def test_a_body_just_within_the_limit_is_read(self) -> None:
        door = Door("--max-request-body-size-mb", "1", "--max-model-len", "500000")
        body = text(1, prompt="")
        room = (1 << 20) - len(b'{"model": "m", "prompt": "", "max_tokens": 1, "ignore_eos": true}')
        self.assertEqual(Client(door).post(TEXT, {**body, "prompt": "x" * room}).status(), 200)

    def test_a_body_that_is_no_json_is_vllms_400(self) -> None:
        door = Door()
        kinds = {"Content-Type": "application/json"}
        status, kind, message, param = door.ask("POST", CHAT, data=b'{"model": "m", x', headers=kinds).fault()
        self.assertEqual((status, kind, param), (400, "Bad Request", "body.15"))
        self.assertTrue(message.startswith("1 validation error:\n  {'type': 'json_invalid', 'loc': 'body.15',"))
        self.assertEqual(door.ask("POST", CHAT, headers=kinds).fault()[3], "body")

    def test_curl_without_a_content_type_is_told_so(self) -> None:
        kinds = {"Content-Type": "application/x-www-form-urlencoded"}
        text = "1 validation error:\n  Unsupported Media Type: Only 'application/json' is allowed"
        fault = Door().ask("POST", CHAT, data=b"{}", headers=kinds).fault()
        self.assertEqual(fault, (400, "Bad Request", text, None))


class HeaderTests(SynchronousTestCase):
    def id_of(self, door: Door, body: dict[str, Any], **headers: str) -> str:
        return str(door.post(TEXT, body, **headers).json()["id"])

    def test_the_request_id_is_the_headers_then_the_bodys_then_our_own(self) -> None:
        door = Door()
        self.assertEqual(self.id_of(door, text(1), X_Request_Id="r1"), "cmpl-r1")
        self.assertEqual(self.id_of(door, text(1, request_id="r2")), "cmpl-r2")
        self.assertEqual(self.id_of(door, text(1, request_id="r2"), X_Request_Id="r1"), "cmpl-r1")
        self.assertRegex(self.id_of(door, text(1)), r"^cmpl-[0-9a-f]{16}$")
        self.assertNotEqual(self.id_of(door, text(1)), self.id_of(door, text(1)))

    def test_one_id_may_be_used_by_two_requests_at_once(self) -> None:
        door = Door("--time-to-first-token", "1s")
        clients = [Client(door).post(CHAT, chat(1), "X-Request-Id: twin") for _ in range(2)]
        door.clock.advance(1)
        self.assertEqual([client.status() for client in clients], [200, 200])

    def test_a_header_that_is_no_text_is_no_bug(self) -> None:
        door = Door("--enable-request-id-headers")
        for name in ("X-Request-Id", "X-data-parallel-rank", "Content-Type"):
            heard = door.ask("POST", TEXT, json=text(1), headers={name: b"\xff"})
            self.assertEqual(self.flushLoggedErrors(), [])
            self.assertIn(heard.status, (200, 400), name)

    def test_the_long_headers_of_a_gateway_are_read(self) -> None:
        for headers in (["X-Forwarded-Client-Cert: " + "a" * 20000], [f"X-{i}: {'a' * 500}" for i in range(60)]):
            self.assertEqual(Client(Door()).post(TEXT, text(1), *headers).status(), 200)

    def test_the_request_id_is_sent_back_where_the_flag_is_set(self) -> None:
        door = Door("--enable-request-id-headers")
        for body in (text(1), text(1, stream=True), {"model": "nope"}):
            self.assertEqual(door.post(TEXT, body, X_Request_Id="r1").header("x-request-id"), "r1")
            self.assertRegex(door.post(TEXT, body).header("x-request-id") or "", "^[0-9a-f]{32}$")
        self.assertIsNone(Door().post(TEXT, text(1), X_Request_Id="r1").header("x-request-id"))

    def test_the_pod_and_its_port_are_named_where_the_environment_knows_them(self) -> None:
        door = Door("--port", "8123", environ={"POD_NAME": "pod-7", "POD_NAMESPACE": "ns"})
        for body in (text(1), text(1, stream=True)):
            heard = door.post(TEXT, body)
            pod = [heard.header(f"x-inference-{name}") for name in ("pod", "port", "namespace")]
            self.assertEqual(pod, ["pod-7", "8123", "ns"])
        self.assertIsNone(Door().post(TEXT, text(1)).header("x-inference-pod"))

    def test_a_rank_that_is_not_there_is_refused(self) -> None:
        door = Door("--data-parallel-size", "2")
        for asked in ("2", "-1"):
            message = f"data_parallel_rank {asked} is out of range [0, 2)."
            refused = door.post(TEXT, text(1), X_data_parallel_rank=asked).fault()
            self.assertEqual(refused, (400, "BadRequestError", message, None))
        self.assertEqual(door.post(TEXT, text(1), X_data_parallel_rank="1").status, 200)
