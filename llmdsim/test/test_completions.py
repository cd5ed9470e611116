"""The text completion dialect: body to Request, Plan to chunks and completions."""

from __future__ import annotations

import json

from twisted.trial.unittest import SynchronousTestCase

from llmdsim.api.completions import Completions
from llmdsim.config import load
from llmdsim.faults import Fault
from llmdsim.sim.plan import Plan
from llmdsim.sim.request import Model, Tokens


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
