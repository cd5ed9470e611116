"""The daemon as the official ``anthropic`` package meets it, over a real socket."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from llmdsim.test.doors import shared

try:
    import anthropic
except ImportError:
    anthropic = None  # type: ignore[assignment, unused-ignore]

HI: Any = [{"role": "user", "content": "one two three"}]
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOLS: Any = [{"name": "weather", "description": "tells it", "input_schema": SCHEMA}]


class Case(SynchronousTestCase):
    """A client of a daemon with these arguments."""

    skip = None if anthropic else "the anthropic package is not installed"
    arguments: tuple[str, ...] = ("--seed", "1")

    def setUp(self) -> None:
        url = f"http://127.0.0.1:{shared(*self.arguments)}"
        self.client: Any = anthropic.Anthropic(base_url=url, api_key="unused", max_retries=0, timeout=20)
        self.addCleanup(self.client.close)

    def say(self, **options: Any) -> Any:
        return self.client.messages.create(**{"model": "m", "max_tokens": 200, "messages": HI, **options})

    def stream(self, **options: Any) -> tuple[list[str], Any]:
        """The kinds of events of a stream, and the message that the package makes of them."""
        with self.client.messages.stream(**{"model": "m", "max_tokens": 200, "messages": HI, **options}) as stream:
            return [event.type for event in stream], stream.get_final_message()


class MessageTests(Case):
    arguments = ("--mode", "echo")

    def test_a_message_is_answered(self) -> None:
        answer = self.say(system="be brief")
        self.assertEqual([(block.type, block.text) for block in answer.content], [("text", "one two three")])
        self.assertEqual((answer.role, answer.model, answer.stop_reason), ("assistant", "m", "end_turn"))
        self.assertEqual(answer.usage.output_tokens, 4)

    def test_a_message_is_streamed(self) -> None:
        kinds, answer = self.stream()
        self.assertEqual((kinds[0], kinds[-1]), ("message_start", "message_stop"))
        self.assertEqual((answer.content[0].text, answer.stop_reason), ("one two three", "end_turn"))

    def test_a_limit_is_the_reason_to_stop(self) -> None:
        self.assertEqual(self.say(max_tokens=2).stop_reason, "max_tokens")
        self.assertEqual(self.stream(max_tokens=2)[1].stop_reason, "max_tokens")

    def test_tokens_are_counted_as_the_answer_counts_them(self) -> None:
        counted = self.client.messages.count_tokens(model="m", messages=HI).input_tokens
        self.assertEqual(counted, self.say().usage.input_tokens)

    def test_models_are_listed(self) -> None:
        self.assertEqual([model.id for model in self.client.models.list()], ["m"])

    def test_refusals_are_the_packages_own_exceptions(self) -> None:
        for options, kind in (
            ({"model": "nope"}, anthropic.NotFoundError),
            ({"max_tokens": 0}, anthropic.BadRequestError),
            ({"max_tokens": 100000}, anthropic.BadRequestError),
        ):
            self.assertRaises(kind, self.say, **options)
            self.assertRaises(kind, self.stream, **options)


class ToolTests(Case):
    def test_a_tool_is_called(self) -> None:
        for choice in ({"type": "any"}, {"type": "tool", "name": "weather"}):
            for answer in (
                self.say(tools=TOOLS, tool_choice=choice),
                self.stream(tools=TOOLS, tool_choice=choice)[1],
            ):
                (call, *_) = answer.content
                self.assertEqual((answer.stop_reason, call.type, call.name), ("tool_use", "tool_use", "weather"))
                self.assertIsInstance(call.input["city"], str)

    def test_no_tool_is_called_where_none_is_allowed(self) -> None:
        answer = self.say(tools=TOOLS, tool_choice={"type": "none"})
        self.assertEqual([block.type for block in answer.content], ["text"])

    def test_a_result_is_taken(self) -> None:
        asked = self.say(tools=TOOLS, tool_choice={"type": "any"})
        results = [{"type": "tool_result", "tool_use_id": block.id, "content": "rain"} for block in asked.content]
        turns = [*HI, {"role": "assistant", "content": asked.content}, {"role": "user", "content": results}]
        answer = self.say(messages=turns, tools=TOOLS, tool_choice={"type": "none"})
        self.assertEqual([block.type for block in answer.content], ["text"])
        self.assertGreater(answer.usage.input_tokens, asked.usage.input_tokens)

    def test_a_picture_costs_few_tokens(self) -> None:
        source = {"type": "base64", "media_type": "image/png", "data": "A" * 20000}
        content = [{"type": "image", "source": source}, {"type": "text", "text": "look"}]
        self.assertLess(self.say(messages=[{"role": "user", "content": content}]).usage.input_tokens, 100)


class ThinkingTests(Case):
    arguments = ("--seed", "1", "--reasoning-parser", "qwen3")

    def test_a_thought_comes_before_the_text_and_is_signed(self) -> None:
        for answer in (self.say(), self.stream()[1]):
            thought, text = answer.content
            self.assertEqual((thought.type, text.type), ("thinking", "text"))
            self.assertTrue(thought.thinking and thought.signature)

    def test_thinking_is_switched_off(self) -> None:
        answer = self.say(thinking={"type": "disabled"})
        self.assertEqual([block.type for block in answer.content], ["text"])
