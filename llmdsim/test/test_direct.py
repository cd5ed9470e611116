from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from llmdsim.simulated import Simulated
from llmdsim.test.doors import Door

HI = [{"role": "user", "content": "hi you"}]


class Dated(Simulated):
    """A tokenizer with a template that shows one of its variables."""

    def render(self, *chat: Any, date: str = "", **template_kwargs: Any) -> str:
        return date


class TokenizeTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.door = Door("--max-model-len", "256")

    def tokens(self, body: dict[str, Any]) -> Any:
        return self.door.post("/tokenize", body).json()

    def test_a_prompt_is_counted_and_cut(self) -> None:
        ids = list(self.door.tokenizer.encode("hello big world").ids)
        answer = {"count": 3, "max_model_len": 256, "tokens": ids, "token_strs": None}
        found = self.tokens({"prompt": "hello big world"})
        self.assertEqual((found, list(found)), (answer, list(answer)))

    def test_the_texts_of_tokens_are_told_when_asked_for(self) -> None:
        found = self.tokens({"prompt": "hello, world", "return_token_strs": True})
        self.assertEqual(found["token_strs"], ["hello", ", ", "world"])

    def test_an_empty_prompt_has_no_tokens(self) -> None:
        self.assertEqual(self.tokens({"model": "m", "prompt": ""})["count"], 0)

    def test_a_chat_goes_through_the_template_as_a_completion_of_it_does(self) -> None:
        found = self.tokens({"model": "m", "messages": HI})
        self.assertEqual(found["tokens"], list(self.door.tokenizer.encode("### user: hi you\n").ids))
        usage = self.door.post("/v1/chat/completions", {"messages": HI, "max_tokens": 1}).json()["usage"]
        self.assertEqual(usage["prompt_tokens"], found["count"])

    def test_a_chat_is_templated_with_the_servers_own_variables_as_a_completion_of_it_is(self) -> None:
        variables = '{"date": "the first of May"}'
        door = Door("--default-chat-template-kwargs", variables, tokenizer=Dated())
        usage = door.post("/v1/chat/completions", {"messages": HI, "max_tokens": 1}).json()["usage"]
        self.assertEqual(door.post("/tokenize", {"messages": HI}).json()["count"], usage["prompt_tokens"])
        self.assertEqual(usage["prompt_tokens"], 4)

    def test_a_prompt_that_is_null_or_of_another_type_leaves_the_chat(self) -> None:
        count = self.tokens({"messages": HI})["count"]
        for prompt in (None, 5, ["hi"]):
            heard = self.door.post("/tokenize", {"messages": HI, "prompt": prompt})
            self.assertEqual(self.flushLoggedErrors(), [])
            self.assertEqual((heard.status, heard.json().get("count")), (200, count), prompt)

    def test_a_prompt_longer_than_the_context_window_is_counted(self) -> None:
        self.assertEqual(self.tokens({"prompt": "word " * 300})["count"], 300)

    def test_text_of_every_script_comes_back_whole(self) -> None:
        for text in ("naïve — 漢字 🙂\n\ttab", " leading", "`|`", "\x00"):
            ids = self.tokens({"prompt": text})["tokens"]
            self.assertEqual(self.door.post("/detokenize", {"tokens": ids}).json(), {"prompt": text})

    def test_unknown_tokens_have_no_text(self) -> None:
        self.assertEqual(self.door.post("/detokenize", {"tokens": [1, 2**63 - 1]}).json(), {"prompt": ""})
        self.assertEqual(self.door.post("/detokenize", {"tokens": []}).json(), {"prompt": ""})

    def test_a_negative_token_is_refused(self) -> None:
        status, kind, _, param = self.door.post("/detokenize", {"tokens": [1, -1]}).fault()
        self.assertEqual((status, kind, param), (400, "Bad Request", "body.tokens.1"))

    def test_an_unknown_model_is_vllms_404(self) -> None:
        fault = 404, "NotFoundError", "The model `nope` does not exist. Valid aliases: m.", "model"
        for path, body in (("/tokenize", {"prompt": "hi"}), ("/tokenize", {"messages": HI}), ("/detokenize", {})):
            self.assertEqual(self.door.post(path, {"tokens": [1], **body, "model": "nope"}).fault(), fault)

    def test_an_adapter_has_the_tokens_of_its_base(self) -> None:
        self.door.rank.adapters.load("l1", "/adapters/l1")
        self.assertEqual(self.tokens({"model": "l1", "prompt": "hi"})["count"], 1)

    def test_a_body_without_prompt_and_messages_misses_both(self) -> None:
        status, kind, message, param = self.door.post("/tokenize", {"model": "m"}).fault()
        self.assertEqual((status, kind, param), (400, "Bad Request", "body.prompt"))
        self.assertTrue(message.startswith("2 validation errors:\n"))
        self.assertIn("'loc': 'body.messages'", message)

    def test_tokenizing_takes_no_seat(self) -> None:
        door = Door("--max-num-seqs", "1", "--max-waiting-queue-length", "0", "--time-to-first-token", "1s")
        self.assertEqual([door.post("/tokenize", {"prompt": "hi"}).status for _ in range(3)], [200] * 3)
        self.assertEqual((door.rank.open, door.clock.getDelayedCalls()), (0, []))
