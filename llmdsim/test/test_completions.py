"""The text completion dialect: body to Request, Plan to chunks and completions."""

from __future__ import annotations

import json

from twisted.trial.unittest import SynchronousTestCase

from llmdsim.api.completions import Completions
from llmdsim.config import load
from llmdsim.faults import Fault
from llmdsim.sim.plan import Plan
from llmdsim.sim.request import Model, Tokens
from llmdsim.test.writing import Asked, ask


class CompletionTests(SynchronousTestCase):
    def setUp(self):
        self.dialect = Completions(load(["--model", "m"], {}))

    def ask(self, **body):
        return self.dialect.parse(self.dialect.check({"model": "m", **body}), "1", Model("m"))

    def refusal(self, **body) -> tuple:
        fault = self.assertRaises(Fault, self.ask, **body)
        return fault.message, fault.param

    def plan(self, request, index: int, prompt=(5, 6)) -> Plan:
        return Plan(request, index, Tokens(prompt, ()), ["x", "y"], [1, 2], "length")

    def test_every_form_of_prompt_is_understood(self):
        forms = {
            "text": ("text",),
            ("a", "b"): ("a", "b"),
            (1, 2): ((1, 2),),
            ((1, 2), (3,)): ((1, 2), (3,)),
        }
        for prompt, prompts in forms.items():
            with self.subTest(prompt):
                plain = json.loads(json.dumps(prompt))
                self.assertEqual(self.ask(prompt=plain).prompts, prompts)

    def test_a_completion_without_a_limit_has_16_tokens(self):
        self.assertEqual([self.ask(prompt="x", max_tokens=limit).max_tokens for limit in (None, 3)], [16, 3])

    def test_a_prompt_that_asks_nothing_is_refused_in_vllms_words(self):
        nothing = ("Either prompt or prompt_embeds must be provided and non-empty. (parameter=prompt)", "prompt")
        self.assertEqual([self.refusal(), self.refusal(prompt="")], [nothing, nothing])
        self.assertEqual(self.refusal(prompt=[]), ("You must pass at least one prompt (parameter=prompt)", "prompt"))
        self.assertEqual(self.refusal(prompt=["a", ""]), ("The decoder prompt cannot be empty", None))

    def test_a_suffix_is_refused(self):
        self.assertEqual(
            self.refusal(prompt="x", suffix="y"),
            ("suffix is only supported for models with FIM completion rendering", "suffix"),
        )

    def test_usage_counts_each_prompt_once(self):
        request = self.ask(prompt=[[5, 6], [7]], n=2)
        plans = [self.plan(request, i, (5, 6) if i < 2 else (7,)) for i in range(4)]
        answer = json.loads(self.dialect.writer(request, 7).whole(plans))
        self.assertEqual(answer["usage"]["prompt_tokens"], 3)
        self.assertEqual(answer["usage"]["completion_tokens"], 8)
        self.assertEqual([choice["index"] for choice in answer["choices"]], [0, 1, 2, 3])

    def test_the_last_chunk_carries_text_and_finish_reason_together(self):
        request = self.ask(prompt="x", stream=True)
        data = self.dialect.writer(request, 7).chunks(self.plan(request, 0), 0, 2).decode()
        first, last = [json.loads(block.removeprefix("data: "))["choices"][0] for block in data.split("\n\n")[:-1]]
        self.assertEqual([first["finish_reason"], last["finish_reason"], last["text"]], [None, "length", "y"])

    def test_the_prompts_ids_come_with_the_first_chunk_only(self):
        request = self.ask(prompt="x", stream=True, return_token_ids=True)
        data = self.dialect.writer(request, 7).chunks(self.plan(request, 0), 0, 2).decode()
        choices = [json.loads(block.removeprefix("data: "))["choices"][0] for block in data.split("\n\n")[:-1]]
        self.assertEqual([choice["prompt_token_ids"] for choice in choices], [[5, 6], None])
        self.assertEqual([choice["token_ids"] for choice in choices], [[1], [2]])

    def test_continuous_usage_has_no_details(self):
        options = {"include_usage": True, "continuous_usage_stats": True}
        request = self.ask(prompt="x", stream=True, stream_options=options)
        data = self.dialect.writer(request, 7).chunks(self.plan(request, 0), 0, 1)
        usage = json.loads(data.decode().removeprefix("data: "))["usage"]
        self.assertEqual(usage, {"prompt_tokens": 2, "total_tokens": 3, "completion_tokens": 1})


class EchoTests(SynchronousTestCase):
    def ask(self, **body) -> Asked:
        return ask(Completions, {"prompt": "abc", "echo": True, **body})

    def test_the_prompt_comes_before_the_answer(self):
        asked = self.ask(stream=True)
        plan = asked.plan(["x", "y"], finish="length")
        self.assertEqual(asked.whole(plan)["choices"][0]["text"], "abcxy")
        self.assertEqual([chunk["choices"][0]["text"] for chunk in asked.chunks(plan)], ["abcx", "y"])

    def test_each_choice_repeats_its_prompt_in_its_first_chunk(self):
        asked = self.ask(stream=True, n=2)
        plans = [asked.plan(["x", "y"], index) for index in (0, 1)]
        self.assertEqual([asked.chunks(plan)[0]["choices"][0]["text"] for plan in plans], ["abcx"] * 2)

    def test_its_log_probabilities_come_before_the_answers(self):
        asked = self.ask(logprobs=1, stream=True)
        plan = asked.plan(["x", "y"], finish="length")
        (choice,) = asked.whole(plan)["choices"]
        self.assertEqual(choice["logprobs"]["tokens"], ["a", "b", "c", "x", "y"])
        self.assertEqual(choice["logprobs"]["text_offset"], [0, 1, 2, 3, 4])
        self.assertEqual(len(choice["prompt_logprobs"]), 3)
        parts = [chunk["choices"][0]["logprobs"] for chunk in asked.chunks(plan)]
        for name, values in choice["logprobs"].items():
            self.assertEqual([value for part in parts for value in part[name]], values)

    def test_no_tokens_are_the_prompt_alone_though_one_is_counted(self):
        asked = self.ask(max_tokens=0, logprobs=0, stream=True)
        self.assertEqual(asked.request.max_tokens, 1)
        plan = asked.plan(["x"], finish="length")
        answer, (chunk,) = asked.whole(plan), asked.chunks(plan)
        for choice in (*answer["choices"], *chunk["choices"]):
            self.assertEqual((choice["text"], choice["logprobs"]["tokens"]), ("abc", ["a", "b", "c"]))
        self.assertEqual(answer["usage"]["completion_tokens"], 1)

    def test_the_prompts_log_probabilities_may_be_asked_for_by_themselves(self):
        self.assertEqual(self.ask(logprobs=2, prompt_logprobs=5).request.prompt_logprobs, 5)
        self.assertEqual(self.ask(logprobs=2).request.prompt_logprobs, 2)
        self.assertIsNone(self.ask().request.prompt_logprobs)


class LogprobsTests(SynchronousTestCase):
    def test_the_end_token_is_listed(self):
        asked = ask(Completions, {"prompt": "abc", "logprobs": 1})
        (choice,) = asked.whole(asked.plan(["x", ""]))["choices"]
        self.assertEqual((choice["text"], choice["logprobs"]["tokens"]), ("x", ["x", "<end>"]))

    def test_tokens_are_ids_where_the_client_says_so(self):
        asked = ask(Completions, {"prompt": "abc", "logprobs": 1, "echo": True, "return_tokens_as_token_ids": True})
        (choice,) = asked.whole(asked.plan(["x"]))["choices"]
        self.assertEqual(choice["logprobs"]["tokens"], [f"token_id:{id}" for id in (9, 8, 7, 1)])

    def test_counts_below_zero_are_refused(self):
        words = "`logprobs` must be a positive value. (parameter=logprobs, value=-1)"
        fault = self.assertRaises(Fault, ask, Completions, {"prompt": "x", "logprobs": -1})
        self.assertEqual(fault.message, words)

    def test_the_cache_of_the_last_prompt_is_told(self):
        asked = ask(Completions, {"prompt": ["a", "b"]}, "--enable-prompt-tokens-details")
        answer = asked.whole(asked.plan(["x"]), asked.plan(["y"], 1, cached_tokens=2))
        self.assertEqual(answer["usage"]["prompt_tokens_details"]["cached_tokens"], 2)
