"""Chat answers through parsers: reasoning, tool calls, hidden tokens, and the same streamed as whole."""

from __future__ import annotations

from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from llmdsim.api.chat import Chat
from llmdsim.test.writing import TOOLS, USER, Asked, ask, call, letters

THINK = "--reasoning-parser", "qwen3"
HERMES = "--enable-auto-tool-choice", "--tool-call-parser", "hermes"
NAMED = {"type": "function", "function": {"name": "get_weather"}}
EACH = {"stream_options": {"include_usage": True, "continuous_usage_stats": True}}
RAW = st.lists(st.sampled_from(["why", "<think>", "</think>", call(), call()[:40], "so", " "]), max_size=6)


def chat(*flags: str, **body: Any) -> Asked:
    """A chat that streams."""
    return ask(Chat, {"messages": [USER], "stream": True, **body}, *flags)


def deltas(chunks: list[Any]) -> list[Any]:
    """What each chunk adds."""
    return [chunk["choices"][0]["delta"] for chunk in chunks]


def message(chunks: list[Any]) -> dict[str, Any]:
    """The message that chunks add up to, as a client adds them."""
    said: dict[str, Any] = {"content": None, "reasoning": None, "tool_calls": []}
    for delta in deltas(chunks):
        for name in ("content", "reasoning"):
            if delta.get(name) is not None:
                said[name] = (said[name] or "") + delta[name]
        for part in delta.get("tool_calls", ()):
            if "id" in part:
                said["tool_calls"].append(
                    {"id": part["id"], "type": part["type"], "function": {**part["function"], "arguments": ""}}
                )
            else:
                said["tool_calls"][part["index"]]["function"]["arguments"] += part["function"]["arguments"]
    return said


class ReasoningTests(SynchronousTestCase):
    TEXTS = ("<think>", "a", "b", "</think>", "so", "")

    def test_deltas_are_reasoning_then_content_and_marks_have_none(self) -> None:
        asked = chat(*THINK)
        said = deltas(asked.chunks(asked.plan(self.TEXTS)))
        self.assertEqual(said, [{"reasoning": "a"}, {"reasoning": "b"}, {"content": "so"}, {}])

    def test_the_whole_has_both(self) -> None:
        asked = chat(*THINK)
        answer = asked.whole(asked.plan(self.TEXTS))
        said = answer["choices"][0]["message"]
        self.assertEqual((said["content"], said["reasoning"]), ("so", "ab"))
        self.assertEqual(answer["usage"]["completion_tokens_details"], {"reasoning_tokens": 2})

    def test_reasoning_alone_has_no_content(self) -> None:
        asked = chat(*THINK)
        said = asked.whole(asked.plan(["a", "b"], finish="length"))["choices"][0]["message"]
        self.assertEqual((said["content"], said["reasoning"]), (None, "ab"))

    def test_reasoning_that_is_not_wanted_is_hidden_but_counted(self) -> None:
        asked = chat(*THINK, include_reasoning=False, **EACH)
        plan = asked.plan(self.TEXTS)
        chunks = asked.chunks(plan)
        self.assertEqual(deltas(chunks), [{"content": "so"}, {}])
        self.assertEqual([chunk["usage"]["completion_tokens"] for chunk in chunks], [5, 6])
        self.assertEqual([chunk["usage"]["completion_tokens_details"]["reasoning_tokens"] for chunk in chunks], [2, 2])
        self.assertIsNone(asked.whole(plan)["choices"][0]["message"]["reasoning"])

    def test_an_interval_over_a_channels_end_is_a_chunk_for_each_and_the_last_carries_the_rest(self) -> None:
        asked = chat(*THINK, stream_interval=9, logprobs=True, return_token_ids=True)
        first, reasoning, content = asked.chunks(asked.plan(self.TEXTS))
        self.assertEqual(deltas([first, reasoning, content]), [{}, {"reasoning": "ab"}, {"content": "so"}])
        ends = [each["choices"][0] for each in (reasoning, content)]
        self.assertEqual([end["token_ids"] for end in ends], [None, [2, 3, 4, 5, 6]])
        self.assertEqual([end["finish_reason"] for end in ends], [None, "stop"])
        self.assertEqual([end["logprobs"] and len(end["logprobs"]["content"]) for end in ends], [None, 5])

    def test_a_parser_counts_no_reasoning_where_the_client_forbade_it(self) -> None:
        asked = chat(*THINK, chat_template_kwargs={"enable_thinking": False})
        answer = asked.whole(asked.plan(["so", ""]))
        self.assertEqual(answer["choices"][0]["message"]["content"], "so")
        self.assertEqual(answer["usage"]["completion_tokens_details"], {"reasoning_tokens": 0})


class CallTests(SynchronousTestCase):
    def ends(self, raw: str, finish: str = "stop", **body: Any) -> tuple[Any, Any, Any]:
        """Content, whether there are calls, and the finish reason, which is also the stream's."""
        asked = chat(*HERMES, tools=TOOLS, **body)
        plan = asked.plan(letters(raw), finish=finish)
        (choice,) = asked.whole(plan)["choices"]
        self.assertEqual(asked.chunks(plan)[-1]["choices"][0]["finish_reason"], choice["finish_reason"])
        return choice["message"]["content"], "tool_calls" in choice["message"], choice["finish_reason"]

    def test_the_first_delta_of_a_call_is_its_name_and_the_end_is_bare(self) -> None:
        asked = chat(*HERMES, tools=TOOLS)
        first, second, *_, last = deltas(asked.chunks(asked.plan(letters(call()))))
        (head,) = first["tool_calls"]
        self.assertEqual((first["content"], list(head)), (None, ["id", "type", "index", "function"]))
        self.assertEqual(head["function"], {"name": "get_weather"})
        self.assertEqual(second, {"content": None, "tool_calls": [{"index": 0, "function": {"arguments": "{"}}]})
        self.assertEqual(last, {})

    def test_content_is_null_unless_a_call_was_forced_or_text_came_first(self) -> None:
        self.assertEqual(self.ends(call()), (None, True, "tool_calls"))
        self.assertEqual(self.ends("I am " + call()), ("I am ", True, "tool_calls"))
        self.assertEqual(self.ends(call(), tool_choice="required"), ("", True, "tool_calls"))
        self.assertEqual(self.ends(call(), tool_choice=NAMED), ("", True, "stop"))

    def test_a_call_that_was_cut_off_keeps_its_reason_and_is_shown_raw(self) -> None:
        raw = call()[:12]
        self.assertEqual(self.ends(raw, "length"), (raw, False, "length"))
        self.assertEqual(self.ends(call()[:50], "length"), (call()[:50], False, "length"))

    def test_a_call_that_was_cut_off_early_streams_its_end_alone(self) -> None:
        asked = chat(*HERMES, tools=TOOLS)
        self.assertEqual(deltas(asked.chunks(asked.plan([*call()[:12]], finish="length"))), [{}])

    def test_tools_that_may_not_be_called_leave_markup_as_text(self) -> None:
        self.assertEqual(self.ends(call(), tool_choice="none"), (call(), False, "stop"))

    def test_ids_are_the_same_streamed_and_whole_and_differ_between_choices(self) -> None:
        asked = chat(*HERMES, tools=TOOLS, n=2)
        plans = [asked.plan(letters(call() + call()), index) for index in (0, 1)]
        whole = [choice["message"]["tool_calls"] for choice in asked.whole(*plans)["choices"]]
        self.assertEqual([message(asked.chunks(plan))["tool_calls"] for plan in plans], whole)
        self.assertEqual(len({each["id"] for calls in whole for each in calls}), 4)

    def test_usage_of_a_chunk_counts_the_hidden_tokens_before_it(self) -> None:
        asked = chat(*HERMES, tools=TOOLS, **EACH)
        first, second, *_ = asked.chunks(asked.plan(letters(call())))
        counted = [chunk["usage"]["completion_tokens"] for chunk in (first, second)]
        self.assertEqual(counted, [call().index('",') + 1, call().index(": {") + 3])


class HiddenTests(SynchronousTestCase):
    def test_wanted_token_ids_are_never_lost(self) -> None:
        for flags, body in ((THINK, {}), (HERMES, {"tools": TOOLS})):
            asked = chat(*flags, return_token_ids=True, **body)
            plan = asked.plan(letters("why</think>" + call()))
            chunks = asked.chunks(plan)
            ids = [id for chunk in chunks for id in chunk["choices"][0]["token_ids"]]
            self.assertEqual((ids, len(chunks)), (plan.ids, len(plan.ids)))

    def test_without_a_parser_the_end_has_empty_content(self) -> None:
        asked = chat()
        self.assertEqual(deltas(asked.chunks(asked.plan(["a", ""])))[-1], {"content": ""})

    def test_with_a_parser_the_end_is_bare_though_there_are_no_tools(self) -> None:
        for flags in (THINK, HERMES):
            asked = chat(*flags)
            self.assertEqual(deltas(asked.chunks(asked.plan(["a", ""])))[-1], {})

    def test_with_a_parser_text_that_is_held_back_has_no_chunk(self) -> None:
        for flags, said in (((), ["", "a", ""]), (HERMES, ["a", None])):
            asked = chat(*flags, stop=["zz"])
            found = [delta.get("content") for delta in deltas(asked.chunks(asked.plan(["", "a", ""])))]
            self.assertEqual(found, said)


class AgreementTests(SynchronousTestCase):
    @settings(deadline=None)
    @given(RAW, st.booleans(), st.booleans(), st.integers(1, 9), st.integers(1, 60))
    @example(["why", call(), call()], True, True, 3, 7)
    def test_a_stream_adds_up_to_the_whole(
        self, raw: list[str], thinking: bool, tools: bool, interval: int, step: int
    ) -> None:
        asked = chat(*(THINK if thinking else ()), stream_interval=interval, tools=TOOLS if tools else None)
        plan = asked.plan(letters("".join(raw)))
        chunks = asked.chunks(plan, range(step, len(plan.texts), step))
        (choice,) = asked.whole(plan)["choices"]
        whole = {name: choice["message"].get(name) for name in ("content", "reasoning", "tool_calls")}
        if tools and "<tool_call>" in (whole["content"] or ""):
            return  # a call that was cut off is shown raw by a whole answer alone
        said = message(chunks)
        parsed = thinking or tools
        self.assertEqual(
            said,
            {
                **whole,
                "content": whole["content"] if parsed else whole["content"] or "",
                "tool_calls": whole["tool_calls"] or [],
            },
        )
        self.assertEqual(chunks[-1]["choices"][0]["finish_reason"], choice["finish_reason"])
