"""Tests for llmdsim.simulated."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from llmdsim.sim.fnv import fnv1a
from llmdsim.simulated import SPACE, Simulated, Vocabulary, split

OLDER = re.compile(
    r"""(\{|\}|:|,|-|\.|\?|\!|;|@|#|\$|%|\^|&|\*|\(|\)|\+|\-|_|~|/|\\|>|<|\[|\]|=|"|'|[0-9A-Za-z_]+)([\t\n\f\r ]*)"""
)
ALPHABET = st.sampled_from([chr(code) for code in range(0x20, 0x7F) if chr(code) not in "`|"] + list(SPACE))


class SplitTests(SynchronousTestCase):
    def test_blanks_belong_to_the_token_before_them(self):
        self.assertEqual(split("This is a test."), ["This ", "is ", "a ", "test", "."])

    def test_an_underscore_stands_alone_at_the_start_and_joins_inside_a_word(self):
        self.assertEqual(split("_a_b__"), ["_", "a_b__"])

    def test_a_run_of_foreign_characters_is_one_token_with_its_blanks(self):
        self.assertEqual(split("ab äöü  c\v\vd"), ["ab ", "äöü  ", "c", "\v\v", "d"])

    def test_leading_blanks_belong_to_the_first_token(self):
        self.assertEqual(split("\n  a b"), ["\n  a ", "b"])

    def test_blanks_alone_are_one_token(self):
        self.assertEqual(split(" \t\n"), [" \t\n"])

    def test_an_empty_text_has_no_tokens(self):
        self.assertEqual(split(""), [])

    @given(st.text())
    def test_tokens_join_to_the_text(self, text):
        self.assertEqual("".join(split(text)), text)

    @given(st.text(st.sampled_from(" \t\v\x85\u00a0\u2028a_Z9ä漢🙂\ud800.`|\x00")))
    def test_tokens_join_to_a_text_of_odd_blanks(self, text):
        self.assertEqual("".join(split(text)), text)

    @given(st.text(ALPHABET))
    def test_a_text_within_the_alphabet_is_cut_as_the_older_simulator_cut_it(self, text):
        text = text.lstrip(SPACE)
        self.assertEqual(split(text), [core + blank for core, blank in OLDER.findall(text)])


class HashTests(SynchronousTestCase):
    def test_ids_are_those_of_the_older_simulator(self):
        ids = [3157421587, 1477013615, 186949092, 2949673445, 722245873]
        self.assertEqual(Simulated().encode("This is a test.").ids, ids)
        self.assertEqual(Simulated().encode("Hello world!").ids, [2871118705, 933488787, 604802540])

    def test_a_chat_of_one_sentence_has_ten_tokens(self):
        tokenizer = Simulated()
        text = tokenizer.render([{"role": "user", "content": "This is a test."}], [{"type": "function"}], False, x=1)
        self.assertEqual(text, "### user: This is a test.\n")
        self.assertEqual(len(tokenizer.encode(text).ids), 10)

    @given(st.text(st.characters()))
    def test_any_text_has_ids_of_32_bits(self, text):
        self.assertTrue(all(0 <= id < 1 << 32 for id in Simulated().encode(text).ids))


class DecodeTests(SynchronousTestCase):
    def test_what_was_encoded_decodes(self):
        tokenizer, text = Simulated(), "  Grüße, 漢字 and\va `tick` 🙂!"
        self.assertEqual(tokenizer.decode(tokenizer.encode(text).ids), text)

    def test_each_token_has_its_string(self):
        tokenizer = Simulated()
        self.assertEqual(tokenizer.strings([*tokenizer.encode("a b").ids, 7]), ["a ", "b", ""])

    def test_unknown_ids_are_silent(self):
        self.assertEqual(Simulated().decode([1, -1, 1 << 40]), "")

    def test_the_end_token_decodes_however_many_others_were_seen(self):
        tokenizer = Simulated(room=400)
        tokenizer.encode(" ".join(map(str, range(1000))))
        self.assertEqual(tokenizer.decode([tokenizer.eos[0]]), "<|im_end|>")


class VocabularyTests(SynchronousTestCase):
    def test_the_oldest_are_forgotten_and_the_newest_kept(self):
        vocabulary = Vocabulary(room=1000)
        ids = [vocabulary[str(number)] for number in range(10_000)]
        self.assertIn(len(vocabulary), range(10, 30))
        self.assertEqual(vocabulary.texts[ids[-1]], "9999")
        self.assertNotIn(ids[0], vocabulary.texts)

    def test_both_ways_are_forgotten_together(self):
        vocabulary = Vocabulary(room=1000)
        for number in range(10_000):
            vocabulary[str(number)]
        self.assertEqual({id: text for text, id in vocabulary.items()}, vocabulary.texts)

    def test_a_token_too_long_to_keep_still_has_its_id(self):
        vocabulary, giant = Vocabulary(room=1000), "x" * 1000
        self.assertEqual(vocabulary[giant], fnv1a(giant))
        self.assertEqual(len(vocabulary), 0)

    def test_a_forgotten_token_gets_the_same_id_again(self):
        vocabulary = Vocabulary(room=200)
        first = vocabulary["word"]
        for number in range(100):
            vocabulary[str(number)]
        self.assertEqual(vocabulary["word"], first)
