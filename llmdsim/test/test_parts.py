"""Pieces of answers: frames that are cut once, ranges of chunks, JSON of anything, usage, the fingerprint."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from llmdsim.api.parts import KNOWN_TEXTS, Frames, dumps, escaped, fingerprint, frame, spans, usage_of
from llmdsim.config import load
from llmdsim.sim.plan import Plan
from llmdsim.sim.request import Tokens
from llmdsim.test.support import request

ENDS = st.lists(st.integers(1, 40), max_size=10)


class SpanTests(SynchronousTestCase):
    def test_the_first_token_is_alone_then_come_full_intervals_and_the_rest_with_the_last(self) -> None:
        self.assertEqual(spans(0, 9, 9, 3), [(0, 1), (1, 4), (4, 7), (7, 9)])
        self.assertEqual(spans(0, 7, 7, 3), [(0, 1), (1, 4), (4, 7)])

    def test_without_an_interval_every_token_is_alone(self) -> None:
        self.assertEqual(spans(0, 3, 3, 1), [(0, 1), (1, 2), (2, 3)])

    def test_an_interval_longer_than_the_answer_makes_two_chunks(self) -> None:
        self.assertEqual(spans(0, 5, 5, 100), [(0, 1), (1, 5)])

    def test_tokens_that_fill_no_interval_wait(self) -> None:
        self.assertEqual(spans(1, 3, 9, 3), [])
        self.assertEqual(spans(3, 4, 9, 3), [(1, 4)])

    def test_the_only_token_is_the_last(self) -> None:
        self.assertEqual([spans(0, 1, 1, interval) for interval in (1, 2, 7)], [[(0, 1)]] * 3)

    def test_an_abort_sends_what_waited(self) -> None:
        self.assertEqual(spans(0, 6, 20, 4), [(0, 1), (1, 5)])
        self.assertEqual(spans(6, 7, 7, 4), [(5, 7)])

    @settings(deadline=None)
    @given(st.integers(1, 40), st.integers(1, 45), ENDS)
    @example(1, 1, [])
    @example(2, 3, [1])
    def test_however_tokens_come_each_is_in_one_chunk_and_the_chunks_are_the_same(
        self, size: int, interval: int, ends: list[int]
    ) -> None:
        places = sorted({0, size} | {end for end in ends if end < size})
        found = [span for start, stop in pairwise(places) for span in spans(start, stop, size, interval)]
        self.assertEqual([i for start, stop in found for i in range(start, stop)], list(range(size)))
        self.assertEqual(found, spans(0, size, size, interval))


class FramesTests(SynchronousTestCase):
    def chunk(self, plan: Plan, i: int, text: str) -> dict[str, Any]:
        last = i == len(plan.texts) - 1
        return {"id": plan.request.id, "choice": plan.index, "text": text, "end": "last" if last else None}

    def plan(self, texts: list[str], index: int = 0, **fields: Any) -> Plan:
        return Plan(request(**fields), index, Tokens([1], ["a"]), texts, [*range(len(texts))], "stop")

    def spelled(self, plan: Plan) -> bytes:
        return b"".join([frame(self.chunk(plan, i, text)) for i, text in enumerate(plan.texts)])

    @settings(deadline=None)
    @given(st.lists(st.text(), min_size=1, max_size=12), ENDS)
    @example(["\ufffftext\uffff", '"text"', "\u2028", "\x00", "\ud800"], [1, 2])
    def test_frames_are_the_chunks_spelled_in_full(self, texts: list[str], ends: list[int]) -> None:
        plan, frames, size = self.plan(texts), Frames(self.chunk), len(texts)
        places = sorted({0, size} | {end for end in ends if end < size})
        written = b"".join([frames(plan, start, stop) for start, stop in pairwise(places)])
        self.assertEqual(written, self.spelled(plan))

    def test_sequences_of_one_stream_have_frames_of_their_own(self) -> None:
        plans, frames = [self.plan(["a", "b"], index) for index in (0, 1)], Frames(self.chunk)
        written = [frames(plan, start, start + 1) for start in (0, 1) for plan in plans]
        self.assertEqual(b"".join([*written[::2], *written[1::2]]), b"".join(map(self.spelled, plans)))

    def test_an_id_may_hold_any_text(self) -> None:
        plan = self.plan(["a", "b"], id="\ufffftext\uffff")
        self.assertEqual(Frames(self.chunk)(plan, 0, 2), self.spelled(plan))


class DumpsTests(SynchronousTestCase):
    def test_half_a_surrogate_pair_is_shown_as_a_question_mark(self) -> None:
        self.assertEqual(dumps({"a": "\ud800b", "é": 1}), '{"a":"?b","é":1}'.encode())

    def test_integers_of_any_size_are_written(self) -> None:
        self.assertEqual(dumps([10**40]), b"[1" + b"0" * 40 + b"]")

    def test_nesting_as_deep_as_python_reads_is_written(self) -> None:
        deep: Any = "x"
        for _ in range(400):
            deep = [deep]
        self.assertEqual(json.loads(dumps(deep)), deep)

    def test_the_table_of_escaped_texts_does_not_grow_for_ever(self) -> None:
        for number in range(KNOWN_TEXTS + 10):
            escaped[str(number)]
        self.assertLessEqual(len(escaped), KNOWN_TEXTS)


class UsageTests(SynchronousTestCase):
    def test_an_aborted_sequence_counts_what_it_said(self) -> None:
        plans = [
            Plan(request(n=2), i, Tokens([1, 2], []), ["a", ""], [5][:spoken], "abort")
            for i, spoken in ((0, 1), (1, 0))
        ]
        self.assertEqual(usage_of(plans), {"prompt_tokens": 2, "total_tokens": 3, "completion_tokens": 1})


class FingerprintTests(SynchronousTestCase):
    def of(self, *flags: str) -> str | None:
        return fingerprint(load(["--model", "m", *flags], {}))

    def test_it_names_the_version_and_what_runs_in_parallel(self) -> None:
        self.assertRegex(str(self.of()), r"^vllm-0\.33\.0-[0-9a-f]{8}$")
        self.assertRegex(str(self.of("--tensor-parallel-size", "2")), r"^vllm-0\.33\.0-tp2-[0-9a-f]{8}$")

    def test_its_digest_tells_servers_apart(self) -> None:
        self.assertNotEqual(self.of(), self.of("--max-model-len", "77"))
        self.assertEqual(self.of(), self.of("--port", "9000"))

    def test_it_may_be_hidden_shortened_or_chosen(self) -> None:
        self.assertIsNone(self.of("--fingerprint-mode", "none"))
        self.assertRegex(str(self.of("--fingerprint-mode", "hash")), r"^[0-9a-f]{8}$")
        self.assertEqual(self.of("--fingerprint-mode", "custom", "--fingerprint-value", "x"), "x")
