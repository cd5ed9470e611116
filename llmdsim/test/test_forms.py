"""What shape an answer must have: tools, structured output, reasoning, and how contradictions are refused."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from llmdsim.api.chat import Chat, ChatBatch
from llmdsim.api.completions import Completions
from llmdsim.faults import Fault
from llmdsim.sim.request import Constraint, Form
from llmdsim.test.writing import TOOLS, USER, ask

NAMED = {"type": "function", "function": {"name": "get_weather"}}
UNSET = "When using `tool_choice`, `tools` must be set. (parameter=tool_choice)"
UNKNOWN = "The tool specified in `tool_choice` does not match any of the specified `tools` (parameter=tool_choice)"
MAYBE = (
    'Invalid value for `tool_choice`: maybe! Only named tools, "none", "auto" or "required" are supported. '
    "(parameter=tool_choice)"
)
EMPTY = (
    "`tools` must not be an empty array. Either provide at least one tool or omit the field entirely. (parameter=tools)"
)


class FormCase(SynchronousTestCase):
    def form(self, *flags: str, **body: Any) -> Form:
        return ask(Chat, {"messages": [USER], **body}, *flags).request.form

    def refusal(self, *flags: str, kind: Any = Chat, **body: Any) -> tuple[int, str, str | None]:
        question = {"prompt": "x"} if kind is Completions else {"messages": [USER]}
        fault = self.assertRaises(Fault, ask, kind, {**question, **body}, *flags)
        return fault.kind.status, fault.message, fault.param


class ToolTests(FormCase):
    def test_tools_without_a_choice_may_be_called(self) -> None:
        form = self.form(tools=TOOLS)
        self.assertEqual((form.choice, form.named, form.parallel, form.marked), ("auto", None, True, True))
        self.assertEqual([tool.name for tool in form.tools], ["get_weather"])

    def test_no_tools_are_no_choice(self) -> None:
        self.assertEqual((self.form().choice, self.form(tool_choice="none").choice), ("none", "none"))

    def test_tools_that_may_not_be_called_leave_no_markup(self) -> None:
        self.assertFalse(self.form(tools=TOOLS, tool_choice="none").marked)

    def test_a_named_tool_is_known_by_its_name(self) -> None:
        form = self.form(tools=TOOLS, tool_choice=NAMED)
        self.assertEqual((form.choice, form.named), ("named", "get_weather"))

    def test_a_tool_needs_no_parameters(self) -> None:
        for function in ({"name": "f"}, {"name": "f", "parameters": None}):
            (tool,) = self.form(tools=[{"type": "function", "function": function}]).tools
            self.assertEqual((tool.name, tool.parameters), ("f", {}))

    def test_a_tool_may_have_any_name(self) -> None:
        for name in ("", "</tool_call>", "é\n\u2028", '{"name": "f"}'):
            (tool,) = self.form(tools=[{"type": "function", "function": {"name": name}}]).tools
            self.assertEqual(tool.name, name)

    def test_contradictions_are_refused_in_vllms_words(self) -> None:
        other = {"type": "function", "function": {"name": "other"}}
        cases: list[tuple[dict[str, Any], str, str]] = [
            ({"tools": []}, EMPTY, "tools"),
            ({"tool_choice": "auto"}, UNSET, "tool_choice"),
            ({"tool_choice": NAMED}, UNSET, "tool_choice"),
            ({"tools": TOOLS, "tool_choice": "maybe"}, MAYBE, "tool_choice"),
            ({"tools": TOOLS, "tool_choice": other}, UNKNOWN, "tool_choice"),
        ]
        for body, message, param in cases:
            self.assertEqual(self.refusal(**body), (400, message, param))

    def test_strict_vllm_needs_its_parsers(self) -> None:
        auto = '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set'
        required = 'tool_choice="required" requires --tool-call-parser to be set'
        named = 'tool_choice=function "get_weather" requires --tool-call-parser to be set'
        for choice, message in ((None, auto), ("required", required), (NAMED, named)):
            self.assertEqual(self.refusal("--strict", tools=TOOLS, tool_choice=choice), (400, message, None))

    def test_strict_vllm_takes_tools_that_it_can_read_or_need_not(self) -> None:
        parser = "--tool-call-parser", "hermes"
        self.assertEqual(self.form("--strict", tools=TOOLS, tool_choice="none").choice, "none")
        self.assertEqual(self.form("--strict", *parser, tools=TOOLS, tool_choice="required").choice, "required")
        self.assertEqual(self.form("--strict", *parser, "--enable-auto-tool-choice", tools=TOOLS).choice, "auto")

    def test_a_batch_may_have_no_tools_of_a_wrong_shape_either(self) -> None:
        self.assertEqual(self.refusal(kind=ChatBatch, messages=[[USER]], tools=[]), (400, EMPTY, "tools"))


class ThinkingTests(FormCase):
    def test_a_reasoning_parser_makes_the_model_think(self) -> None:
        self.assertTrue(self.form("--reasoning-parser", "qwen3").thinking)
        self.assertFalse(self.form().thinking)

    def test_the_template_and_the_effort_may_forbid_it(self) -> None:
        flags = "--reasoning-parser", "qwen3"
        self.assertFalse(self.form(*flags, chat_template_kwargs={"enable_thinking": False}).thinking)
        self.assertFalse(self.form(*flags, reasoning_effort="none").thinking)
        self.assertTrue(self.form(*flags, reasoning_effort="low").thinking)

    def test_the_clients_template_arguments_win_over_the_servers(self) -> None:
        flags = "--reasoning-parser", "qwen3", "--default-chat-template-kwargs", '{"enable_thinking": false}'
        self.assertFalse(self.form(*flags).thinking)
        self.assertTrue(self.form(*flags, chat_template_kwargs={"enable_thinking": True}).thinking)


class ConstraintTests(FormCase):
    def constraint(self, **body: Any) -> Constraint | None:
        return self.form(**body).constraint

    def test_every_kind_is_known_by_its_field(self) -> None:
        kinds = {"json": {}, "regex": "a+", "choice": ["a"], "grammar": "root", "json_object": True}
        for kind, value in kinds.items():
            self.assertEqual(self.constraint(structured_outputs={kind: value}), Constraint(kind, value))

    def test_what_is_null_or_false_demands_nothing(self) -> None:
        for kind, value in (("json", None), ("json_object", False)):
            self.assertIsNone(self.constraint(structured_outputs={kind: value}))
        self.assertIsNone(self.constraint(response_format={"type": "text"}))

    def test_a_response_format_demands_json(self) -> None:
        self.assertEqual(self.constraint(response_format={"type": "json_object"}), Constraint("json_object", True))
        schema = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "string"}}}
        self.assertEqual(self.constraint(response_format=schema), Constraint("json", {"type": "string"}))
        self.assertEqual(
            ask(Completions, {"prompt": "x", "response_format": schema}).request.form.constraint,
            self.constraint(response_format=schema),
        )

    def test_what_cannot_be_followed_is_refused(self) -> None:
        one = "You can only use one kind of constraints for structured outputs ('json', 'regex' or 'choice')."
        cases = [
            ({"choice": ["yes"], "regex": "a"}, one),
            ({"json": {"type": "nonsense"}}, "Grammar error: Invalid type: nonsense"),
            ({"json": '{"type": "nonsense"}'}, "Grammar error: Invalid type: nonsense"),
            ({"json": "not json"}, "Expecting value: line 1 column 1 (char 0)"),
            ({"choice": []}, "structured_outputs.choice cannot be an empty list"),
            ({"grammar": ""}, "structured_outputs.grammar cannot be an empty string"),
        ]
        for wanted, message in cases:
            self.assertEqual(self.refusal(structured_outputs=wanted), (400, message, None))
            self.assertEqual(self.refusal(kind=Completions, structured_outputs=wanted), (400, message, None))

    def test_what_is_no_pattern_is_refused(self) -> None:
        for pattern in ("(", "\\", "[z-a]", "a{99999999999}"):
            status, message, _ = self.refusal(structured_outputs={"regex": pattern})
            self.assertEqual((status, message.partition(":")[0]), (400, "Grammar error"))

    def test_a_schema_as_text_too_deep_to_read_is_refused(self) -> None:
        self.assertEqual(self.refusal(structured_outputs={"json": "[" * 100_000})[0], 400)

    def test_a_json_schema_without_a_schema_is_refused(self) -> None:
        message = (
            "When response_format type is 'json_schema', the 'json_schema' field must be provided. "
            "(parameter=response_format)"
        )
        self.assertEqual(self.refusal(response_format={"type": "json_schema"}), (400, message, "response_format"))


class MessageTests(FormCase):
    def test_a_conversation_must_have_messages(self) -> None:
        message = "Cannot apply chat template to an empty conversation. Provide at least one message."
        self.assertEqual(self.refusal(messages=[]), (400, message, None))

    def test_strict_vllm_of_a_text_model_takes_no_media(self) -> None:
        image = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://x"}}]}
        self.assertEqual(self.refusal("--strict", messages=[USER, image]), (400, "m is not a multimodal model", None))
        self.assertEqual(self.form(messages=[image]), Form())
