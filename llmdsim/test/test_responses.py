from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from llmdsim.api.response_object import Ask
from llmdsim.api.responses import Responses
from llmdsim.config import load
from llmdsim.faults import Fault
from llmdsim.sim.request import Constraint, Conversation, Model

TOOL = {"type": "function", "name": "f", "description": "d", "parameters": {"type": "object", "properties": {}}}
OTHER = {"type": "function", "name": "g", "parameters": {"type": "object"}}
RESULT = [
    {"role": "user", "content": "q"},
    {"type": "function_call", "call_id": "1", "name": "f", "arguments": "{}"},
    {"type": "function_call_output", "call_id": "1", "output": "42"},
]
PARSERS = "--strict", "--enable-auto-tool-choice", "--tool-call-parser", "hermes"


def ask(*flags: str, **body: Any) -> Ask:
    dialect = Responses(load(["--model", "m", *flags], {}))
    return dialect.parse(dialect.check({"input": "hi", **body}), "1", Model("m"))


class ParseTests(SynchronousTestCase):
    def refusal(self, *flags: str, **body: Any) -> tuple[int, str, str, str | None]:
        fault = self.assertRaises(Fault, ask, *flags, **body)
        return fault.kind.status, fault.kind.type, fault.message, fault.param

    def messages(self, found: Ask) -> Any:
        (prompt,) = found.prompts
        assert isinstance(prompt, Conversation)
        return prompt.messages

    def test_a_string_is_a_users_message_and_instructions_come_before_it(self) -> None:
        user = {"role": "user", "content": "hi"}
        found = ask(instructions="be nice")
        self.assertEqual(self.messages(found), [{"role": "system", "content": "be nice"}, user])
        self.assertEqual(found.messages, [user])

    def test_a_conversation_that_goes_on_has_its_history_after_the_instructions(self) -> None:
        dialect = Responses(load(["--model", "m"], {}))
        body = dialect.check({"input": "more", "instructions": "new"})
        found = dialect.parse(body, "1", Model("m"), [{"role": "user", "content": "old"}])
        self.assertEqual([each["content"] for each in self.messages(found)], ["new", "old", "more"])
        self.assertEqual([each["content"] for each in found.messages], ["old", "more"])

    def test_ids_have_their_prefix_once(self) -> None:
        dialect = Responses(load(["--model", "m"], {}))
        body = dialect.check({"input": "hi"})
        self.assertEqual([dialect.parse(body, id, Model("m")).id for id in ("a", "resp_a")], ["resp_a", "resp_a"])

    def test_the_limit_is_called_by_its_own_name(self) -> None:
        found = ask(max_output_tokens=7)
        self.assertEqual((found.max_tokens, found.limit_name), (7, "max_output_tokens"))

    def test_log_probabilities_must_be_included(self) -> None:
        include = ["message.output_text.logprobs"]
        self.assertIsNone(ask(top_logprobs=3).logprobs)
        self.assertEqual([ask(include=include, top_logprobs=n).logprobs for n in (3, None)], [3, 0])
        self.assertIn("greater than max allowed: 20", self.refusal(include=include, top_logprobs=21)[2])

    def test_a_field_of_other_dialects_is_ignored(self) -> None:
        self.assertEqual(ask(n=3, max_tokens=1).n, 1)

    def test_sampling_fields_out_of_range_are_refused(self) -> None:
        message = "temperature must be in [0, 2], got 3.0. (parameter=temperature, value=3.0)"
        self.assertEqual(self.refusal(temperature=3)[2], message)
        self.assertEqual(
            self.refusal(max_output_tokens=0)[2:],
            ("max_tokens must be at least 1, got 0. (parameter=max_tokens, value=0)", "max_tokens"),
        )

    def test_what_vllm_does_not_serve_is_refused_in_its_words(self) -> None:
        self.assertEqual(
            self.refusal(prompt={"id": "p"}),
            (400, "BadRequestError", "prompt template is not supported (parameter=prompt)", "prompt"),
        )
        status, kind, message, param = self.refusal(background=True, store=False)
        self.assertEqual((status, kind, param), (400, "Bad Request", "body"))
        self.assertIn("Value error, background can only be used when `store` is true", message)

    def test_a_background_needs_a_store(self) -> None:
        dialect = Responses(load(["--model", "m", "--strict"], {}))
        fault = self.assertRaises(Fault, dialect.check_history, {"background": True})
        self.assertEqual((fault.kind, fault.param), ((400, "invalid_request_error"), "background"))
        for flags, environ in (([], {}), (["--strict"], {"VLLM_ENABLE_RESPONSES_API_STORE": "1"})):
            Responses(load(["--model", "m", *flags], environ)).check_history({"background": True})

    def test_there_is_one_history_at_most(self) -> None:
        dialect = Responses(load(["--model", "m"], {}))
        body = {"previous_input_messages": [{}], "previous_response_id": "x"}
        self.assertEqual(self.assertRaises(Fault, dialect.check_history, body).param, "previous_response_id")


class FormTests(SynchronousTestCase):
    def test_a_schema_for_the_text_is_a_constraint(self) -> None:
        format = {"type": "json_schema", "name": "n", "schema": {"type": "object"}}
        self.assertEqual(ask(text={"format": format}).form.constraint, Constraint("json", {"type": "object"}))
        self.assertEqual(ask(text={"format": {"type": "json_object"}}).form.constraint, Constraint("json_object", True))
        self.assertIsNone(ask(text={"format": {"type": "text"}}).form.constraint)

    def test_two_formats_are_refused(self) -> None:
        text = {"format": {"type": "json_object"}}
        fault = self.assertRaises(Fault, ask, text=text, structured_outputs={"regex": "a"})
        self.assertEqual(fault.param, "structured_outputs")

    def test_effort_none_is_no_reasoning(self) -> None:
        flags = "--reasoning-parser", "qwen3"
        self.assertTrue(ask(*flags).form.thinking)
        self.assertFalse(ask(*flags, reasoning={"effort": "none"}).form.thinking)

    def test_the_model_is_shown_its_tools_as_a_chat_is(self) -> None:
        (prompt,) = ask(tools=[TOOL]).prompts
        assert isinstance(prompt, Conversation)
        function = {name: TOOL[name] for name in ("name", "description", "parameters")}
        self.assertEqual(prompt.tools, [{"type": "function", "function": function}])

    def test_a_simulator_calls_a_tool_until_the_conversation_has_a_result(self) -> None:
        self.assertEqual(ask(tools=[TOOL]).form.choice, "required")
        found = ask(tools=[TOOL], input=RESULT)
        self.assertEqual((found.form.tools, found.finds_calls), ((), True))

    def test_a_strict_model_has_its_choice_where_there_are_parsers(self) -> None:
        self.assertEqual(ask(*PARSERS, tools=[TOOL]).form.choice, "auto")
        self.assertFalse(ask("--strict", tools=[TOOL]).finds_calls)
        self.assertTrue(ask("--strict", tools=[TOOL], tool_choice="required").finds_calls)

    def test_a_named_tool_must_be_there(self) -> None:
        self.assertEqual(ask(tools=[TOOL], tool_choice={"type": "function", "name": "f"}).form.named, "f")
        fault = self.assertRaises(Fault, ask, tools=[TOOL], tool_choice={"type": "function", "name": "x"})
        self.assertEqual(fault.message, "Tool 'x' has not been passed in tools.")

    def test_allowed_tools_are_the_only_ones(self) -> None:
        choice = {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "g"}]}
        form = ask(tools=[TOOL, OTHER], tool_choice=choice).form
        self.assertEqual(([tool.name for tool in form.tools], form.choice), (["g"], "required"))

    def test_a_choice_without_tools_is_refused_unless_it_is_none(self) -> None:
        self.assertEqual(self.assertRaises(Fault, ask, tool_choice="required").param, "tool_choice")
        self.assertEqual([ask(tool_choice=choice).finds_calls for choice in ("none", "auto")], [False, False])

    def test_tools_of_other_kinds_are_never_called(self) -> None:
        self.assertFalse(ask(tools=[{"type": "custom", "name": "c"}]).finds_calls)

    def test_nested_tools_and_tools_without_a_type_are_taken_unless_strict(self) -> None:
        nested = {"type": "function", "function": {"name": "f", "parameters": {}}}
        for tool in (nested, {"name": "f"}):
            self.assertEqual(ask(tools=[tool]).form.tools[0].name, "f")
            self.assertRaises(Fault, ask, "--strict", tools=[tool])
