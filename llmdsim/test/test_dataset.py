"""Where answers come from: preset sentences and the prompt's echo."""

from __future__ import annotations

import re
from random import Random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from llmdsim.dataset import SENTENCES, Echo, Presets
from llmdsim.sim.author import Draft
from llmdsim.sim.request import Conversation, Prompt, Stops, Tokens
from llmdsim.simulated import Simulated
from llmdsim.test.support import request

ENCODE = Simulated().encode
PRESETS = Presets(ENCODE)


def in_front(text: str, special: bool = True) -> Tokens:
    """A tokenizer whose blanks belong to the word behind them."""
    texts = re.findall(r" ?\S+| ", text)
    return Tokens([*range(len(texts))], texts)


class PresetTests(SynchronousTestCase):
    def draft(self, limit: int, seed: int = 1, tokens: int | None = None, **fields: Any) -> Draft:
        return PRESETS.draft(request(tokens, **fields), "hi", ENCODE("hi"), limit, Random(seed))

    @settings(deadline=None)
    @given(st.integers(1, 300), st.integers())
    def test_an_answer_has_exactly_as_many_tokens_as_are_wanted(self, length: int, seed: int) -> None:
        found = PRESETS.compose(length, Random(seed))
        self.assertEqual((len(found.ids), len(found.texts)), (length, length))

    def test_an_answer_is_made_of_whole_sentences_but_for_the_last(self) -> None:
        text = "".join(PRESETS.compose(200, Random(1)).texts)
        while text:
            sentence = next((one for one in SENTENCES if text.startswith(one)), None)
            if sentence is None:
                self.assertTrue(any(one.startswith(text) for one in SENTENCES), text)
                return
            text = text[len(sentence) :]

    def test_every_sentence_has_5_to_40_tokens_and_a_blank_at_its_end(self) -> None:
        self.assertGreaterEqual(len(set(SENTENCES)), 30)
        for sentence in SENTENCES:
            self.assertIn(len(ENCODE(sentence).ids), range(5, 41), sentence)
            self.assertTrue(sentence.endswith(" ") and not sentence.startswith(" "), sentence)

    def test_a_tokenizer_that_wants_the_blank_in_front_has_it_there(self) -> None:
        texts = Presets(in_front).compose(300, Random(1)).texts
        self.assertNotIn(" ", texts)
        self.assertTrue(all(text.startswith(" ") for text in texts))

    @settings(deadline=None)
    @given(st.integers(1, 100), st.integers())
    def test_an_answer_is_complete_exactly_when_it_is_shorter_than_the_limit(self, limit: int, seed: int) -> None:
        for tokens in (limit, None):
            found = self.draft(limit, seed, tokens, ignore_eos=False)
            self.assertIn(len(found.tokens.ids), range(1, limit + 1))
            self.assertEqual(found.complete, len(found.tokens.ids) < limit)

    def test_the_clients_limit_and_the_window_have_their_own_lengths(self) -> None:
        lengths = {
            tokens: sorted(len(self.draft(500, seed, tokens, ignore_eos=False).tokens.ids) for seed in range(300))
            for tokens in (500, None)
        }
        self.assertEqual(lengths[500][-20:], [500] * 20)
        self.assertLess(lengths[None][-1], 150)

    def test_where_the_end_is_ignored_the_limit_is_filled(self) -> None:
        found = self.draft(77)
        self.assertEqual((len(found.tokens.ids), found.complete), (77, False))

    def test_min_tokens_lengthen_an_answer(self) -> None:
        for seed in range(50):
            found = self.draft(60, seed, 60, ignore_eos=False, stops=Stops(min_tokens=50))
            self.assertGreaterEqual(len(found.tokens.ids), 50)

    def test_the_same_chance_gives_the_same_answer(self) -> None:
        self.assertEqual(self.draft(50, seed=3), self.draft(50, seed=3))
        self.assertNotEqual(self.draft(50, seed=3), self.draft(50, seed=4))


class EchoTests(SynchronousTestCase):
    def said(self, prompt: Prompt, tokens: int | None = None) -> tuple[str, bool]:
        """The text of the answer, and whether it ends by itself."""
        found = Echo(ENCODE).draft(request(tokens), prompt, ENCODE(""), 1000, Random(1))
        self.assertEqual(len(found.tokens.ids), len(found.tokens.texts))
        return "".join(found.tokens.texts), found.complete

    def test_a_text_is_said_again(self) -> None:
        self.assertEqual(self.said("Hello  big\nworld! "), ("Hello  big\nworld! ", True))

    def test_ids_are_said_again_as_ids(self) -> None:
        found = Echo(ENCODE).draft(request(), (7, 8, 9), Tokens((7, 8, 9), ()), 1000, Random(1))
        self.assertEqual(([*found.tokens.ids], "".join(found.tokens.texts)), ([7, 8, 9], "7,8,9"))

    def test_of_a_chat_the_last_message_is_said_whatever_its_role(self) -> None:
        first = {"role": "user", "content": "first"}
        for last, wanted in (
            ({"role": "user", "content": "second one"}, "second one"),
            ({"role": "tool", "tool_call_id": "c", "content": "second one"}, "second one"),
            (
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": "look"},
                        {"type": "input_audio", "input_audio": {"data": "AAAA"}},
                        {"type": "image_url", "image_url": {"url": "http://pictures/1"}},
                    ],
                },
                "look\nimage: http://pictures/1",
            ),
            (
                {"role": "assistant", "content": "so", "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]},
                "so[f({})]",
            ),
        ):
            self.assertEqual(self.said(Conversation([first, last])), (wanted, True))

    def test_a_chat_without_messages_is_answered_with_nothing(self) -> None:
        self.assertEqual(self.said(Conversation([])), ("", True))

    def test_an_echo_is_never_cut_but_says_that_the_limit_was_reached(self) -> None:
        for tokens, complete in ((4, True), (3, False), (1, False), (None, True)):
            self.assertEqual(self.said("one two three", tokens), ("one two three", complete))
