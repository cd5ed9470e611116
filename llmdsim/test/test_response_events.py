from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from llmdsim.api.response_events import ResponseWriter
from llmdsim.api.responses import Responses
from llmdsim.config import load
from llmdsim.sim.plan import Plan, abort
from llmdsim.sim.request import Model, Tokens

TOOL = {"type": "function", "name": "f", "parameters": {}}
THINKS = "--reasoning-parser", "qwen3"
CALL = ('<tool_call>\n{"name": "f", ', '"arguments": {"a"', ": 1}}\n</tool_call>")
LOGPROBS: dict[str, Any] = {"include": ["message.output_text.logprobs"], "top_logprobs": 2}
# A token's text is empty where it shows nothing; the markup comes whole and in pieces.
TEXTS = st.lists(
    st.sampled_from(["", "a", " b", "<think>", "\n", "</think>", "</th", "ink>", *CALL, "é\u2028"]), min_size=1
)


class Talk:
    """One plan and its writer."""

    def __init__(self, texts: Sequence[str], *flags: str, finish: str = "stop", **body: Any) -> None:
        dialect = Responses(load(["--model", "m", "--max-model-len", "100", *flags], {}))
        self.ask = dialect.parse(dialect.check({"input": "hi", **body}), "1", Model("m"))
        self.writer: ResponseWriter = dialect.writer(self.ask, 7)
        ids = [*range(len(texts))]
        self.plan = Plan(self.ask, 0, Tokens((1, 2, 3), ("a", "b", "c")), list(texts), ids, finish, None, list(texts))

    def stream(self, step: int = 1) -> list[dict[str, Any]]:
        """All events, told by so many tokens at a time."""
        size = len(self.plan.texts)
        data = self.writer.opening(self.plan)
        for start in range(0, size, step):
            data += self.writer.chunks(self.plan, start, min(start + step, size))
        return frames(data + self.writer.closing([self.plan]))

    def whole(self) -> dict[str, Any]:
        """The answer without a stream."""
        answer: dict[str, Any] = json.loads(self.writer.whole([self.plan]))
        return answer


def frames(data: bytes) -> list[dict[str, Any]]:
    """The events of a stream; their name is their type."""
    found = []
    for block in data.decode().split("\n\n")[:-1]:
        name, _, value = block.partition("\ndata: ")
        found.append(json.loads(value))
        assert name == "event: " + found[-1]["type"]
    return found


def kinds(found: list[dict[str, Any]]) -> list[str]:
    """The types of events, without what they share."""
    return [event["type"].removeprefix("response.") for event in found]


class TextStreamTests(SynchronousTestCase):
    def test_a_text_is_one_item_with_one_part_and_a_delta_for_each_token(self) -> None:
        found = Talk(["Hi", " there", ""]).stream()
        self.assertEqual(
            kinds(found),
            [
                "created",
                "in_progress",
                "output_item.added",
                "content_part.added",
                "output_text.delta",
                "output_text.delta",
                "output_text.done",
                "content_part.done",
                "output_item.done",
                "completed",
            ],
        )
        self.assertEqual([event["sequence_number"] for event in found], [*range(10)])
        self.assertEqual(found[6]["text"], "Hi there")

    def test_the_fields_of_an_event_are_in_alphabetical_order(self) -> None:
        for event in Talk(["<think>a</think>b", *CALL], *THINKS, tools=[TOOL]).stream():
            self.assertEqual([*event], sorted(event))

    def test_the_object_that_ends_a_stream_has_the_items_that_were_streamed(self) -> None:
        *_, item, last = Talk(["Hi"]).stream()
        self.assertEqual(last["response"]["output"], [item["item"]])

    def test_an_answer_that_was_cut_is_incomplete_and_so_is_its_last_message(self) -> None:
        *_, item, last = Talk(["Hi"], finish="length").stream()
        self.assertEqual((item["item"]["status"], last["type"]), ("incomplete", "response.incomplete"))
        self.assertEqual(last["response"]["incomplete_details"], {"reason": "max_output_tokens"})

    def test_an_answer_that_shows_nothing_has_no_items(self) -> None:
        found = Talk([""]).stream()
        self.assertEqual(kinds(found), ["created", "in_progress", "completed"])
        self.assertEqual(found[-1]["response"]["output"], [])

    def test_an_aborted_answer_is_cancelled_and_keeps_what_was_said(self) -> None:
        for flags in ((), THINKS):
            talk = Talk(["<think>", "a", "</think>", "b"], *flags)
            abort(talk.plan, 2)
            last = talk.stream()[-1]["response"]
            self.assertEqual((last["status"], len(last["output"])), ("cancelled", 1))

    def test_an_interval_joins_tokens(self) -> None:
        found = Talk(["a", "b", "c", "d"], "--stream-interval", "2").stream()
        self.assertEqual([event["delta"] for event in found if "delta" in event], ["a", "bc", "d"])

    def test_log_probabilities_come_with_their_delta_and_all_of_them_at_the_end(self) -> None:
        found = Talk(["Hi", " there"], **LOGPROBS).stream()
        told = [event["logprobs"] for event in found if "delta" in event]
        self.assertEqual([[each["token"] for each in one] for one in told], [["Hi"], [" there"]])
        self.assertEqual([*told[0][0]], ["token", "logprob", "top_logprobs"])
        (message,) = found[-1]["response"]["output"]
        self.assertEqual([each["token"] for each in message["content"][0]["logprobs"]], ["Hi", " there"])


class MarkedStreamTests(SynchronousTestCase):
    def test_reasoning_text_and_calls_are_items_of_their_own_in_their_order(self) -> None:
        found = Talk(["<think>", "hm", "</think>", "well ", *CALL], *THINKS, tools=[TOOL]).stream()
        output = found[-1]["response"]["output"]
        self.assertEqual([item["type"] for item in output], ["reasoning", "message", "function_call"])
        self.assertEqual([item["status"] for item in output], ["completed"] * 3)
        numbers = [event["output_index"] for event in found if event["type"] == "response.output_item.added"]
        self.assertEqual(numbers, [0, 1, 2])

    def test_a_call_is_told_by_its_name_then_its_arguments(self) -> None:
        found = Talk(CALL, tools=[TOOL]).stream()
        self.assertEqual(
            kinds(found)[2:],
            [
                "output_item.added",
                "function_call_arguments.delta",
                "function_call_arguments.delta",
                "function_call_arguments.done",
                "output_item.done",
                "completed",
            ],
        )
        begun, done, ended = found[2]["item"], found[5], found[6]["item"]
        self.assertEqual((begun["name"], begun["arguments"], begun["status"]), ("f", "", "in_progress"))
        self.assertEqual((done["name"], done["arguments"]), ("f", '{"a": 1}'))
        self.assertEqual(ended, {**begun, "arguments": '{"a": 1}', "status": "completed"})

    def test_two_calls_are_two_items_with_ids_of_their_own(self) -> None:
        output = Talk([*CALL, *CALL], tools=[TOOL]).stream()[-1]["response"]["output"]
        self.assertEqual(len({item["call_id"] for item in output}), 2)
        self.assertEqual([item["arguments"] for item in output], ['{"a": 1}'] * 2)

    def test_hidden_reasoning_is_counted_but_not_shown(self) -> None:
        talk = Talk(["<think>", "hm", "</think>", "well"], *THINKS, include_reasoning=False)
        last = talk.stream()[-1]["response"]
        self.assertEqual([item["type"] for item in last["output"]], ["message"])
        self.assertEqual(last["usage"]["output_tokens_details"]["reasoning_tokens"], 1)

    @settings(deadline=None)
    @given(TEXTS, st.integers(1, 5))
    def test_a_stream_says_the_same_however_its_tokens_are_grouped(self, texts: list[str], step: int) -> None:
        last = Talk(texts, *THINKS, tools=[TOOL]).stream()[-1]
        other = Talk(texts, *THINKS, tools=[TOOL]).stream(step)
        self.assertEqual(other[-1]["response"], last["response"])
        self.assertEqual([event["sequence_number"] for event in other], [*range(len(other))])
        deltas = "".join(event["delta"] for event in other if "delta" in event)
        ends = [event[whole] for event in other for whole in ("text", "arguments") if whole in event]
        self.assertEqual(deltas, "".join(ends))


class WholeTests(SynchronousTestCase):
    def test_the_items_and_their_ids_are_those_of_the_stream(self) -> None:
        texts = ["<think>", "hm", "</think>", "well ", *CALL]
        whole = Talk(texts, *THINKS, tools=[TOOL]).whole()
        streamed = Talk(texts, *THINKS, tools=[TOOL]).stream()[-1]["response"]
        # vLLM leaves the status of a thought open where it does not stream.
        self.assertEqual(whole["output"][0].pop("status"), None)
        del streamed["output"][0]["status"]
        self.assertEqual(whole, streamed)

    def test_the_limit_that_is_shown_is_the_one_that_holds(self) -> None:
        for asked, shown in ((None, 97), (10, 10), (99, 97)):
            self.assertEqual(Talk(["a"], max_output_tokens=asked).whole()["max_output_tokens"], shown)

    def test_what_the_client_said_is_repeated(self) -> None:
        said: dict[str, Any] = {
            "metadata": {"a": "b"},
            "user": "u",
            "instructions": "be nice",
            "truncation": "auto",
            "prompt_cache_key": "k",
            "safety_identifier": "s",
            "service_tier": "flex",
            "max_tool_calls": 3,
        }
        answer = Talk(["a"], **said, temperature=1).whole()
        self.assertEqual({name: answer[name] for name in said}, said)
        self.assertIsInstance(answer["temperature"], float)

    def test_tool_choice_is_none_without_tools_and_auto_with_them(self) -> None:
        self.assertEqual(Talk(["a"]).whole()["tool_choice"], "none")
        self.assertEqual(Talk(["a"], tools=[TOOL]).whole()["tool_choice"], "auto")

    def test_a_thought_that_was_cut_leaves_no_message(self) -> None:
        answer = Talk(["<think>", "hm"], *THINKS, finish="length").whole()
        self.assertEqual([item["type"] for item in answer["output"]], ["reasoning"])

    def test_usage_counts_what_the_cache_had_and_was_given_in_blocks(self) -> None:
        talk = Talk(["a", "b"], "--block-size", "8")
        talk.plan.prompt, talk.plan.cached_tokens = Tokens([*range(20)], ()), 8
        usage = talk.whole()["usage"]
        self.assertEqual((usage["input_tokens"], usage["output_tokens"], usage["total_tokens"]), (20, 2, 22))
        details = usage["input_tokens_details"]
        self.assertEqual((details["cached_tokens"], details["cache_write_tokens"]), (8, 8))

    def test_raw_messages_are_shown_where_they_are_asked_for(self) -> None:
        answer = Talk(["a", "b"], enable_response_messages=True).whole()
        self.assertEqual(
            answer["input_messages"], [{"message": "abc", "tokens": [1, 2, 3], "type": "raw_message_tokens"}]
        )
        self.assertEqual(answer["output_messages"][0]["tokens"], [0, 1])
