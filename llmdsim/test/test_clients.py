"""The daemon as clients of vLLM meet it: the official ``openai`` package and plain httpx, each over a real socket."""

from __future__ import annotations

import atexit
import json
import time
from functools import cache
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from llmdsim.test.doors import DONE, events, shared, text, until

try:
    import httpx
    import openai
    import pydantic
except ImportError:
    httpx = openai = pydantic = None  # type: ignore[assignment]

MISSING = None if openai else "the openai package is not installed"
HI: Any = [{"role": "user", "content": "one two three"}]
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOLS: Any = [{"type": "function", "function": {"name": "weather", "description": "tells it", "parameters": SCHEMA}}]
NAMED: Any = {"type": "function", "function": {"name": "weather"}}


def place() -> Any:
    """A type of a client's own; pydantic comes with the openai package."""
    return pydantic.create_model("Place", city=(str, ...), n=(int, ...))


@cache
def client(port: int) -> Any:
    """The client of a shared daemon, which all tests share too: to make one takes longer than to use it."""
    made = openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="unused", max_retries=0, timeout=20)
    atexit.register(made.close)
    return made


class OpenAITests(SynchronousTestCase):
    skip = MISSING
    arguments = "--mode", "echo", "--served-model-name", "base", "alias", "--max-model-len", "64"

    def setUp(self) -> None:
        self.client = client(shared(*self.arguments))

    def test_models_are_listed(self) -> None:
        self.assertEqual([model.id for model in self.client.models.list()], ["base", "alias"])

    def test_a_chat_is_answered(self) -> None:
        answer = self.client.chat.completions.create(model="alias", messages=HI, max_tokens=9)
        self.assertEqual((answer.model, answer.object), ("base", "chat.completion"))
        self.assertEqual(
            (answer.choices[0].message.content, answer.choices[0].finish_reason), ("one two three", "stop")
        )
        self.assertEqual(answer.usage.completion_tokens, 4)

    def test_n_choices_are_answered(self) -> None:
        answer = self.client.chat.completions.create(model="base", messages=HI, max_tokens=9, n=2)
        found = [(choice.index, choice.message.content) for choice in answer.choices]
        self.assertEqual(found, [(0, "one two three"), (1, "one two three")])

    def test_a_chat_is_streamed_with_its_usage(self) -> None:
        create = self.client.chat.completions.create
        chunks = list(create(model="base", messages=HI, stream=True, stream_options={"include_usage": True}))
        self.assertEqual(chunks[0].choices[0].delta.role, "assistant")
        said = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices]
        self.assertEqual(said, ["", "one ", "two ", "three", ""])
        self.assertEqual(chunks[-2].choices[0].finish_reason, "stop")
        self.assertEqual((chunks[-1].choices, chunks[-1].usage.completion_tokens), ([], 4))

    def test_the_stream_helper_puts_a_chat_together(self) -> None:
        with self.client.chat.completions.stream(model="base", messages=HI, max_tokens=9) as stream:
            said = [event.delta for event in stream if event.type == "content.delta"]
            final = stream.get_final_completion()
        self.assertEqual("".join(said), "one two three")
        self.assertEqual(final.choices[0].message.content, "one two three")

    def test_log_probabilities_are_told_of_each_token(self) -> None:
        options = {"model": "base", "messages": HI, "logprobs": True, "top_logprobs": 2}
        whole = self.client.chat.completions.create(**options).choices[0].logprobs.content
        with self.client.chat.completions.stream(**options) as stream:
            streamed = stream.until_done().get_final_completion().choices[0].logprobs.content
        for told in (whole, streamed):
            self.assertEqual([each.token for each in told][:3], ["one ", "two ", "three"])
            self.assertEqual({len(each.top_logprobs) for each in told}, {2})

    def test_a_text_is_completed_and_streamed(self) -> None:
        create = self.client.completions.create
        answer = create(model="base", prompt=["one two", "three"], max_tokens=9)
        self.assertEqual([choice.text for choice in answer.choices], ["one two", "three"])
        chunks = create(model="base", prompt="one two", max_tokens=9, stream=True)
        self.assertEqual("".join(chunk.choices[0].text for chunk in chunks), "one two")

    def test_fields_of_vllm_travel_in_the_extra_body(self) -> None:
        extra = {"request_id": "mine", "return_token_ids": True, "top_k": 5}
        answer = self.client.chat.completions.create(model="base", messages=HI, max_tokens=9, extra_body=extra)
        self.assertEqual((answer.id, len(answer.choices[0].token_ids)), ("chatcmpl-mine", 4))

    def test_refusals_are_the_packages_own_exceptions(self) -> None:
        create = self.client.chat.completions.create
        for body, kind, param in (
            ({"model": "nope"}, openai.NotFoundError, "model"),
            ({"max_tokens": 65}, openai.BadRequestError, "max_tokens"),
            ({"temperature": 3}, openai.BadRequestError, "temperature"),
            ({"model": "nope", "stream": True}, openai.NotFoundError, "model"),
        ):
            with self.assertRaises(kind) as raised:
                create(**{"model": "base", "messages": HI, **body})
            self.assertEqual(raised.exception.param, param)


class Made(SynchronousTestCase):
    """A client of a daemon that makes its answers up, the same ones in each run."""

    skip = MISSING
    arguments: tuple[str, ...] = ("--seed", "1")

    def setUp(self) -> None:
        self.client = client(shared(*self.arguments))

    def chat(self, **options: Any) -> Any:
        return self.client.chat.completions.create(model="m", messages=HI, **options).choices[0]

    def streamed(self, **options: Any) -> Any:
        with self.client.chat.completions.stream(model="m", messages=HI, **options) as stream:
            return stream.until_done().get_final_completion().choices[0]


class FormTests(Made):
    def test_required_and_named_tools_are_called_whole_and_streamed(self) -> None:
        for choice in ("required", NAMED):
            for ask in (self.chat, self.streamed):
                call = ask(tools=TOOLS, tool_choice=choice).message.tool_calls[0].function
                self.assertEqual((call.name, list(json.loads(call.arguments))), ("weather", ["city"]))

    def test_one_tool_is_called_where_no_two_may_be(self) -> None:
        for ask in (self.chat, self.streamed):
            answer = ask(tools=TOOLS, tool_choice="required", parallel_tool_calls=False)
            self.assertEqual(len(answer.message.tool_calls), 1)

    def test_an_answer_is_parsed_into_the_clients_own_type(self) -> None:
        answer = self.client.chat.completions.parse(model="m", messages=HI, response_format=place())
        self.assertIsInstance(answer.choices[0].message.parsed.city, str)
        self.assertIsInstance(self.streamed(response_format=place()).message.parsed.city, str)
        self.assertIsInstance(
            self.client.responses.parse(model="m", input="hi", text_format=place()).output_parsed.n, int
        )

    def test_vectors_are_the_same_as_numbers_and_as_base64(self) -> None:
        create = self.client.embeddings.create
        numbers = create(model="m", input=["a", "b"], encoding_format="float")
        self.assertEqual([each.index for each in numbers.data], [0, 1])
        decoded = create(model="m", input=["a", "b"])  # the package asks for base64
        for left, right in zip(numbers.data, decoded.data, strict=True):
            self.assertTrue(all(abs(a - b) < 1e-6 for a, b in zip(left.embedding, right.embedding, strict=True)))


class ThoughtTests(Made):
    arguments = ("--seed", "1", "--reasoning-parser", "qwen3")

    def test_a_thought_is_beside_the_content(self) -> None:
        self.assertTrue(self.chat().message.reasoning)
        chunks = self.client.chat.completions.create(model="m", messages=HI, stream=True)
        deltas = [chunk.choices[0].delta for chunk in chunks]
        kinds = [
            "reasoning" if getattr(delta, "reasoning", None) else "content" for delta in deltas if delta.content != ""
        ]
        self.assertEqual(kinds, sorted(kinds, reverse=True))
        self.assertEqual(set(kinds), {"reasoning", "content"})


class ResponseTests(Made):
    arguments = OpenAITests.arguments

    def test_a_response_is_made_kept_and_continued(self) -> None:
        made = self.client.responses.create(model="base", input="one two")
        self.assertEqual((made.output_text, made.status), ("one two", "completed"))
        self.assertEqual(self.client.responses.retrieve(made.id).output_text, "one two")
        after = self.client.responses.create(model="base", input="three", previous_response_id=made.id)
        self.assertEqual((after.output_text, after.previous_response_id), ("three", made.id))
        self.assertGreater(after.usage.input_tokens, made.usage.input_tokens)

    def test_a_response_is_streamed(self) -> None:
        with self.client.responses.stream(model="base", input="one two") as stream:
            kinds = [event.type for event in stream]
            self.assertEqual(stream.get_final_response().output_text, "one two")
        self.assertEqual((kinds[0], kinds[-1]), ("response.created", "response.completed"))

    def test_an_unknown_response_is_not_found(self) -> None:
        self.assertRaises(openai.NotFoundError, self.client.responses.retrieve, "resp_none")
        self.assertRaises(openai.NotFoundError, self.client.responses.cancel, "resp_none")


class SlowTests(SynchronousTestCase):
    skip = MISSING
    arguments = (
        *("--time-to-first-token", "200ms", "--inter-token-latency", "50ms"),
        *("--max-num-seqs", "1", "--max-waiting-queue-length", "0"),
    )

    def setUp(self) -> None:
        self.url = f"http://127.0.0.1:{shared(*self.arguments)}"

    def test_tokens_arrive_one_by_one(self) -> None:
        pieces: list[tuple[float, list[Any]]] = []
        began = time.monotonic()
        with self.stream(5) as response:
            headed = time.monotonic() - began
            for data in response.iter_raw():
                pieces.append((time.monotonic() - began, events(data)))
        # A busy machine may join two of them.
        self.assertEqual(sum(len(found) for _, found in pieces), 6)
        self.assertGreaterEqual(len(pieces), 3)
        self.assertEqual(pieces[-1][1][-1], DONE)
        first, *_, last = [at for at, _ in pieces]
        self.assertLess(headed, first - 0.05)
        self.assertGreaterEqual(round(first, 2), 0.2)
        self.assertGreaterEqual(round(last, 2), 0.4)

    def test_a_response_in_the_background_is_polled_and_cancelled(self) -> None:
        responses = client(shared(*self.arguments)).responses
        made = responses.create(model="m", input="hi", background=True)
        self.assertIn(made.status, ("queued", "in_progress"))
        self.assertIn(responses.retrieve(made.id).status, ("queued", "in_progress"))
        self.assertEqual(responses.cancel(made.id).status, "cancelled")
        until(self.idle)

    def stream(self, tokens: int) -> Any:
        """An open stream, which has the only seat once it is entered."""
        return httpx.stream("POST", f"{self.url}/v1/completions", json=text(tokens, stream=True), timeout=20)

    def complete(self, retries: int, **options: Any) -> Any:
        with openai.OpenAI(base_url=f"{self.url}/v1", api_key="unused", max_retries=retries, timeout=20) as mine:
            return mine.completions.create(model="m", prompt="hi", max_tokens=1, **options)

    def idle(self) -> bool:
        return (
            httpx.get(f"{self.url}/metrics").text.count('vllm:num_requests_running{engine="0",model_name="m"} 0.0') == 1
        )

    def test_a_full_server_is_a_rate_limit_error_until_the_stream_is_left(self) -> None:
        with self.stream(500):
            for stream in (False, True):
                with self.assertRaises(openai.RateLimitError) as raised:
                    self.complete(0, stream=stream)
                self.assertEqual(raised.exception.response.headers["retry-after"], "1")
        until(self.idle)
        self.assertEqual(self.complete(0).usage.completion_tokens, 1)

    def test_a_client_that_retries_after_a_second_gets_its_turn(self) -> None:
        with self.stream(2):
            self.assertEqual(self.complete(1).usage.completion_tokens, 1)

    def test_what_curl_sends_is_understood(self) -> None:
        data = json.dumps(text(1)).encode()
        headers = {"Content-Type": "application/json", "Accept": "*/*", "Expect": "100-continue"}
        answer = httpx.post(f"{self.url}/v1/completions", content=data, headers=headers, timeout=20)
        self.assertEqual(answer.json()["usage"]["completion_tokens"], 1)
