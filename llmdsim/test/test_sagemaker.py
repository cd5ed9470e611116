from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from llmdsim.test.doors import Client, Door, Heard, chat, text


class InvocationsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.door = Door("--strict")

    def invoke(self, body: Any, door: Door | None = None) -> Heard:
        return (door or self.door).post("/invocations", body)

    def test_messages_make_a_chat(self) -> None:
        self.assertEqual(self.invoke(chat(1)).json()["object"], "chat.completion")

    def test_a_prompt_makes_a_completion(self) -> None:
        self.assertEqual(self.invoke(text(1)).json()["object"], "text_completion")

    def test_an_input_makes_embeddings_where_they_are_served(self) -> None:
        heard = self.invoke({"model": "m", "input": "hi"}, Door())
        self.assertEqual(heard.json()["object"], "list")

    def test_a_chat_may_be_streamed(self) -> None:
        client = Client(self.door).post("/invocations", chat(1, stream=True))
        self.assertEqual(client.events()[-1], "[DONE]")

    def test_a_body_without_prompt_is_a_completion_where_nothing_else_is_served(self) -> None:
        message = "Either prompt or prompt_embeds must be provided and non-empty. (parameter=prompt)"
        self.assertEqual(self.invoke({"model": "m"}).fault(), (400, "BadRequestError", message, "prompt"))

    def test_a_body_of_no_shape_is_refused(self) -> None:
        names = "['ChatCompletionRequest', 'CompletionRequest']"
        message = f"Cannot find suitable handler for request. Expected one of: {names}"
        self.assertEqual(self.invoke([1]).fault(), (400, "BadRequestError", message, None))

    def test_bad_json_is_said_in_pythons_words(self) -> None:
        heard = self.door.ask("POST", "/invocations", data=b"{", headers={"Content-Type": "application/json"})
        message = "JSON decode error: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"
        self.assertEqual(heard.fault(), (400, "Bad Request", message, None))

    def test_another_media_type_is_refused(self) -> None:
        heard = self.door.ask("POST", "/invocations", data=b"{}")
        self.assertIn("Unsupported Media Type", heard.fault()[2])
