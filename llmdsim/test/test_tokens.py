"""The routes of tokens in and tokens out, and what opens them."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from llmdsim.test.doors import DONE, Client, Door
from llmdsim.web.tokens import CLOSED, GATED

GENERATE, ABORT = "/inference/v1/generate", "/inference/v1/abort_requests"
HI = [{"role": "user", "content": "hi you"}]


def question(tokens: int, **fields: Any) -> dict[str, Any]:
    """A body whose answer has exactly so many tokens."""
    return {"token_ids": [1, 2], "sampling_params": {"max_tokens": tokens, "ignore_eos": True}, **fields}


class GateTests(SynchronousTestCase):
    def test_a_strict_server_keeps_them_closed_in_vllms_words(self) -> None:
        door = Door("--strict")
        for path in GATED:
            self.assertEqual(door.post(path, {}).fault(), (403, "PermissionDeniedError", CLOSED, None), path)

    def test_either_flag_opens_them(self) -> None:
        for flag in ("--enable-scale-out", "--tokens-only"):
            self.assertEqual(Door("--strict", flag).post(GENERATE, question(1)).status, 200)

    def test_aborting_outside_of_inference_needs_tokens_only_or_the_development_mode(self) -> None:
        body = {"request_ids": ["x"]}
        opened = (Door("--strict", "--tokens-only"), Door("--strict", environ={"VLLM_SERVER_DEV_MODE": "1"}), Door())
        self.assertEqual([door.post("/abort_requests", body).status for door in opened], [200] * 3)
        self.assertEqual(Door("--strict", "--enable-scale-out").post("/abort_requests", body).status, 404)

    def test_a_strict_server_tells_of_its_tokenizer_where_that_is_enabled(self) -> None:
        doors = Door("--strict"), Door("--strict", "--enable-tokenizer-info-endpoint"), Door()
        self.assertEqual([door.ask("GET", "/tokenizer_info").status for door in doors], [404, 200, 200])


class GenerateTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.door = Door("--max-model-len", "64")

    def test_ids_are_answered_with_ids(self) -> None:
        answer = self.door.post(GENERATE, question(3)).json()
        self.assertEqual(len(answer["choices"][0]["token_ids"]), 3)
        self.assertEqual((answer["model"], answer["usage"]["prompt_tokens"]), ("m", 2))

    def test_the_id_is_the_headers_or_else_the_bodys(self) -> None:
        found = [
            self.door.post(GENERATE, question(1, request_id="b"), X_Request_Id="h"),
            self.door.post(GENERATE, question(1, request_id="b")),
        ]
        self.assertEqual([heard.json()["request_id"] for heard in found], ["generate-tokens-h", "generate-tokens-b"])

    def test_a_stream_says_what_a_whole_answer_says(self) -> None:
        body = question(5, output_mode="text")
        body["sampling_params"]["seed"] = 1
        whole = self.door.post(GENERATE, body).json()["choices"][0]
        found = Client(self.door).post(GENERATE, {**body, "stream": True}).events()
        self.assertEqual(found.pop(), DONE)
        choices = [event["choices"][0] for event in found]
        self.assertEqual([id for choice in choices for id in choice["token_ids"]], whole["token_ids"])
        self.assertEqual("".join(choice["text"] for choice in choices), whole["text"])

    def test_what_was_rendered_can_be_generated(self) -> None:
        for path, body in (
            ("/v1/chat/completions", {"messages": HI, "max_tokens": 4}),
            ("/v1/completions", {"prompt": "hi you", "max_tokens": 4}),
        ):
            rendered = self.door.post(f"{path}/render", body).json()
            one = rendered[0] if isinstance(rendered, list) else rendered
            answer = self.door.post(GENERATE, one)
            self.assertEqual(answer.status, 200, answer.body)
            usage = self.door.post(path, body).json()["usage"]
            self.assertEqual(answer.json()["usage"]["prompt_tokens"], usage["prompt_tokens"])

    def test_a_prompt_beyond_the_context_window_is_refused_before_a_seat_is_taken(self) -> None:
        status, _, message, _ = self.door.post(GENERATE, question(1) | {"token_ids": [1] * 65}).fault()
        self.assertEqual((status, message), (400, "Input length (65) exceeds model's maximum context length (64)."))
        self.assertEqual(self.door.rank.open, 0)


class AbortTests(SynchronousTestCase):
    def test_an_aborted_request_ends_at_once(self) -> None:
        door = Door("--inter-token-latency", "1s")
        client = Client(door).post(GENERATE, question(9, stream=True, request_id="r"))
        heard = door.post(ABORT, {"request_ids": ["generate-tokens-r", 5]})
        self.assertEqual((heard.status, heard.body, heard.header("content-type")), (200, b"", None))
        last, done = client.events()[-2:]
        self.assertEqual((last["choices"][0]["finish_reason"], done), ("abort", DONE))
        self.assertEqual((door.rank.open, door.rank.scheduler.running), (0, 0))

    def test_ids_that_nobody_has_are_no_error(self) -> None:
        self.assertEqual(Door().post(ABORT, {"request_ids": ["x"]}).status, 200)

    def test_a_body_without_ids_is_refused(self) -> None:
        bodies: list[Any] = [{}, [], {"request_ids": None}]
        for body in bodies:
            fault = Door().post(ABORT, body).fault()
            self.assertEqual(fault, (400, "Bad Request", "Missing 'request_ids' in request body", None))


class RenderTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.door = Door("--max-model-len", "64")

    def test_a_chat_is_rendered_as_it_is_tokenized(self) -> None:
        ids = self.door.post("/tokenize", {"messages": HI}).json()["tokens"]
        self.assertEqual(self.door.post("/v1/chat/completions/render", {"messages": HI}).json()["token_ids"], ids)

    def test_messages_are_rendered_as_the_chat_that_they_are(self) -> None:
        chat = self.door.post("/v1/chat/completions/render", {"messages": HI, "max_tokens": 3}).json()
        body = {"model": "m", "messages": HI, "max_tokens": 3}
        found = self.door.post("/v1/messages/render", body).json()
        for name in ("token_ids", "sampling_params", "parse_context"):
            self.assertEqual(found[name], chat[name])

    def test_a_completion_is_rendered_to_a_list_with_an_id_for_each_prompt(self) -> None:
        one = self.door.post("/v1/completions/render", {"prompt": "a", "request_id": "r"}).json()
        self.assertEqual([each["request_id"] for each in one], ["cmpl-r"])
        two = self.door.post("/v1/completions/render", {"prompt": [[1, 2], [3]]}).json()
        self.assertEqual([each["token_ids"] for each in two], [[1, 2], [3]])
        self.assertEqual(len({each["request_id"] for each in two}), 2)

    def test_the_context_window_and_the_model_are_checked(self) -> None:
        path = "/v1/completions/render"
        status, _, message, _ = self.door.post(path, {"prompt": [1] * 65}).fault()
        self.assertEqual(status, 400)
        self.assertTrue(message.startswith("This model's maximum context length is 64 tokens."))
        self.assertEqual(self.door.post(path, {"prompt": "a", "model": "nope"}).status, 404)
        self.door.rank.adapters.load("l1", "/l1")
        self.assertEqual(self.door.post(path, {"prompt": "a", "model": "l1"}).status, 400)

    def test_rendering_takes_no_seat_and_no_chance(self) -> None:
        door, other = Door("--max-num-seqs", "1", "--time-to-first-token", "1s"), Door()
        self.assertEqual(door.post("/v1/completions/render", {"prompt": "a", "n": 3}).status, 200)
        self.assertEqual((door.rank.open, door.clock.getDelayedCalls()), (0, []))
        other.post("/v1/completions/render", {"prompt": "a"})
        asked = [each.post("/v1/completions", {"prompt": "a"}).json()["choices"] for each in (other, Door())]
        self.assertEqual(*asked)

    def test_generated_tokens_come_back_as_a_chat_and_as_a_completion(self) -> None:
        tokens = self.door.tokenizer.encode("so it is")
        choice = {"index": 0, "token_ids": [*tokens.ids, self.door.tokenizer.eos[0]], "finish_reason": "stop"}
        body = {"generate_response": {"request_id": "generate-tokens-chatcmpl-r", "choices": [choice]}}
        chat = self.door.post("/v1/chat/completions/derender", body).json()
        self.assertEqual((chat["id"], chat["choices"][0]["message"]["content"]), ("chatcmpl-r", "so it is"))
        text = self.door.post("/v1/completions/derender", body).json()
        self.assertEqual((text["object"], text["choices"][0]["text"]), ("text_completion", "so it is"))

    def test_the_chat_that_was_asked_lets_parsers_see_its_tokens(self) -> None:
        door = Door("--reasoning-parser", "qwen3")
        ids = list(door.tokenizer.encode("<think>hm</think>so").ids)
        answer = {"choices": [{"index": 0, "token_ids": ids}]}
        body: dict[str, Any] = {"generate_response": answer, "chat_request": {"messages": HI}}
        message = door.post("/v1/chat/completions/derender", body).json()["choices"][0]["message"]
        self.assertEqual((message["reasoning"], message["content"]), ("hm", "so"))
        del body["chat_request"]
        self.assertEqual(door.post("/v1/chat/completions/derender", body).status, 400)


class InfoTests(SynchronousTestCase):
    def test_tokenizer_info_has_vllms_fields_and_the_end_token(self) -> None:
        door = Door()
        info = door.ask("GET", "/tokenizer_info").json()
        names = "tokenizer_class eos_token pad_token model_max_length chat_template truncation_side name_or_path"
        names += " is_local local_files_only added_tokens_decoder backend"
        self.assertEqual(list(info), names.split())
        self.assertEqual(info["added_tokens_decoder"], {str(door.tokenizer.eos[0]): info["eos_token"]})
