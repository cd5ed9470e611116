from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from llmdsim.api.response_input import messages, spoken

CALL = {"type": "function_call", "call_id": "1", "name": "f", "arguments": "{}"}
THOUGHT = {"type": "reasoning", "id": "r", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]}


def calls(*ids: str) -> list[Any]:
    return [{"id": id, "type": "function", "function": {"name": "f", "arguments": "{}"}} for id in ids]


class MessageTests(SynchronousTestCase):
    def test_messages_keep_their_role_and_content(self) -> None:
        parts = [{"type": "input_text", "text": "a"}]
        items: list[Any] = [
            {"role": "user", "content": parts},
            {"type": "message", "role": "developer", "content": "b"},
        ]
        self.assertEqual(messages(items), [{"role": "user", "content": parts}, {"role": "developer", "content": "b"}])

    def test_a_bare_reference_to_an_earlier_item_is_passed_over(self) -> None:
        untyped: list[Any] = [{"id": "x"}, {"id": "x", "role": "user"}, {"id": "x", "role": 5, "content": "a"}]
        self.assertEqual(messages([*untyped, {"id": "x", "role": "user", "content": {}}]), [])

    def test_a_call_and_its_result_are_an_assistants_and_a_tools_message(self) -> None:
        result = {"type": "function_call_output", "call_id": "1", "output": "42"}
        self.assertEqual(
            messages([CALL, result]),
            [
                {"role": "assistant", "tool_calls": calls("1")},
                {"role": "tool", "tool_call_id": "1", "content": "42"},
            ],
        )

    def test_what_was_thought_said_and_called_in_one_turn_is_one_message(self) -> None:
        said = {"type": "message", "role": "assistant", "content": "well"}
        self.assertEqual(
            messages([THOUGHT, said, CALL, {**CALL, "call_id": "2"}]),
            [{"role": "assistant", "reasoning": "hm", "content": "well", "tool_calls": calls("1", "2")}],
        )

    def test_two_texts_are_two_messages(self) -> None:
        said = {"role": "assistant", "content": "a"}
        self.assertEqual(messages([said, said]), [said, said])

    def test_a_summary_stands_in_for_a_thought_without_content(self) -> None:
        item = {"type": "reasoning", "id": "r", "summary": [{"type": "summary_text", "text": "short"}]}
        self.assertEqual(messages([item]), [{"role": "assistant", "reasoning": "short"}])

    def test_items_that_no_chat_has_are_passed_over(self) -> None:
        self.assertEqual(messages([{"type": "item_reference", "id": "x"}]), [])

    def test_an_earlier_answer_is_remembered_without_its_reasoning(self) -> None:
        said = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "a"}]}
        self.assertEqual(spoken([THOUGHT, said]), [{"role": "assistant", "content": said["content"]}])
