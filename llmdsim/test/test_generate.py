"""The dialect of tokens in and tokens out: body to Request, Plan to chunks and answers."""

from __future__ import annotations

import json

from twisted.trial.unittest import SynchronousTestCase

from llmdsim.api.generate import Generate
from llmdsim.api.parts import DONE
from llmdsim.config import load
from llmdsim.faults import INTERNAL, Fault
from llmdsim.sim.plan import Plan, abort
from llmdsim.sim.request import Model, Tokens

BODY = [
    "token_ids",
    "stream",
    "stream_options",
    "output_mode",
    "return_token_ids",
    "kv_transfer_params",
    "features",
    "cache_salt",
    "ec_transfer_params",
]


class GenerateTestCase(SynchronousTestCase):
    def setUp(self):
        self.dialect = Generate(load(["--model", "m", "--max-model-len", "8"], {}))

    def ask(self, id: str = "1", **body):
        sampling = {name: body.pop(name) for name in tuple(body) if name not in BODY}
        checked = self.dialect.check({"token_ids": [5, 6], "sampling_params": sampling, **body})
        return self.dialect.parse(checked, id, Model("m"))

    def plan(self, request, index: int = 0) -> Plan:
        return Plan(request, index, Tokens((5, 6), ()), ["x", 'y"', "z", ""], [1, 2, 3, 0], "stop")

    def chunks(self, request, *slices: tuple[int, int], plan: Plan | None = None) -> list:
        writer, plan = self.dialect.writer(request, 7), plan or self.plan(request)
        data = b"".join(writer.chunks(plan, start, stop) for start, stop in slices)
        return [json.loads(block.removeprefix("data: ")) for block in data.decode().split("\n\n")[:-1]]

    def whole(self, request, *plans: Plan):
        return json.loads(self.dialect.writer(request, 7).whole(plans or [self.plan(request)]))


class QuestionTests(GenerateTestCase):
    def refusal(self, **body) -> tuple:
        fault = self.assertRaises(Fault, self.ask, **body)
        return fault.message, fault.param

    def test_the_prompt_is_the_ids_as_they_came(self):
        request = self.ask(max_tokens=3)
        self.assertEqual((request.id, request.prompts, request.max_tokens), ("generate-tokens-1", ((5, 6),), 3))

    def test_without_a_limit_the_answer_may_fill_the_context_window(self):
        self.assertEqual([self.ask().max_tokens, self.ask(max_tokens=None).max_tokens], [None, None])

    def test_a_limit_beyond_the_context_window_is_cut_in_silence(self):
        self.assertEqual(self.ask(max_tokens=9000).max_tokens, 8)

    def test_more_tokens_than_the_context_window_are_refused_in_vllms_words(self):
        text = "Input length (9) exceeds model's maximum context length (8)."
        self.assertEqual(self.refusal(token_ids=[1] * 9), (text, None))
        self.assertEqual(len(self.ask(token_ids=[1] * 8).prompts[0]), 8)

    def test_sampling_parameters_are_checked_as_in_the_dialects_of_text(self):
        self.assertEqual(self.refusal(temperature=3)[1], "temperature")
        self.assertEqual(self.refusal(max_tokens=0)[1], "max_tokens")
        self.assertEqual(self.refusal(stop=[""])[0], "stop cannot contain an empty string.")
        self.assertEqual(self.refusal(logprobs=30)[1], "logprobs")
        self.assertEqual(self.refusal(logprobs=-2)[1], "logprobs")

    def test_sampling_parameters_reach_the_question(self):
        request = self.ask(n=2, stop="a", stop_token_ids=[3], min_tokens=1, ignore_eos=True, seed=4, logprobs=2)
        self.assertEqual((request.n, request.ignore_eos, request.seed, request.logprobs), (2, True, 4, 2))
        stops = request.stops
        self.assertEqual((stops.strings, stops.ids, stops.min_tokens), (("a",), frozenset([3]), 1))

    def test_minus_one_asks_for_more_logprobs_than_any_limit(self):
        self.assertRaises(Fault, self.ask, logprobs=-1)

    def test_fields_that_are_no_sampling_parameters_change_nothing(self):
        self.assertEqual(self.ask(max_completion_tokens="x", stream_options=None, return_token_ids=None), self.ask())

    def test_what_a_simulated_engine_has_no_use_for_is_accepted(self):
        media = {"mm_hashes": {"image": ["h"]}, "mm_placeholders": {"image": [{"offset": 0, "length": 1}]}}
        self.assertEqual(self.ask(features=media, cache_salt="s", ec_transfer_params={"a": 1}), self.ask())

    def test_transfer_parameters_count_at_the_root_before_the_extra_arguments(self):
        remote, local = ({"do_remote_prefill": value} for value in (True, False))
        found = [
            self.ask(kv_transfer_params=remote),
            self.ask(extra_args={"kv_transfer_params": remote}),
            self.ask(extra_args={"kv_transfer_params": remote}, kv_transfer_params=local),
            self.ask(extra_args={"kv_transfer_params": "x"}),
        ]
        self.assertEqual([request.transfer.do_remote_prefill for request in found], [True, True, False, False])


class AnswerTests(GenerateTestCase):
    def test_a_whole_answer_has_every_field_of_vllms_in_its_order(self):
        answer = self.whole(self.ask())
        names = "request_id model created usage prompt_logprobs prompt_token_id_logprobs prompt_token_ids"
        names += " mm_placeholders metrics kv_transfer_params ec_transfer_params output_mode choices"
        self.assertEqual(list(answer), names.split())
        names = "index finish_reason stop_reason token_ids routed_experts sampling_mask weight_versions logprobs"
        self.assertEqual(list(answer["choices"][0]), names.split())
        self.assertEqual(answer["choices"][0]["weight_versions"], [{"version": "default", "start": 0, "end": 4}])

    def test_the_end_token_is_among_the_ids(self):
        self.assertEqual(self.whole(self.ask())["choices"][0]["token_ids"], [1, 2, 3, 0])

    def test_text_mode_adds_the_text_before_the_logprobs(self):
        answer = self.whole(self.ask(output_mode="text"))
        self.assertEqual(answer["output_mode"], "text")
        self.assertEqual(list(answer["choices"][0].items())[-2:], [("text", 'xy"z'), ("logprobs", None)])

    def test_the_prompts_ids_are_returned_when_asked_for(self):
        self.assertEqual(self.whole(self.ask(return_token_ids=True))["prompt_token_ids"], [5, 6])

    def test_logprobs_rank_the_token_before_its_alternatives(self):
        entries = self.whole(self.ask(logprobs=2))["choices"][0]["logprobs"]["content"]
        self.assertEqual([entry["token_id"] for entry in entries], [1, 2, 3, 0])
        top = entries[1].pop("top_logprobs")
        self.assertEqual(list(entries[1]), ["token_id", "logprob", "rank"])
        self.assertEqual([(each["token_id"], each["rank"]) for each in top], [(2, 1), (3, 2)])
        self.assertEqual(top[0], entries[1])
        self.assertEqual(self.whole(self.ask(logprobs=0))["choices"][0]["logprobs"]["content"][0]["top_logprobs"], [])

    def test_usage_counts_the_prompt_once_and_tells_details_as_text_does(self):
        request = self.ask(n=2)
        usage = self.whole(request, self.plan(request), self.plan(request, 1))["usage"]
        self.assertEqual([usage["prompt_tokens"], usage["completion_tokens"]], [2, 8])
        self.assertIsNone(usage["prompt_tokens_details"])
        self.dialect = Generate(load(["--model", "m", "--enable-prompt-tokens-details"], {}))
        details = {"cached_tokens": 0, "created_cache_tokens": None, "multimodal_tokens": None}
        self.assertEqual(self.whole(self.ask())["usage"]["prompt_tokens_details"], details)


class StreamTests(GenerateTestCase):
    def choices(self, request, *slices: tuple[int, int], plan: Plan | None = None) -> list:
        return [chunk["choices"][0] for chunk in self.chunks(request, *slices, plan=plan)]

    def test_each_token_has_a_chunk_and_the_last_one_the_finish_reason(self):
        for mode, text in (("tokens", [None] * 4), ("text", ["x", 'y"', "z", ""])):
            request = self.ask(stream=True, output_mode=mode)
            for slices in ([(0, 4)], [(0, 1), (1, 3), (3, 4)]):
                found = self.choices(request, *slices)
                self.assertEqual([choice["token_ids"] for choice in found], [[1], [2], [3], [0]])
                self.assertEqual([choice["finish_reason"] for choice in found], [None, None, None, "stop"])
                self.assertEqual([choice.get("text") for choice in found], text)

    def test_a_chunk_that_is_cut_has_the_form_of_one_that_is_spelled(self):
        for mode in ("tokens", "text"):
            request = self.ask(stream=True, output_mode=mode)
            first, last = self.chunks(request, (2, 4))
            self.assertEqual(list(first), ["request_id", "usage", "output_mode", "choices"])
            self.assertEqual(list(first["choices"][0]), list(last["choices"][0]))

    def test_a_client_may_call_its_request_anything(self):
        for id in ('"', "%d %b", "\uffffid\uffff", "\uffff\uffff", "12"):
            request = self.ask(id, stream=True, output_mode="text")
            (chunk,) = self.chunks(request, (1, 2))
            self.assertEqual(chunk["request_id"], f"generate-tokens-{id}")
            self.assertEqual((chunk["choices"][0]["token_ids"], chunk["choices"][0]["text"]), ([2], 'y"'))

    def test_choices_have_chunks_of_their_own(self):
        request = self.ask(stream=True, n=2)
        writer = self.dialect.writer(request, 7)
        data = b"".join(writer.chunks(self.plan(request, index), 0, 1) for index in (0, 1, 0))
        found = [json.loads(block[6:])["choices"][0]["index"] for block in data.decode().split("\n\n")[:-1]]
        self.assertEqual(found, [0, 1, 0])

    def test_logprobs_and_running_usage_come_with_each_token(self):
        options = {"include_usage": True, "continuous_usage_stats": True}
        found = self.chunks(self.ask(stream=True, stream_options=options, logprobs=1), (0, 4))
        self.assertEqual([chunk["usage"]["completion_tokens"] for chunk in found], [1, 2, 3, 4])
        entries = [chunk["choices"][0]["logprobs"]["content"] for chunk in found]
        self.assertEqual([[entry["token_id"] for entry in each] for each in entries], [[1], [2], [3], [0]])

    def test_a_stream_interval_gathers_tokens(self):
        found = self.choices(self.ask(stream=True, stream_interval=2), (0, 1), (1, 2), (2, 4))
        self.assertEqual([choice["token_ids"] for choice in found], [[1], [2, 3], [0]])

    def test_an_aborted_sequence_ends_without_a_token(self):
        for fields in ({}, {"logprobs": 1}, {"output_mode": "text"}):
            request = self.ask(stream=True, **fields)
            plan = self.plan(request)
            abort(plan, 2)
            found = self.choices(request, (0, 3), plan=plan)
            self.assertEqual([choice["token_ids"] for choice in found], [[1], [2], []])
            self.assertEqual(found[-1]["finish_reason"], "abort")

    def test_usage_follows_the_tokens_when_asked_for(self):
        for asked, count in ((False, 0), (True, 1)):
            request = self.ask(stream=True, stream_options={"include_usage": asked})
            data = self.dialect.writer(request, 7).closing([self.plan(request)])
            self.assertTrue(data.endswith(DONE))
            self.assertEqual(data.count(b'"choices":[]'), count)

    def test_a_fault_in_mid_stream_is_an_event(self):
        data = self.dialect.writer(self.ask(stream=True), 7).fault(Fault(INTERNAL, "oh"))
        self.assertEqual(json.loads(data.removesuffix(DONE)[6:])["error"]["message"], "oh")
