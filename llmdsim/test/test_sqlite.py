"""Recorded answers: which row is chosen, and how it is fitted to the limit."""

from __future__ import annotations

from collections import Counter
from hashlib import sha256
from random import Random
from typing import Any

from twisted.internet.defer import Deferred

from llmdsim.rows import hashes
from llmdsim.sim.author import Draft
from llmdsim.sim.request import Conversation, Stops
from llmdsim.simulated import Simulated
from llmdsim.sqlite import Recorded, open_file
from llmdsim.test.recordings import ENCODE, OPEN, PRESETS, DatasetCase, answers, go_tokens, hash_of
from llmdsim.test.support import request


def words(count: int, word: str = "so") -> str:
    """A text of so many tokens."""
    return " ".join([word] * count)


class FoundTests(DatasetCase):
    def test_a_prompt_is_answered_with_its_own_row(self) -> None:
        rows = answers(*((f"question {i}", f"answer {i}") for i in range(200)))
        for open_it in OPEN:
            source = self.source(rows, open_it)
            for i in range(200):
                self.assertEqual(self.said(source, f"question {i}", seed=i), (f"answer {i}", True))

    def test_a_chat_is_found_by_the_tokens_it_is_rendered_to(self) -> None:
        messages = [{"role": "user", "content": "This is a test."}]
        text = "### user: This is a test.\n"
        source = self.source(answers((text, "yes"), ("This is a test.", "no")))
        draft: Any = source.draft(request(9, ignore_eos=False), Conversation(messages), ENCODE(text), 9, Random(1))
        self.assertEqual(draft.tokens.texts, ["yes"])

    def test_older_rows_are_found_by_their_text(self) -> None:
        older = sha256(b"### user:\nThis is a test.\n").digest()
        rows = [(older, '["older ", "row"]', 2), *answers(("other", "no"))]
        self.assertEqual(self.all_said(self.source(rows), prompt="This is a test."), {"older row"})
        newer = [*rows, *answers(("This is a test.", "newer"))]
        self.assertEqual(self.all_said(self.source(newer), prompt="This is a test."), {"newer"})

    def test_json_may_be_stored_as_text_or_blob(self) -> None:
        for tokens in (go_tokens("été"), go_tokens("été").decode(), '{"strings": ["été"], "numbers": [5]}'):
            self.assertEqual(self.said(self.source([(hash_of("hi"), tokens, 1)]))[0], "été")

    def test_the_rows_that_fit_are_drawn_evenly(self) -> None:
        source = self.source(answers(("hi", "a"), ("hi", "b c"), ("hi", "d e f"), ("hi", words(9)), ("no", "x")))
        counts = Counter(self.said(source, limit=3, seed=seed) for seed in range(600))
        self.assertEqual(counts.keys(), {("a", True), ("b c", True), ("d e f", False)})
        self.assertGreater(min(counts.values()), 140)

    def test_where_none_fits_a_longer_one_is_cut(self) -> None:
        source = self.source(answers(("hi", "a b c"), ("hi", "d e f g"), ("no", "x")))
        self.assertEqual(self.all_said(source, limit=2), {"a b ", "d e "})
        self.assertFalse(self.said(source, limit=2)[1])

    def test_ignoring_the_end_prefers_just_the_length_then_longer_then_shorter_ones(self) -> None:
        rows = answers(("hi", "a"), ("hi", "b c"), ("hi", "d e f g"), ("no", "x y z"))
        for limit, wanted in ((2, "b c"), (3, "d e f "), (4, "d e f g")):
            source = self.source(rows)
            self.assertEqual(self.all_said(source, limit=limit, exact=True), {wanted})
        found = [self.draft(source, limit=6, exact=True, seed=seed) for seed in range(60)]
        self.assertEqual({(len(one.tokens.ids), one.complete) for one in found}, {(6, False)})
        starts = {"".join(one.tokens.texts)[:1] for one in found}
        self.assertEqual(starts, {"a", "b", "d"})

    def test_an_empty_answer_ends_at_once(self) -> None:
        self.assertEqual(self.said(self.source([(hash_of("hi"), b'{"Tokens":null,"Strings":null}', 0)])), ("", True))

    def test_min_tokens_are_filled_up(self) -> None:
        draft = self.draft(self.source(answers(("hi", "a b"))), stops=Stops(min_tokens=7))
        self.assertEqual((len(draft.tokens.ids), draft.complete, "".join(draft.tokens.texts)[:3]), (7, True, "a b"))


class OtherTests(DatasetCase):
    """No row is of this prompt."""

    def test_any_row_that_fits_will_do(self) -> None:
        source = self.source(answers(("x", "a"), ("y", "b c"), ("z", "d e f")))
        self.assertEqual(self.all_said(source, limit=2), {"a", "b c"})
        self.assertEqual({self.said(source, limit=2, seed=seed)[1] for seed in range(60)}, {True, False})

    def test_where_none_fits_any_row_is_cut(self) -> None:
        source = self.source(answers(("x", "a b c"), ("y", "d e f g")))
        self.assertEqual(self.all_said(source, limit=1), {"a ", "d "})

    def test_ignoring_the_end_prefers_just_the_length_then_any(self) -> None:
        source = self.source(answers(("x", "a"), ("y", "b c"), ("z", "d e f g")))
        self.assertEqual(self.all_said(source, limit=2, exact=True), {"b c"})
        found = [self.draft(source, limit=3, exact=True, seed=seed) for seed in range(60)]
        self.assertEqual({len(one.tokens.ids) for one in found}, {3})
        self.assertEqual({"".join(one.tokens.texts)[:1] for one in found}, {"a", "b", "d"})

    def test_the_same_chance_gives_the_same_answer_from_the_file_and_from_memory(self) -> None:
        rows = answers(*((str(i), f"answer {i}") for i in range(100)))
        one, other = (self.source(rows, open_it) for open_it in OPEN)
        told = [self.said(one, limit=9, seed=seed, exact=True) for seed in range(40)]
        self.assertEqual(told, [self.said(other, limit=9, seed=seed, exact=True) for seed in range(40)])
        self.assertGreater(len(set(told)), 20)

    def test_a_prompt_of_ids_that_no_row_can_have_is_answered_too(self) -> None:
        self.assertEqual(self.said(self.source(answers(("x", "a"))), (-1, 1 << 40)), ("a", True))

    def test_its_filler_is_preset_text(self) -> None:
        source = self.source(answers(("x", "a")))
        self.assertEqual(source.compose(9, Random(1)), PRESETS.compose(9, Random(1)))
        self.assertFalse(source.filler)


class ThreadTests(DatasetCase):
    def test_a_file_is_read_where_run_leads_to_and_nowhere_else(self) -> None:
        calls: list[Any] = []
        waiting: Deferred[Draft] = Deferred()

        def run(function: Any, *arguments: Any) -> Deferred[Draft]:
            calls.append((function, arguments))
            return waiting

        table = self.opened(self.file(answers(("hi", "there"))), open_it=open_file)
        source = Recorded(table, PRESETS.compose, Simulated().decode, run)
        rng = Random(1)
        draft = source.draft(request(9), "hi", ENCODE("hi"), 9, rng)  # to be filled up
        self.assertIs(draft, waiting)
        after = rng.getstate()
        ((function, arguments),) = calls
        self.assertEqual(len(function(*arguments).tokens.texts), 9)
        self.assertEqual(rng.getstate(), after)  # the thread leaves the rank's chance alone

    def test_the_key_of_a_row_is_the_start_of_its_hash(self) -> None:
        rows = self.opened(self.file(answers(*((str(i), "x") for i in range(50))))).rows
        for i in range(50):
            self.assertEqual(rows.draw(hashes(str(i), ENCODE(str(i)).ids), 5, False, Random(i)), i + 1)
