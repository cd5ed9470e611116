from __future__ import annotations

import copy
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from llmdsim.api.schema import check, check_any, document, read_json
from llmdsim.faults import Fault

HELLO = [{"role": "user", "content": "Hello"}]
JSON = "application/json"

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
message = st.fixed_dictionaries(
    {},
    optional=dict.fromkeys(("role", "content", "tool_calls", "name", "author", "tool_call_id", "reasoning"), anything)
    | {"role": st.sampled_from(("user", "assistant", "tool", "system"))},
)
NAMES = (
    "ChatCompletionRequest",
    "CompletionRequest",
    "ResponsesRequest",
    "AnthropicMessagesRequest",
    "TokenizeRequest",
    "EmbeddingRequest",
    "GenerateRequest",
    "ScoreRequest",
)
FIELDS = ("model", "messages", "prompt", "input", "stop", "tools", "tool_choice", "thinking", "max_tokens", "system")


class Refusals(SynchronousTestCase):
    def refusal(self, name: str, body: object) -> tuple[str, list[tuple[str, str]]]:
        """The param and the (type, loc) of the errors shown."""
        fault = self.assertRaises(Fault, check, name, body)
        entries = [eval(line) for line in fault.message.split("\n  ")[1:] if line.startswith("{")]
        return fault.param, [(entry["type"], entry["loc"]) for entry in entries]

    def chat(self, **fields: object) -> tuple[str, list[tuple[str, str]]]:
        return self.refusal("ChatCompletionRequest", {"messages": HELLO, **fields})


class ErrorTests(Refusals):
    def test_errors_come_in_the_order_of_the_fields(self):
        param, errors = self.chat(temperature="a", n="b", model=5)
        self.assertEqual(param, "body.model")
        self.assertEqual(
            errors, [("string_type", "body.model"), ("int_parsing", "body.n"), ("float_parsing", "body.temperature")]
        )

    def test_a_message_is_refused_by_every_kind_of_message(self):
        fault = self.assertRaises(Fault, check, "ChatCompletionRequest", {"messages": [{"content": "x"}]})
        lines = fault.message.split("\n")
        self.assertEqual(lines[0], "11 validation errors:")
        self.assertEqual(fault.param, "body.messages.0.ChatCompletionDeveloperMessageParam.role")
        self.assertIn("'body.messages.0.ChatCompletionToolMessageParam.tool_call_id'", lines[6])
        self.assertIn("'body.messages.0.Message.author'", lines[10])
        self.assertEqual(lines[11], "  ...and 1 more errors")

    def test_wrong_content_is_neither_text_nor_iterable(self):
        _, errors = self.refusal("ChatCompletionRequest", {"messages": [{"content": 1}]})
        where = "body.messages.0.ChatCompletionDeveloperMessageParam"
        self.assertEqual(
            errors[:3],
            [("string_type", f"{where}.content"), ("iterable_type", f"{where}.content"), ("missing", f"{where}.role")],
        )

    def test_a_prompt_of_no_kind_is_refused_once_a_kind(self):
        _, errors = self.refusal("CompletionRequest", {"prompt": {"a": 1}})
        self.assertEqual([kind for kind, _ in errors], ["list_type", "list_type", "string_type", "list_type"])
        self.assertEqual({loc for _, loc in errors}, {"body.prompt"})

    def test_a_negative_token_id_is_out_of_bounds(self):
        _, errors = self.refusal("CompletionRequest", {"prompt": [-1, 2]})
        self.assertEqual(errors[0], ("greater_than_equal", "body.prompt.0"))
        self.assertEqual(len(errors), 6)

    def test_integers_have_64_bits_where_the_schema_says_so(self):
        fault = self.assertRaises(Fault, check, "ChatCompletionRequest", {"messages": HELLO, "seed": 2**70})
        self.assertTrue(fault.message.endswith("'ctx': {'le': 9223372036854775807}}"))
        self.assertEqual(check("ChatCompletionRequest", {"messages": HELLO, "seed": 2**63 - 1})["seed"], 2**63 - 1)

    def test_more_than_four_stop_strings_are_too_many(self):
        fault = self.assertRaises(Fault, check, "CompletionRequest", {"prompt": "x", "stop": list("abcde")})
        self.assertIn("List should have at most 4 items after validation, not 5", fault.message)
        self.assertTrue(fault.message.endswith("{'field_type': 'List', 'max_length': 4, 'actual_length': 5}}"))

    def test_models_of_vllm_are_not_named_in_locations(self):
        _, errors = self.chat(response_format={"type": "xml"})
        where = "body.response_format"
        self.assertEqual(len(errors), 6)
        self.assertEqual(errors[0], ("literal_error", f"{where}.type"))
        self.assertEqual(errors[2], ("missing", f"{where}.format"))

    def test_a_model_a_dict_and_a_dataclass_refuse_other_values_differently(self):
        _, errors = self.chat(stream_options=5, kv_transfer_params=5, structured_outputs=5)
        self.assertEqual([kind for kind, _ in errors], ["model_attributes_type", "dataclass_type", "dict_type"])

    def test_a_body_must_be_an_object(self):
        self.assertEqual(self.refusal("ChatCompletionRequest", [1, 2]), ("body", [("model_attributes_type", "body")]))
        self.assertEqual(self.refusal("ChatCompletionRequest", None), ("body", [("missing", "body")]))

    def test_a_union_of_bodies_tells_the_errors_of_all(self):
        fault = self.assertRaises(
            Fault, check_any, ("TokenizeCompletionRequest", "TokenizeChatRequest"), {"model": "base"}
        )
        self.assertEqual(fault.message.count("'missing'"), 2)
        self.assertEqual(fault.param, "body.prompt")
        _, errors = self.refusal("EmbeddingRequest", {"model": "emb"})
        names = [loc.removeprefix("body.") for _, loc in errors]
        self.assertEqual(names, ["input", "messages", "messages", "messages", "input", "messages", "input"])

    def test_what_vllm_adds_to_a_body_counts(self):
        fault = self.assertRaises(Fault, check, "ResponsesRequest", {"model": "base"})
        self.assertIn("'<dict of 2 items>'", fault.message)

    def test_a_validator_speaks_when_the_shape_is_right(self):
        body = {"model": "base", "messages": HELLO}
        _, errors = self.refusal("AnthropicMessagesRequest", {**body, "max_tokens": 0})
        self.assertEqual(errors, [("value_error", "body.max_tokens")])
        _, errors = self.refusal("AnthropicMessagesRequest", {**body, "max_tokens": "x"})
        self.assertEqual(errors, [("int_parsing", "body.max_tokens")])

    def test_a_tagged_union_tells_its_tags(self):
        body = {"model": "m", "max_tokens": 5, "messages": HELLO}
        fault = self.assertRaises(Fault, check, "AnthropicMessagesRequest", {**body, "thinking": {"type": "zz"}})
        self.assertIn("any of the expected tags: 'enabled', 'disabled', 'adaptive'", fault.message)
        param, _ = self.refusal("AnthropicMessagesRequest", {**body, "thinking": {"type": "enabled"}})
        self.assertEqual(param, "body.thinking.enabled.budget_tokens")

    def test_tool_calls_of_a_message_are_looked_at_last(self):
        call = {"id": "a", "type": "function", "function": {"name": "f", "arguments": {}}}
        body = {"messages": [{"role": "assistant", "tool_calls": [call]}]}
        param, errors = self.refusal("ChatCompletionRequest", body)
        self.assertEqual(param, "body.0.ChatCompletionMessageFunctionToolCallParam.function")
        self.assertEqual([kind for kind, _ in errors], ["string_type", "missing", "literal_error"])


class PassTests(SynchronousTestCase):
    def test_a_good_body_is_returned_itself(self):
        body = {"messages": HELLO, "max_tokens": 5, "temperature": None, "unheard_of": {"a": 1}}
        self.assertIs(check("ChatCompletionRequest", body), body)

    def test_values_are_coerced_in_a_copy(self):
        body = {"prompt": "x", "max_tokens": "5", "n": 2.0, "echo": "on", "ignore_eos": 1, "temperature": " 1e-1 "}
        before = copy.deepcopy(body)
        self.assertEqual(
            check("CompletionRequest", body),
            {"prompt": "x", "max_tokens": 5, "n": 2, "echo": True, "ignore_eos": True, "temperature": 0.1},
        )
        self.assertEqual(body, before)

    def test_a_union_prefers_the_member_that_need_not_coerce(self):
        body = {"prompt": ["5", "6"], "vllm_xargs": {"a": "1", "b": 2}}
        self.assertIs(check("CompletionRequest", body), body)

    def test_messages_of_every_common_form_pass(self):
        call = {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}
        messages = [
            *HELLO,
            {"role": "user"},
            {"role": "narrator", "content": "x", "name": "y"},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "a", "content": "x"},
            {"role": "user", "content": [{"type": "text", "text": "x"}, {"type": "image_url", "image_url": {}}, "x"]},
        ]
        check("ChatCompletionRequest", {"messages": messages})

    def test_a_response_item_may_leave_out_what_vllm_fills_in(self):
        said = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "x"}]}
        seen = {"role": "user", "content": [{"type": "input_image", "image_url": "data:x"}]}
        check("ResponsesRequest", {"input": [seen, said]})


class ReadTests(SynchronousTestCase):
    def refusal(self, raw: bytes, content_type: str | None = JSON) -> str:
        return self.assertRaises(Fault, read_json, raw, content_type).message

    def test_only_json_is_read(self):
        self.assertEqual(read_json(b'{"a": 1}', "Application/JSON; charset=utf-8"), {"a": 1})
        for other in (None, "text/plain", "application/json5"):
            self.assertIn("Unsupported Media Type", self.refusal(b"{}", other))

    def test_an_empty_body_is_missing(self):
        self.assertIn("'loc': 'body', 'msg': 'Field required', 'input': 'None'", self.refusal(b""))

    def test_bad_json_is_told_with_its_place(self):
        fault = self.assertRaises(Fault, read_json, b"not json", JSON)
        self.assertEqual(fault.param, "body.0")
        self.assertIn("'input': '<dict of 0 items>', 'ctx': {'error': 'Expecting value'}}", fault.message)

    def test_nan_and_long_integers_are_read_as_python_reads_them(self):
        value = read_json(b'{"a": NaN, "b": 1180591620717411303424}', JSON)
        self.assertNotEqual(value["a"], value["a"])
        self.assertEqual(value["b"], 2**70)

    def test_what_is_no_text_is_refused(self):
        for raw in (b'"\xff"', b'"\\ud800"', b"[" * 100_000, b"1" * 5000):
            self.assertEqual(self.refusal(raw), "There was an error parsing the body")

    def test_a_surrogate_pair_is_one_character(self):
        self.assertEqual(read_json(b'["\\ud83d\\ude00"]', JSON), ["\U0001f600"])


class DocumentTests(SynchronousTestCase):
    def test_only_the_wanted_paths_and_what_they_refer_to_are_told(self):
        found = document(["/detokenize", "/nowhere"])
        self.assertEqual(list(found["paths"]), ["/detokenize"])
        schemas = found["components"]["schemas"]
        self.assertIn("DetokenizeRequest", schemas)
        self.assertNotIn("ChatCompletionRequest", schemas)


class AnyJsonTests(SynchronousTestCase):
    def attempt(self, name: str, body: Any) -> None:
        try:
            check(name, body)
        except Fault as fault:
            self.assertEqual(fault.kind.status, 400)

    @settings(max_examples=150, deadline=None)
    @given(st.sampled_from(NAMES), anything | st.dictionaries(st.sampled_from(FIELDS), anything))
    def test_no_value_is_met_with_anything_but_a_fault(self, name, body):
        self.attempt(name, body)

    @settings(max_examples=100, deadline=None)
    @given(st.sampled_from(NAMES), st.lists(message, max_size=2))
    def test_no_message_is_met_with_anything_but_a_fault(self, name, messages):
        self.attempt(name, {"model": "m", "max_tokens": 1, "messages": messages, "input": messages})

    @settings(max_examples=100, deadline=None)
    @given(st.binary(max_size=30))
    def test_no_bytes_are_met_with_anything_but_a_fault(self, raw):
        try:
            read_json(raw, JSON)
        except Fault as fault:
            self.assertEqual(fault.kind.status, 400)
