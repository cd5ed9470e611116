"""Rendering: bodies as generate requests, generated tokens as plans."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from llmdsim.api import render
from llmdsim.api.chat import Chat
from llmdsim.api.completions import Completions
from llmdsim.config import load
from llmdsim.faults import Fault
from llmdsim.sim.request import Model, Request, Tokens
from llmdsim.simulated import Simulated

HI = [{"role": "user", "content": "hi"}]
NAMES = (
    "request_id token_ids token_offsets features content_parts sampling_params model reasoning_ended "
    "reasoning_parser_kwargs return_token_ids output_mode parse_context stream stream_options cache_salt priority "
    "kv_transfer_params ec_transfer_params"
)
PARAMETERS = (
    "presence_penalty frequency_penalty repetition_penalty temperature top_p min_p stop stop_token_ids max_tokens "
    "output_kind skip_clone bad_words skip_reading_prefix_cache"
)


class RenderTestCase(SynchronousTestCase):
    def configure(self, *flags: str):
        self.config = load(["--model", "m", "--max-model-len", "64", *flags], {})

    def setUp(self):
        self.configure()

    def chat(self, *flags: str, **body) -> dict:
        self.configure(*flags)
        dialect, body = Chat(self.config), {"messages": HI, **body}
        request = dialect.parse(dialect.check(body), "1", Model("m"))
        return render.chat(self.config, body, request, Tokens([1, 2, 3], ["hi ", "you", "\n"]))

    def text(self, prompt="hi you", **body):
        dialect, body = Completions(self.config), {"prompt": prompt, **body}
        request = dialect.parse(dialect.check(body), "1", Model("m"))
        written: Any = request.prompts[0]
        tokens = Simulated().encode(written) if isinstance(written, str) else Tokens(written, ())
        return render.completion(self.config, body, request, written, tokens)


class RenderTests(RenderTestCase):
    def test_a_generate_request_has_every_field_of_vllms_in_its_order(self):
        self.assertEqual([" ".join(self.chat()), " ".join(self.text())], [NAMES, NAMES])

    def test_a_chat_and_a_completion_are_named_as_their_answers_would_be(self):
        self.assertEqual([self.chat()["request_id"], self.text()["request_id"]], ["chatcmpl-1", "cmpl-1"])

    def test_a_completion_has_nothing_for_parsers(self):
        shown = self.text()
        names = ("reasoning_ended", "reasoning_parser_kwargs", "parse_context", "features")
        self.assertEqual([shown[name] for name in names], [None] * 4)

    def test_a_chat_tells_parsers_what_its_template_read(self):
        shown = self.chat("--reasoning-parser", "qwen3", chat_template_kwargs={"enable_thinking": True})
        read = shown["reasoning_parser_kwargs"]["chat_template_kwargs"]
        wanted = {"cohere_format": "cmd4", "enable_thinking": True}
        wanted |= {"add_generation_prompt": True, "continue_final_message": False}
        self.assertEqual((read, list(read)), (wanted, list(wanted)))
        self.assertIs(shown["reasoning_ended"], False)
        context = shown["parse_context"]
        names = "tools tool_choice parallel_tool_calls include_reasoning chat_template_kwargs history_tool_call_cnt"
        self.assertEqual(list(context), names.split())
        self.assertEqual((context["tool_choice"], context["chat_template_kwargs"]), ("none", read))

    def test_without_a_reasoning_parser_there_is_nothing_to_tell_it(self):
        shown = self.chat()
        self.assertEqual([shown["reasoning_ended"], shown["reasoning_parser_kwargs"]], [None, None])

    def test_tools_are_passed_on_with_their_choice(self):
        tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}]
        context = self.chat(tools=tools)["parse_context"]
        self.assertEqual((context["tools"], context["tool_choice"]), (tools, "auto"))

    def test_media_become_features(self):
        image = {"type": "image_url", "image_url": {"url": "u"}}
        messages = [{"role": "user", "content": [{"type": "text", "text": "x"}, image]}]
        shown = self.chat(messages=messages)["features"]
        self.assertEqual(shown["mm_placeholders"], {"image": [{"offset": 0, "length": 3}]})
        self.assertEqual(list(shown), ["mm_hashes", "mm_placeholders", "kwargs_data"])
        self.assertNotIn("kwargs_data", self.chat(messages=messages, mm_payload="none")["features"])

    def test_offsets_come_when_asked_for_and_where_the_prompt_was_text(self):
        self.assertEqual(self.text(return_token_offsets=True)["token_offsets"], [[0, 3], [3, 6]])
        self.assertEqual(self.chat(return_token_offsets=True)["token_offsets"], [[0, 3], [3, 6], [6, 7]])
        self.assertIsNone(self.text()["token_offsets"])
        self.assertIsNone(self.text([5, 6], return_token_offsets=True)["token_offsets"])

    def test_a_special_token_takes_no_room_in_the_text(self):
        body, tokens = {"prompt": "hi", "return_token_offsets": True}, Tokens([0, 1], ["<s>", "hi"])
        request = Request("r", Model("m"), ("hi",), max_tokens=1)
        shown = render.completion(self.config, body, request, "hi", tokens)
        self.assertEqual(shown["token_offsets"], [[0, 0], [0, 2]])

    def test_what_the_body_says_of_the_stream_is_passed_on_whole(self):
        shown = self.text(stream=True, stream_options={"include_usage": True}, priority=3, cache_salt="s")
        self.assertEqual(shown["stream_options"], {"include_usage": True, "continuous_usage_stats": False})
        self.assertEqual((shown["stream"], shown["priority"], shown["cache_salt"]), (True, 3, "s"))

    def test_an_adapter_is_refused(self):
        text = "The model `l1` is a LoRA adapter and is not supported by the render endpoints."
        self.assertEqual(self.assertRaises(Fault, render.check_base, Model("l1", "l1")).message, text)
        render.check_base(Model("m"))


class SamplingTests(RenderTestCase):
    def test_a_completion_shows_vllms_parameters_and_no_default_integer(self):
        self.assertEqual(" ".join(self.text(max_tokens=5)["sampling_params"]), PARAMETERS)
        self.assertNotIn("max_tokens", self.text()["sampling_params"])

    def test_a_chat_without_a_limit_may_fill_the_context_window(self):
        self.assertEqual(self.chat()["sampling_params"]["max_tokens"], 61)
        self.assertEqual(self.chat(max_tokens=63)["sampling_params"]["max_tokens"], 61)

    def test_a_prompt_without_room_for_an_answer_is_refused(self):
        fault = self.assertRaises(Fault, self.text, [1] * 64)
        self.assertEqual(fault.message, "max_tokens must be at least 1, got 0. (parameter=max_tokens, value=0)")

    def test_what_the_body_sets_is_shown_in_vllms_order(self):
        body = {"n": 2, "seed": 4, "top_k": 3, "min_tokens": 2, "logprobs": 1, "ignore_eos": True, "stop": "abc"}
        shown = self.text(**body)["sampling_params"]
        order = [name for name, _, _ in render._FIELDS if name in shown]
        self.assertEqual(list(shown), order)
        self.assertEqual((shown["stop"], shown["output_text_buffer_length"], shown["top_k"]), (["abc"], 2, 3))

    def test_floats_stay_floats(self):
        self.assertIsInstance(self.text(temperature=1)["sampling_params"]["temperature"], float)

    def test_greedy_sampling_leaves_nothing_to_chance(self):
        shown = self.text(temperature=0, top_p=0.5, top_k=9)["sampling_params"]
        self.assertEqual((shown["temperature"], shown["top_p"], shown.get("top_k")), (0.0, 1.0, None))

    def test_a_stream_wants_deltas(self):
        kinds = [self.text(stream=stream)["sampling_params"]["output_kind"] for stream in (False, True)]
        self.assertEqual(kinds, [render.FINAL_ONLY, render.DELTA])

    def test_special_tokens_are_shown_to_the_parsers_that_look_for_them(self):
        tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}]
        for flags, body, shown in (
            ((), {}, None),
            ((), {"skip_special_tokens": False}, False),
            (("--reasoning-parser", "qwen3"), {}, False),
            (("--tool-call-parser", "hermes"), {}, None),
            (("--tool-call-parser", "hermes"), {"tools": tools}, False),
            (("--tool-call-parser", "hermes"), {"tools": tools, "tool_choice": "none"}, None),
        ):
            found = self.chat(*flags, **body)["sampling_params"].get("skip_special_tokens")
            self.assertIs(found, shown, (flags, body))

    def test_a_chats_logprobs_are_its_top_logprobs(self):
        self.assertEqual(self.chat(logprobs=True, top_logprobs=3)["sampling_params"]["logprobs"], 3)
        self.assertEqual(self.chat(logprobs=True)["sampling_params"]["logprobs"], 0)
        self.assertNotIn("logprobs", self.chat(logprobs=False)["sampling_params"])

    def test_transfer_parameters_are_extra_arguments_too(self):
        remote = {"do_remote_decode": True}
        shown = self.text(kv_transfer_params=remote, vllm_xargs={"a": 1})
        self.assertEqual(shown["sampling_params"]["extra_args"], {"a": 1, "kv_transfer_params": remote})
        self.assertEqual(shown["kv_transfer_params"], remote)


class DerenderTests(RenderTestCase):
    def plans(self, *choices: dict, **body) -> list:
        checked = render.check_answer({"generate_response": {"choices": list(choices)}, **body})
        return render.answered(Request("r", Model("m"), ((),), stream=True), checked, str, 0)

    def test_each_choice_becomes_a_plan_that_says_its_text_without_the_end_token(self):
        one, two = self.plans({"index": 0, "token_ids": [7, 8, 0]}, {"index": 1, "token_ids": []})
        self.assertEqual(("".join(one.texts), one.ids, len(one.texts)), ("[7, 8]", [7, 8, 0], 3))
        self.assertEqual((two.index, two.ids, two.request.n, two.request.stream), (1, [], 2, False))

    def test_the_finish_reason_is_the_generated_one(self):
        plans = self.plans({"index": 0, "token_ids": [1], "finish_reason": "length"}, {"index": 1, "token_ids": [1]})
        self.assertEqual([plan.finish for plan in plans], ["length", "stop"])

    def test_the_prompt_is_counted_where_it_is_told(self):
        choice = {"index": 0, "token_ids": [1]}
        self.assertEqual([self.plans(choice, prompt_token_ids=[1, 2])[0].prompt_tokens], [2])
        self.assertEqual(self.plans(choice)[0].prompt_tokens, 0)

    def test_a_body_of_another_shape_is_refused_where_it_is_wrong(self):
        for body, param in (
            ([], "body"),
            ({}, "body.generate_response"),
            ({"generate_response": {}}, "body.generate_response.0.choices"),
            ({"generate_response": {"choices": []}}, "body.generate_response.0.choices"),
            ({"generate_response": {"choices": [{"index": 0}]}}, "body.generate_response.0.choices.0.token_ids"),
        ):
            self.assertEqual(self.assertRaises(Fault, render.check_answer, body).param, param)

    def test_a_parser_needs_the_chat_that_was_asked(self):
        for flag in ("--tool-call-parser", "--reasoning-parser"):
            self.configure(flag, "x")
            fault = self.assertRaises(Fault, render.check_parsers, self.config, {})
            self.assertTrue(fault.message.startswith("chat_request is required when a tool or reasoning parser is"))
            render.check_parsers(self.config, {"chat_request": {}})
        self.configure()
        render.check_parsers(self.config, {})
