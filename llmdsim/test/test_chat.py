"""The chat dialect: body to Request, Plan to chunks and completions."""

from __future__ import annotations

import json

from twisted.trial.unittest import SynchronousTestCase

from llmdsim.api.chat import Chat, ChatBatch
from llmdsim.config import load
from llmdsim.faults import Fault
from llmdsim.sim.plan import Plan
from llmdsim.sim.request import Model, Tokens
from llmdsim.test.writing import USER, Asked, ask

HELLO = {"model": "m", "messages": [{"role": "user", "content": "Hello"}]}


def events(data: bytes) -> list:
    """The JSON of each event; the end mark as text."""
    texts = [block.removeprefix("data: ") for block in data.decode().split("\n\n")[:-1]]
    return [text if text == "[DONE]" else json.loads(text) for text in texts]


class ChatTests(SynchronousTestCase):
    def dialect(self, *flags: str) -> Chat:
        return Chat(load(["--model", "m", *flags], {}))

    def ask(self, body: dict, *flags: str):
        dialect = self.dialect(*flags)
        return dialect.parse(dialect.check({**HELLO, **body}), "1", Model("m"))

    def refusal(self, body: dict) -> tuple:
        fault = self.assertRaises(Fault, self.ask, body)
        return fault.kind.status, fault.message, fault.param

    def writer(self, body: dict, *flags: str):
        dialect = self.dialect(*flags)
        request = dialect.parse(dialect.check({**HELLO, **body}), "1", Model("m"))
        return dialect.writer(request, 7), request

    def plan(self, request, texts=("Hi", " there", ""), index=0, finish="stop") -> Plan:
        ids = list(range(1, len(texts) + 1))
        return Plan(request, index, Tokens([9, 8, 7], ["a", "b", "c"]), list(texts), ids, finish)

    def test_max_completion_tokens_wins_over_max_tokens(self):
        request = self.ask({"max_tokens": 5, "max_completion_tokens": 9})
        self.assertEqual((request.max_tokens, request.limit_name), (9, "max_completion_tokens"))

    def test_a_field_that_is_null_is_a_field_that_is_absent(self):
        nulls = dict.fromkeys(("n", "stop", "max_tokens", "stream", "stream_options", "temperature", "tool_choice"))
        self.assertEqual(self.ask(nulls), self.ask({}))

    def test_usage_in_every_chunk_needs_usage(self):
        options = {"continuous_usage_stats": True}
        self.assertFalse(self.ask({"stream": True, "stream_options": options}).continuous_usage)
        self.assertTrue(
            self.ask({"stream": True, "stream_options": options | {"include_usage": True}}).continuous_usage
        )

    def test_sampling_fields_out_of_range_are_refused_in_vllms_words(self):
        cases = [
            ("temperature", -1, "temperature must be non-negative, got -1.0. (parameter=temperature, value=-1.0)"),
            ("temperature", 2.5, "temperature must be in [0, 2], got 2.5. (parameter=temperature, value=2.5)"),
            ("top_p", 0, "top_p must be in (0, 1], got 0.0. (parameter=top_p, value=0.0)"),
            ("top_k", -5, "top_k must be 0 (disable), or at least 1, got -5."),
            ("presence_penalty", 3, "presence_penalty must be in [-2, 2], got 3.0."),
            ("n", 0, "n must be at least 1, got 0."),
            ("max_tokens", 0, "max_tokens must be at least 1, got 0. (parameter=max_tokens, value=0)"),
            ("stop", [""], "stop cannot contain an empty string."),
            ("messages", [], "Cannot apply chat template to an empty conversation. Provide at least one message."),
        ]
        for name, value, message in cases:
            with self.subTest(name):
                self.assertEqual(self.refusal({name: value})[:2], (400, message))

    def test_greedy_sampling_has_one_choice(self):
        self.assertEqual(self.refusal({"n": 2, "temperature": 0})[1], "n must be 1 when using greedy sampling, got 2.")

    def test_a_stream_begins_with_a_role_chunk_for_each_choice(self):
        writer, request = self.writer({"stream": True, "n": 2})
        chunks = events(writer.opening(self.plan(request)))
        self.assertEqual([chunk["choices"][0]["index"] for chunk in chunks], [0, 1])
        self.assertEqual(chunks[0]["choices"][0]["delta"], {"role": "assistant", "content": ""})
        self.assertEqual(list(chunks[0])[-2:], ["prompt_token_ids", "prompt_text"])

    def test_the_finish_reason_rides_on_the_last_token_with_the_fingerprint(self):
        writer, request = self.writer({"stream": True})
        first, second, last = events(writer.chunks(self.plan(request), 0, 3))
        self.assertEqual([first["choices"][0]["finish_reason"], "system_fingerprint" in second], [None, False])
        self.assertEqual(last["choices"][0]["finish_reason"], "stop")
        self.assertEqual(last["choices"][0]["delta"], {"content": ""})
        self.assertTrue(last["system_fingerprint"].startswith("vllm-0.33.0-"))

    def test_a_frame_from_the_template_is_the_frame_spelled_in_full(self):
        writer, request = self.writer({"stream": True})
        plan = self.plan(request, ('say "\u00e9\n\u2028', "x"))
        full = json.dumps(writer.token_chunk(plan, 0, plan.texts[0]), separators=(",", ":"), ensure_ascii=False)
        self.assertEqual(writer.chunks(plan, 0, 1), f"data: {full}\n\n".encode())

    def test_late_tokens_are_the_same_frames_joined(self):
        writer, request = self.writer({"stream": True})
        plan = self.plan(request, ("a", "b", "c", "d"))
        one_by_one = b"".join(writer.chunks(plan, i, i + 1) for i in range(4))
        self.assertEqual(writer.chunks(plan, 0, 4), one_by_one)
        self.assertEqual(writer.chunks(plan, 0, 3) + writer.chunks(plan, 3, 4), one_by_one)

    def test_the_usage_chunk_has_the_fingerprint_and_the_last_token_has_not(self):
        writer, request = self.writer({"stream": True, "stream_options": {"include_usage": True}})
        plan = self.plan(request)
        self.assertNotIn("system_fingerprint", events(writer.chunks(plan, 2, 3))[0])
        usage, done = events(writer.closing([plan]))
        self.assertEqual(usage["usage"], {"prompt_tokens": 3, "total_tokens": 6, "completion_tokens": 3})
        self.assertEqual((usage["choices"], list(usage)[-1], done), ([], "system_fingerprint", "[DONE]"))

    def test_continuous_usage_counts_what_was_said_so_far(self):
        options = {"include_usage": True, "continuous_usage_stats": True}
        writer, request = self.writer({"stream": True, "stream_options": options})
        plan = self.plan(request)
        chunks = events(writer.opening(plan) + writer.chunks(plan, 0, 3))
        self.assertEqual([chunk["usage"]["completion_tokens"] for chunk in chunks], [0, 1, 2, 3])

    def test_token_ids_come_with_their_chunks_and_the_prompts_with_the_role(self):
        writer, request = self.writer({"stream": True, "return_token_ids": True})
        plan = self.plan(request)
        role, *chunks = events(writer.opening(plan) + writer.chunks(plan, 0, 3))
        self.assertEqual(role["prompt_token_ids"], [9, 8, 7])
        self.assertEqual([chunk["choices"][0]["token_ids"] for chunk in chunks], [[1], [2], [3]])

    def test_usage_counts_the_prompt_once_and_every_choices_tokens(self):
        writer, request = self.writer({"n": 2})
        plans = [self.plan(request, index=i) for i in range(2)]
        answer = json.loads(writer.whole(plans))
        self.assertEqual(answer["usage"]["prompt_tokens"], 3)
        self.assertEqual(answer["usage"]["completion_tokens"], 6)
        self.assertEqual([choice["message"]["content"] for choice in answer["choices"]], ["Hi there"] * 2)

    def test_a_fault_in_mid_stream_is_an_error_event_and_the_end_mark(self):
        writer, _ = self.writer({"stream": True})
        kind = self.assertRaises(Fault, self.ask, {"n": 0}).kind
        error, done = events(writer.fault(Fault(kind, "gone")))
        self.assertEqual(error, {"error": {"message": "gone", "type": kind.type, "param": None, "code": 400}})
        self.assertEqual(done, "[DONE]")


class EchoTests(SynchronousTestCase):
    WELL = (USER, {"role": "assistant", "content": "Well"})

    def ask(self, *messages: dict, **body) -> Asked:
        return ask(Chat, {"messages": list(messages), "echo": True, "stream": True, **body})

    def echoed(self, asked: Asked) -> tuple:
        """What the whole message says, and what the stream says before the first token."""
        plan = asked.plan([" so", ""])
        streamed = [chunk["choices"][0]["delta"] for chunk in asked.stream(plan)[:-3]]
        (choice,) = asked.whole(plan)["choices"]
        return choice["message"]["role"], choice["message"]["content"], streamed

    def test_the_last_message_is_repeated_where_the_answer_continues_it(self):
        role = {"role": "assistant", "content": ""}
        self.assertEqual(self.echoed(self.ask(*self.WELL)), ("assistant", "Well so", [role, {"content": "Well"}]))
        self.assertEqual(self.echoed(self.ask(USER)), ("assistant", " so", [role]))

    def test_without_a_turn_of_its_own_the_model_speaks_as_who_spoke_last(self):
        asked = self.ask(USER, add_generation_prompt=False)
        role = {"role": "user", "content": ""}
        self.assertEqual(self.echoed(asked), ("user", "Hello so", [role, {"content": "Hello"}]))

    def test_parts_are_repeated_as_lines(self):
        parts = [{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {"url": "x"}}, "b"]
        self.assertEqual(self.echoed(self.ask({"role": "assistant", "content": parts}))[1], "a\nb so")

    def test_what_is_echoed_comes_with_the_usage_of_nothing(self):
        options = {"include_usage": True, "continuous_usage_stats": True}
        asked = self.ask(*self.WELL, stream_options=options)
        echo = asked.stream(asked.plan(["a", ""]))[1]
        self.assertEqual(list(echo), ["id", "object", "created", "model", "choices", "usage"])
        self.assertEqual((list(echo["choices"][0])[-1], echo["usage"]["completion_tokens"]), ("finish_reason", 0))

    def test_it_makes_content_of_reasoning_alone(self):
        asked = ask(Chat, {"messages": list(self.WELL), "echo": True}, "--reasoning-parser", "qwen3")
        message = asked.whole(asked.plan(["why"], finish="length"))["choices"][0]["message"]
        self.assertEqual((message["content"], message["reasoning"]), ("Well", "why"))

    def test_each_conversation_of_a_batch_has_its_own(self):
        asked = ask(ChatBatch, {"messages": [[USER], list(self.WELL)], "echo": True})
        answer = asked.whole(asked.plan(["a"]), asked.plan(["b"], 1))
        self.assertEqual([choice["message"]["content"] for choice in answer["choices"]], ["a", "Wellb"])
        self.assertEqual(answer["usage"]["prompt_tokens"], 6)

    def test_the_prompts_log_probabilities_come_along_as_many_as_the_answers(self):
        self.assertEqual(self.ask(USER).request.prompt_logprobs, 0)
        self.assertEqual(self.ask(USER, logprobs=True, top_logprobs=3).request.prompt_logprobs, 3)
        self.assertEqual(self.ask(USER, stream=False, prompt_logprobs=2).request.prompt_logprobs, 2)


class LogprobsTests(SynchronousTestCase):
    def ask(self, *flags: str, **body) -> Asked:
        return ask(Chat, {"messages": [USER], "logprobs": True, **body}, *flags)

    def test_every_token_has_an_entry_the_end_token_too(self):
        asked = self.ask(top_logprobs=2)
        plan = asked.plan(["a", "b", ""])
        entries = asked.whole(plan)["choices"][0]["logprobs"]["content"]
        self.assertEqual([entry["token"] for entry in entries], ["a", "b", "<end>"])
        chunks = asked.chunks(plan)
        self.assertEqual([entry for chunk in chunks for entry in chunk["choices"][0]["logprobs"]["content"]], entries)

    def test_tokens_are_ids_where_the_client_or_the_server_says_so(self):
        asked = (self.ask(return_tokens_as_token_ids=True), self.ask("--return-tokens-as-token-ids"))
        for each in asked:
            (entry,) = each.whole(each.plan(["a"]))["choices"][0]["logprobs"]["content"]
            self.assertEqual(entry["token"], "token_id:1")

    def test_text_that_is_held_back_has_the_entries_of_its_tokens(self):
        asked = self.ask(stop=["zz"], stream=True)
        chunks = asked.chunks(asked.plan(["", "ab"], tokens=["a", "b", "c"], finish="length"))
        said = [(chunk["choices"][0]["delta"]["content"], chunk["choices"][0]["logprobs"]) for chunk in chunks]
        self.assertEqual([(text, logprobs["content"][0]["token"]) for text, logprobs in said], [("", "a"), ("ab", "b")])

    def test_counts_that_fit_nothing_are_refused_in_vllms_words(self):
        most = "Requested sample logprobs of 21, which is greater than max allowed: 20 (parameter=logprobs, value=21)"
        negative = "`{0}` must be a positive value or -1. (parameter={0}, value=-2)"
        unset = "when using `top_logprobs`, `logprobs` must be set to true. (parameter=top_logprobs)"
        stream = "`prompt_logprobs` are not available when `stream=True`. (parameter=prompt_logprobs)"
        cases = [
            ({"top_logprobs": 21}, most),
            ({"top_logprobs": -1}, most),
            ({"top_logprobs": -2}, negative.format("top_logprobs")),
            ({"prompt_logprobs": -2}, negative.format("prompt_logprobs")),
            ({"top_logprobs": 1, "logprobs": False}, unset),
            ({"prompt_logprobs": 1, "stream": True}, stream),
        ]
        for body, message in cases:
            with self.subTest(body):
                self.assertEqual(self.assertRaises(Fault, self.ask, **body).message, message)

    def test_a_server_without_a_limit_gives_some_for_all(self):
        for name in ("top_logprobs", "prompt_logprobs"):
            request = self.ask("--max-logprobs", "-1", **{name: -1}).request
            self.assertGreater(request.logprobs or request.prompt_logprobs, 1)

    def test_a_stream_may_ask_for_no_log_probabilities_of_its_prompt(self):
        self.assertEqual(self.ask(prompt_logprobs=0, stream=True).request.prompt_logprobs, 0)

    def test_the_prompts_are_told_once(self):
        asked = self.ask(prompt_logprobs=1, n=2)
        answer = asked.whole(asked.plan(["a"]), asked.plan(["b"], 1))
        self.assertEqual([top and list(top) for top in answer["prompt_logprobs"]], [None, ["8", "9"], ["7", "8"]])
