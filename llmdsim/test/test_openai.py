"""Answers in the OpenAI form: what both dialects share, whole and streamed."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, ClassVar

from twisted.trial.unittest import SynchronousTestCase

from llmdsim.api.chat import Chat
from llmdsim.api.completions import Completions
from llmdsim.api.openai import timings
from llmdsim.sim.plan import abort
from llmdsim.test.writing import USER, Asked, ask, events

USAGE = {"stream": True, "stream_options": {"include_usage": True}}
EACH = {"stream": True, "stream_options": {"include_usage": True, "continuous_usage_stats": True}}
COUNTS = {"prompt_tokens": 3, "total_tokens": 5, "completion_tokens": 2}


def chat(*flags: str, **body: Any) -> Asked:
    """A chat."""
    return ask(Chat, {"messages": [USER], **body}, *flags)


def text(*flags: str, **body: Any) -> Asked:
    """A completion."""
    return ask(Completions, {"prompt": "abc", **body}, *flags)


class KeyTests(SynchronousTestCase):
    def keys(self, value: dict[str, Any], expected: str) -> None:
        self.assertEqual(" ".join(value), expected)

    def test_a_chats_answer_has_every_field_in_vllms_order(self) -> None:
        asked = chat()
        answer = asked.whole(asked.plan(["a", ""]))
        self.keys(
            answer,
            "id object created model choices service_tier system_fingerprint usage prompt_logprobs prompt_token_ids "
            "prompt_text kv_transfer_params ec_transfer_params metrics",
        )
        (choice,) = answer["choices"]
        self.keys(choice, "index message logprobs finish_reason stop_reason token_ids routed_experts weight_versions")
        self.keys(choice["message"], "role content refusal annotations audio function_call reasoning")
        self.keys(
            answer["usage"],
            "prompt_tokens total_tokens completion_tokens prompt_tokens_details completion_tokens_details",
        )

    def test_a_completion_has_every_field_in_vllms_order(self) -> None:
        asked = text()
        answer = asked.whole(asked.plan(["a", ""]))
        self.keys(
            answer,
            "id object created model choices service_tier system_fingerprint usage kv_transfer_params "
            "ec_transfer_params metrics",
        )
        self.keys(
            answer["choices"][0],
            "index text logprobs finish_reason stop_reason token_ids prompt_logprobs prompt_token_ids routed_experts "
            "weight_versions",
        )

    def test_a_chats_chunks_have_what_vllm_sets(self) -> None:
        asked = chat(stream=True)
        role, token, last, _ = asked.stream(asked.plan(["a", ""]))
        self.keys(role, "id object created model choices prompt_token_ids prompt_text")
        self.keys(token, "id object created model choices kv_transfer_params")
        self.keys(last, "id object created model choices system_fingerprint kv_transfer_params")
        self.keys(role["choices"][0], "index delta logprobs finish_reason")
        self.keys(token["choices"][0], "index delta logprobs finish_reason token_ids")
        self.keys(last["choices"][0], "index delta logprobs finish_reason stop_reason token_ids weight_versions")

    def test_a_completions_chunks_have_the_same_fields_each(self) -> None:
        asked = text(stream=True)
        token, last, _ = asked.stream(asked.plan(["a", ""]))
        self.keys(token, "id object created model choices kv_transfer_params")
        self.keys(last, "id object created model choices system_fingerprint kv_transfer_params")
        for chunk in (token, last):
            self.keys(
                chunk["choices"][0],
                "index text logprobs finish_reason stop_reason prompt_token_ids token_ids weight_versions",
            )


class UsageTests(SynchronousTestCase):
    def test_usage_rides_behind_the_choices_of_every_chunk_where_it_is_wanted(self) -> None:
        for asked in (chat(**EACH), text(**EACH)):
            *chunks, last, _ = asked.stream(asked.plan(["a", ""]))
            self.assertEqual([list(chunk)[5] for chunk in chunks], ["usage"] * len(chunks))
            self.assertEqual((last["usage"], last["choices"]), (COUNTS, []))

    def test_the_server_may_force_usage_on_every_stream(self) -> None:
        asked = chat("--enable-force-include-usage", stream=True)
        role, first, _, last, _ = asked.stream(asked.plan(["a", ""]))
        self.assertEqual([chunk["usage"]["completion_tokens"] for chunk in (role, first, last)], [0, 1, 2])

    def test_usage_that_was_not_asked_for_is_absent(self) -> None:
        for asked in (chat(stream=True), text(stream=True)):
            self.assertFalse([chunk for chunk in asked.stream(asked.plan(["a", ""])) if "usage" in chunk])

    def test_choices_count_for_themselves_and_the_last_chunk_for_all(self) -> None:
        asked = chat(**EACH, n=2)
        *chunks, last, _ = asked.stream(asked.plan(["a", "b", ""]), asked.plan([""], 1))
        counted = [(chunk["choices"][0]["index"], chunk["usage"]["completion_tokens"]) for chunk in chunks]
        self.assertEqual(counted, [(0, 0), (1, 0), (0, 1), (0, 2), (0, 3), (1, 1)])
        self.assertEqual(last["usage"]["completion_tokens"], 4)

    def test_cached_tokens_are_told_where_they_are_wanted_and_a_stream_leaves_out_nulls(self) -> None:
        flags = "--enable-prompt-tokens-details", "--block-size", "8"
        cases = [(chat, {"created_cache_tokens": 8}, 8), (text, {}, None)]
        for kind, created, null in cases:
            asked = kind(*flags, **USAGE)
            prompt = asked.plan(["a"]).prompt._replace(ids=list(range(17)))
            plan = asked.plan(["a", ""], prompt=prompt, cached_tokens=8)
            last = asked.stream(plan)[-2]
            self.assertEqual(last["usage"]["prompt_tokens_details"], {"cached_tokens": 8, **created})
            whole = {"cached_tokens": 8, "created_cache_tokens": null, "multimodal_tokens": None}
            self.assertEqual(asked.whole(plan)["usage"]["prompt_tokens_details"], whole)


class IntervalTests(SynchronousTestCase):
    def texts(self, asked: Asked, *cuts: int) -> list[str]:
        chunks = asked.chunks(asked.plan([*"abcdefgh"], finish="length"), cuts)
        return [choice["text"] for chunk in chunks for choice in chunk["choices"]]

    def test_tokens_of_an_interval_share_a_chunk(self) -> None:
        asked = text(stream=True, stream_interval=3)
        self.assertEqual(self.texts(asked), ["a", "bcd", "efg", "h"])

    def test_late_tokens_change_nothing(self) -> None:
        for cuts in ((2,), (1, 3, 4, 5), (6,), range(8)):
            self.assertEqual(self.texts(text(stream=True, stream_interval=3), *cuts), ["a", "bcd", "efg", "h"])

    def test_the_servers_interval_is_the_default(self) -> None:
        self.assertEqual(self.texts(text("--stream-interval", "7", stream=True)), ["a", "bcdefgh"])

    def test_a_chunk_has_the_ids_log_probabilities_and_usage_of_its_tokens(self) -> None:
        asked = text(**EACH, stream_interval=2, return_token_ids=True, logprobs=1)
        chunks = asked.chunks(asked.plan([*"abcd"]))
        ids = [chunk["choices"][0]["token_ids"] for chunk in chunks]
        self.assertEqual(ids, [[1], [2, 3], [4]])
        self.assertEqual([chunk["choices"][0]["logprobs"]["text_offset"] for chunk in chunks], [[0], [1, 2], [3]])
        self.assertEqual([chunk["usage"]["completion_tokens"] for chunk in chunks], [1, 3, 4])

    def test_an_interval_of_none_is_one(self) -> None:
        for interval in (1, None):
            self.assertEqual(len(self.texts(text(stream=True, stream_interval=interval))), 8)


class AbortTests(SynchronousTestCase):
    """What is left of a sequence of four tokens that is cut after some of them were sent."""

    def aborted(self, asked: Asked, spoken: int) -> list[Any]:
        plan = asked.plan([*"abcd"], finish="length")
        sent = b"".join([asked.writer.chunks(plan, i, i + 1) for i in range(spoken)])
        abort(plan, spoken)
        return events(sent + asked.writer.chunks(plan, spoken, spoken + 1) + asked.writer.closing([plan]))

    def test_the_end_has_no_token(self) -> None:
        more = {"return_token_ids": True, "stream": True}
        for asked in (chat(**more, logprobs=True), text(**more, logprobs=1)):
            for spoken in (0, 1, 3, 4):
                *chunks, _ = self.aborted(asked, spoken)
                choices = [chunk["choices"][0] for chunk in chunks]
                self.assertEqual(
                    [choice["token_ids"] for choice in choices], [*([i] for i in range(1, spoken + 1)), []]
                )
                self.assertEqual(choices[-1]["finish_reason"], "abort")
                self.assertEqual({tuple(value) for value in choices[-1]["logprobs"].values()}, {()})

    def test_usage_counts_what_was_sent(self) -> None:
        for asked in (chat(**EACH), text(**EACH)):
            *_, last, usage, _ = self.aborted(asked, 2)
            self.assertEqual(last["usage"]["completion_tokens"], 2)
            self.assertEqual(usage["usage"]["completion_tokens"], 2)

    def test_tokens_that_waited_for_an_interval_are_sent(self) -> None:
        asked = text(stream=True, stream_interval=10, return_token_ids=True)
        _, last, _ = self.aborted(asked, 3)
        self.assertEqual((last["choices"][0]["text"], last["choices"][0]["token_ids"]), ("bc", [2, 3]))

    def test_no_token_at_all_is_an_empty_answer_without_timings(self) -> None:
        for asked in (chat("--enable-per-request-metrics", **USAGE), text("--enable-per-request-metrics", **USAGE)):
            self.assertNotIn("metrics", self.aborted(asked, 0)[-2])
            plan = asked.plan([*"ab"])
            abort(plan, 0)
            self.assertIsNone(asked.whole(plan)["metrics"])


class TimingTests(SynchronousTestCase):
    TIMES: ClassVar[dict[str, Any]] = {"arrival": 1.0, "scheduled": 1.5, "first": 2.0, "last": 4.0}

    def test_times_are_milliseconds_between_the_plans_own(self) -> None:
        expected = {
            "time_to_first_token_ms": 1000.0,
            "generation_time_ms": 2000.0,
            "queue_time_ms": 500.0,
            "mean_itl_ms": 500.0,
            "tokens_per_second": 2.0,
            "speculative_decoding": None,
        }
        found = timings(text().plan([*"abcde"], **self.TIMES))
        assert found
        self.assertEqual(list(found.items()), list(expected.items()))

    def test_one_token_has_no_time_between(self) -> None:
        found = timings(text().plan(["a"], **self.TIMES))
        assert found
        self.assertIsNone(found["mean_itl_ms"])

    def test_no_time_at_all_has_no_rate(self) -> None:
        found = timings(text().plan(["a"]))
        assert found
        self.assertIsNone(found["tokens_per_second"])

    def test_they_are_told_where_the_server_tells_them(self) -> None:
        for kind in (chat, text):
            asked = kind("--enable-per-request-metrics", **USAGE)
            plan = asked.plan(["a", ""], **self.TIMES)
            usage = asked.stream(plan)[-2]
            self.assertEqual(list(usage)[-2:], ["system_fingerprint", "metrics"])
            self.assertNotIn("speculative_decoding", usage["metrics"])
            self.assertEqual(usage["metrics"].items(), asked.whole(plan)["metrics"].items() & usage["metrics"].items())


class ChoiceTests(SynchronousTestCase):
    def test_choices_that_end_at_different_times_end_each_for_themselves(self) -> None:
        asked = chat(stream=True, n=2)
        plans = asked.plan(["a", "b", "c"], 0, "length"), asked.plan(["x", ""], 1)
        turns = [(plans[0], 0, 1), (plans[1], 0, 1), (plans[1], 1, 2), (plans[0], 1, 3)]
        chunks = events(b"".join([asked.writer.chunks(*turn) for turn in turns]))
        found = [(chunk["choices"][0]["index"], chunk["choices"][0]["finish_reason"]) for chunk in chunks]
        self.assertEqual(found, [(0, None), (1, None), (1, "stop"), (0, None), (0, "length")])

    def test_every_prompt_has_its_choices_in_order(self) -> None:
        asked = text(prompt=["a", "b"], n=2)
        answer = asked.whole(*[asked.plan([name], index) for index, name in enumerate("abcd")])
        self.assertEqual([(each["index"], each["text"]) for each in answer["choices"]], [*enumerate("abcd")])
        self.assertEqual(answer["usage"]["prompt_tokens"], 6)


class FingerprintTests(SynchronousTestCase):
    def test_it_is_told_once_in_a_stream(self) -> None:
        for kind in (chat, text):
            for body in ({"stream": True}, USAGE, EACH):
                asked = kind(**body)
                told = [chunk for chunk in asked.stream(asked.plan(["a", "b", ""])) if "system_fingerprint" in chunk]
                self.assertEqual(len(told), 1)


class OrderTests(SynchronousTestCase):
    def test_a_spelled_stream_and_a_cut_one_say_the_same(self) -> None:
        texts = ["a", '"\n', "\u2028é", ""]
        for kind, body in ((chat, {"messages": [USER]}), (text, {"prompt": "x"})):
            asked = kind(stream=True, **body)
            plan, writer = asked.plan(texts), asked.writer
            cut = b"".join([writer.chunks(plan, start, stop) for start, stop in pairwise((0, 2, 3, 4))])
            self.assertEqual(cut, writer.spell(plan, 0, 4))
