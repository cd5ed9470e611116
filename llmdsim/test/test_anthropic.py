"""The Messages dialect: as a chat, and its answers in blocks and events."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from llmdsim.api.anthropic import as_chat
from llmdsim.api.messages import Messages
from llmdsim.faults import BAD_REQUEST, BUSY, INTERNAL, INVALID_BODY, NOT_FOUND, Fault
from llmdsim.sim.plan import abort
from llmdsim.sim.request import Conversation
from llmdsim.test.writing import USER, WEATHER, Asked, ask, call, events, letters

TOOL = {"name": "get_weather", "input_schema": WEATHER}
RAW = st.lists(st.sampled_from(["why", "</think>", call(), call()[:40], "so", "<tool_call>", " "]), max_size=6)


class AsChatTests(SynchronousTestCase):
    def chat(self, *content: Any, role: str = "user", **body: Any) -> Any:
        return as_chat({"messages": [{"role": role, "content": list(content)}], **body})

    def messages(self, *content: Any, role: str = "user") -> Any:
        return self.chat(*content, role=role)["messages"]

    def test_texts_stay_as_they_are(self) -> None:
        self.assertEqual(as_chat({"messages": [USER]})["messages"], [USER])
        self.assertEqual(self.messages({"type": "text", "text": "a"}), [{"role": "user", "content": "a"}])

    def test_several_parts_are_a_list(self) -> None:
        parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
        self.assertEqual(self.messages(*parts), [{"role": "user", "content": parts}])

    def test_an_image_is_an_url(self) -> None:
        sources = [
            ({"type": "url", "url": "http://x"}, "http://x"),
            ({"type": "base64", "media_type": "image/png", "data": "AA"}, "data:image/png;base64,AA"),
            ({"type": "base64", "data": "AA"}, "data:image/jpeg;base64,AA"),
        ]
        for source, url in sources:
            (message,) = self.messages({"type": "image", "source": source})
            self.assertEqual(message["content"], [{"type": "image_url", "image_url": {"url": url}}])

    def test_a_use_of_a_tool_is_a_call(self) -> None:
        use = {"type": "tool_use", "id": "i", "name": "f", "input": {"é": 1}}
        function = {"name": "f", "arguments": '{"é": 1}'}
        expected = {"role": "assistant", "tool_calls": [{"id": "i", "type": "function", "function": function}]}
        self.assertEqual(self.messages(use, role="assistant"), [expected])
        (bare,) = self.messages({"type": "tool_use"})
        self.assertEqual(bare["tool_calls"][0]["function"], {"name": "", "arguments": "{}"})

    def test_results_are_messages_of_their_own_after_the_others(self) -> None:
        blocks = [{"type": "text", "text": "a"}, {"type": "image"}, {"type": "text", "text": "b"}, {"type": "text"}]
        result = {"type": "tool_result", "tool_use_id": "i", "content": blocks}
        tool = {"role": "tool", "tool_call_id": "i", "content": "a\nb"}
        self.assertEqual(self.messages(result, {"type": "text", "text": "so"}), [{**USER, "content": "so"}, tool])
        self.assertEqual(self.messages({**result, "content": "r"}), [{**tool, "content": "r"}])
        self.assertEqual(self.messages({"type": "tool_result"}), [{**tool, "tool_call_id": "", "content": ""}])

    def test_thoughts_are_reasoning(self) -> None:
        said = {"type": "text", "text": "so"}
        (message,) = self.messages({"type": "thinking", "thinking": "why", "signature": "s"}, said, role="assistant")
        self.assertEqual(message, {"role": "assistant", "content": "so", "reasoning": "why"})

    def test_what_says_nothing_is_left_out(self) -> None:
        silent = ["text", "image", "redacted_thinking", "tool_reference", "tool_addition", "tool_removal"]
        self.assertEqual(self.messages(*[{"type": kind} for kind in silent]), [])

    def test_the_system_prompt_comes_first(self) -> None:
        for system in (
            "be kind",
            [{"type": "text", "text": "be "}, {"type": "image"}, {"type": "text", "text": "kind"}],
        ):
            first, _ = as_chat({"messages": [USER], "system": system})["messages"]
            self.assertEqual(first, {"role": "system", "content": "be kind"})
        nothing: tuple[Any, ...] = (None, "", [])
        for system in nothing:
            self.assertEqual(as_chat({"messages": [USER], "system": system})["messages"], [USER])

    def test_choices_have_other_names(self) -> None:
        named = {"type": "function", "function": {"name": "f"}}
        cases = [("any", "required"), ("none", "none"), ("auto", "auto"), ("tool", named)]
        for choice, expected in cases:
            body = self.chat(tools=[TOOL], tool_choice={"type": choice, "name": "f"})
            self.assertEqual((body["tool_choice"], body["parallel_tool_calls"]), (expected, True))
        one = self.chat(tools=[TOOL], tool_choice={"type": "auto", "disable_parallel_tool_use": True})
        self.assertFalse(one["parallel_tool_calls"])

    def test_without_tools_there_is_no_choice(self) -> None:
        bodies: list[dict[str, Any]] = [{}, {"tools": None}, {"tools": []}]
        for body in bodies:
            self.assertNotIn("tool_choice", self.chat(**body, tool_choice={"type": "any"}))

    def test_a_schema_of_the_output_is_a_response_format(self) -> None:
        body = self.chat(output_config={"effort": "low", "format": {"type": "json_schema", "schema": WEATHER}})
        self.assertEqual(body["response_format"]["json_schema"]["schema"], WEATHER)
        for config in (None, {}, {"format": None}, {"format": {"type": "json_schema"}}):
            self.assertNotIn("response_format", self.chat(output_config=config))

    def test_thinking_may_be_disabled(self) -> None:
        body = self.chat(thinking={"type": "disabled"}, chat_template_kwargs={"a": 1})
        self.assertEqual(body["chat_template_kwargs"], {"a": 1, "enable_thinking": False})
        self.assertNotIn("chat_template_kwargs", self.chat(thinking={"type": "enabled", "budget_tokens": 1024}))


class WriterCase(SynchronousTestCase):
    def ask(self, *flags: str, **body: Any) -> Asked:
        return ask(Messages, {"max_tokens": 99, "messages": [USER], **body}, *flags)


class WholeTests(WriterCase):
    def test_nulls_are_left_out(self) -> None:
        asked = self.ask()
        answer = asked.whole(asked.plan(["Hi", " there", ""]))
        self.assertEqual(list(answer), ["id", "type", "role", "content", "model", "stop_reason", "usage"])
        self.assertEqual(answer["content"], [{"type": "text", "text": "Hi there"}])
        self.assertEqual(answer["usage"], {"input_tokens": 3, "output_tokens": 3})

    def test_every_end_has_its_name(self) -> None:
        asked = self.ask(tools=[TOOL])
        ends = [
            ("a", "stop", None, "end_turn"),
            ("a", "length", None, "max_tokens"),
            ("a", "stop", "b", "stop_sequence"),
            ("a", "stop", 7, "end_turn"),
            (call(), "stop", None, "tool_use"),
            (call(), "length", None, "max_tokens"),
        ]
        for raw, finish, reason, expected in ends:
            answer = asked.whole(asked.plan(letters(raw), finish=finish, stop_reason=reason))
            self.assertEqual(answer["stop_reason"], expected)
            self.assertEqual(answer.get("stop_sequence"), reason if isinstance(reason, str) else None)

    def test_an_empty_answer_has_an_empty_block(self) -> None:
        asked = self.ask()
        self.assertEqual(asked.whole(asked.plan([""]))["content"], [{"type": "text", "text": ""}])

    def test_thoughts_text_and_calls_have_a_block_each(self) -> None:
        asked = self.ask("--reasoning-parser", "qwen3", tools=[TOOL])
        thought, text, use = asked.whole(asked.plan(letters("why</think>so" + call())))["content"]
        self.assertEqual((list(thought), thought["thinking"]), (["type", "thinking", "signature"], "why"))
        self.assertRegex(thought["signature"], "^[0-9a-f]{32}$")
        self.assertEqual(text, {"type": "text", "text": "so"})
        self.assertEqual(list(use), ["type", "id", "name", "input"])
        self.assertEqual((use["name"], use["input"]), ("get_weather", {"location": "Paris"}))

    def test_any_json_can_be_the_input(self) -> None:
        asked = self.ask(tools=[TOOL])
        for arguments in (
            '{"a": 123456789012345678901234567890}',
            '{"a": "\\ud800"}',
            '{"a": NaN}',
            "[" * 300 + "]" * 300,
        ):
            (use,) = asked.whole(asked.plan([call(arguments), ""]))["content"]
            self.assertEqual(use["type"], "tool_use")

    def test_cached_tokens_are_counted_apart_where_details_are_told(self) -> None:
        asked = self.ask("--enable-prompt-tokens-details")
        usage = asked.whole(asked.plan(["a", ""], cached_tokens=2))["usage"]
        names = "input_tokens", "output_tokens", "cache_creation_input_tokens", "cache_read_input_tokens"
        self.assertEqual(list(usage.items()), list(zip(names, (1, 2, 0, 2), strict=True)))


class StreamTests(WriterCase):
    def test_events_come_in_anthropics_order(self) -> None:
        asked = self.ask(stream=True)
        names, values = zip(*asked.stream(asked.plan(["Hi", " there", ""])), strict=True)
        block = "content_block_start", *["content_block_delta"] * 2, "content_block_stop"
        self.assertEqual(names, ("message_start", *block, "message_delta", "message_stop"))
        self.assertEqual([value["type"] for value in values], list(names))
        self.assertEqual(values[2], {"type": names[2], "delta": {"type": "text_delta", "text": "Hi"}, "index": 0})
        self.assertEqual(values[-2]["delta"], {"stop_reason": "end_turn", "stop_sequence": None})

    def test_the_start_counts_the_whole_prompt_though_it_was_cached(self) -> None:
        asked = self.ask("--enable-prompt-tokens-details", stream=True)
        (_, start), *_, (_, delta), _ = asked.stream(asked.plan(["a", ""], cached_tokens=2))
        self.assertEqual(start["message"]["usage"], {"input_tokens": 3, "output_tokens": 0})
        self.assertEqual(delta["usage"]["input_tokens"], 1)

    def test_an_empty_answer_has_no_block(self) -> None:
        asked = self.ask(stream=True)
        names = [name for name, _ in asked.stream(asked.plan([""]))]
        self.assertEqual(names, ["message_start", "message_delta", "message_stop"])

    def test_a_thinking_block_is_signed_before_it_ends(self) -> None:
        asked = self.ask("--reasoning-parser", "qwen3", stream=True)
        plan = asked.plan(["why", "</think>", "so", ""])
        deltas = [value["delta"] for name, value in asked.stream(plan) if name == "content_block_delta"]
        self.assertEqual([delta["type"] for delta in deltas], ["thinking_delta", "signature_delta", "text_delta"])
        self.assertEqual(deltas[1]["signature"], asked.whole(plan)["content"][0]["signature"])

    def test_an_error_closes_the_open_block_and_nothing_follows(self) -> None:
        asked = self.ask(stream=True)
        plan = asked.plan(["a", "b", ""])
        asked.writer.chunks(plan, 0, 1)
        stop, (name, error) = events(asked.writer.fault(Fault(INTERNAL, "gone")))
        self.assertEqual((stop[0], name), ("content_block_stop", "error"))
        self.assertEqual(error, {"type": "error", "error": {"type": "api_error", "message": "gone"}})

    def test_an_abort_in_a_call_ends_its_block(self) -> None:
        asked = self.ask(stream=True, tools=[TOOL])
        plan = asked.plan(letters(call()))
        data = asked.writer.opening(plan) + asked.writer.chunks(plan, 0, 50)
        abort(plan, 50)
        data += asked.writer.chunks(plan, 50, 51) + asked.writer.closing([plan])
        names = [name for name, _ in events(data)]
        self.assertEqual(names[-3:], ["content_block_stop", "message_delta", "message_stop"])

    @settings(deadline=None)
    @given(RAW, st.booleans(), st.booleans(), st.integers(1, 9))
    def test_a_stream_shows_what_the_whole_shows(self, raw: list[str], thinking: bool, tools: bool, step: int) -> None:
        flags = ("--reasoning-parser", "qwen3") if thinking else ()
        asked = self.ask(*flags, stream=True, **({"tools": [TOOL]} if tools else {}))
        plan = asked.plan(letters("".join(raw)))
        chunks = asked.chunks(plan, range(step, len(plan.texts), step)) + events(asked.writer.closing([plan]))
        streamed, whole = blocks(chunks), asked.whole(plan)
        if tools and "<tool_call>" in json.dumps(whole["content"]):
            return  # a call that was cut off is shown raw by a whole answer alone
        empty = {"type": "text", "text": ""}
        self.assertEqual(streamed, [block for block in whole["content"] if block != empty])


def blocks(chunks: list[Any]) -> list[Any]:
    """The content that events add up to, as a client adds them."""
    content: list[Any] = []
    for name, value in chunks:
        if name == "content_block_start":
            assert value["index"] == len(content)
            content.append({**value["content_block"]})
        elif name == "content_block_delta":
            block, delta = content[value["index"]], value["delta"]
            (field,) = delta.keys() - {"type"}
            block[field] = block.get(field, "") + delta[field]
    for block in content:
        if "partial_json" in block:
            block["input"] = json.loads(block.pop("partial_json"))
    return content


class RefusalTests(WriterCase):
    def test_faults_have_anthropics_names(self) -> None:
        names = {BAD_REQUEST: "invalid_request_error", NOT_FOUND: "not_found_error", BUSY: "overloaded_error"}
        dialect = Messages(self.ask().writer._config)
        for kind, name in names.items():
            expected = {"type": "error", "error": {"type": name, "message": "no"}}
            self.assertEqual(dialect.refusal(Fault(kind, "no")), expected)

    def test_a_body_of_a_wrong_shape_is_refused_in_the_openai_form(self) -> None:
        dialect = Messages(self.ask().writer._config)
        error = {"message": "no", "type": "Bad Request", "param": "body.x", "code": 400}
        self.assertEqual(dialect.refusal(Fault(INVALID_BODY, "no", "body.x")), {"error": error})

    def test_a_conversation_that_says_nothing_is_refused(self) -> None:
        fault = self.assertRaises(Fault, self.ask, messages=[{"role": "user", "content": []}])
        self.assertEqual(fault.kind, BAD_REQUEST)

    def test_tools_are_the_chats(self) -> None:
        asked = self.ask(tools=[TOOL], tool_choice={"type": "any"})
        self.assertEqual(
            (asked.request.form.choice, asked.request.max_tokens, asked.request.id), ("required", 99, "chatcmpl-1")
        )
        (prompt,) = asked.request.prompts
        assert isinstance(prompt, Conversation)
        self.assertEqual(prompt.tools[0]["function"]["name"], "get_weather")
