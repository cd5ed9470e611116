"""Tests for llmdsim.sim.synthesis.regexes."""

from __future__ import annotations

import re
import warnings
from random import Random

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from llmdsim.sim.synthesis.regexes import found, matching

CLASSES = [
    "[a-z]",
    "[^a-z]",
    r"[\w.-]",
    r"[^\s\d]",
    r"\d",
    r"\D",
    r"\w",
    r"\W",
    r"\s",
    r"\S",
    "[à-ÿ]",
    "[^-~]",
    r"[\]a^]",
]
ESCAPES = [r"\.", r"\/", r"\n", r"\t", r"\u00e9", r"\x41", r"\u4e2d", r"\-", r"\\", r"\U0001f600"]
QUANTIFIERS = ["*", "+", "?", "{2}", "{1,3}", "{2,}", "{,2}", "*?", "+?", "??", "{1,3}?"]
ATOMS = st.sampled_from([*CLASSES, *ESCAPES, ".", "a", "Z", "0", " ", "_", "é", "abc"])


def compound(parts):
    quantified = st.builds(lambda part, times: f"(?:{part}){times}", parts, st.sampled_from(QUANTIFIERS))
    return st.one_of(
        quantified,
        parts.map(lambda part: f"({part})"),
        st.lists(parts, min_size=1, max_size=4).map("".join),
        st.lists(parts, min_size=1, max_size=3).map(lambda parts: f"(?:{'|'.join(parts)})"),
    )


PATTERNS = st.builds(
    lambda start, body, end: start + body + end,
    st.sampled_from(["", "^", r"\A"]),
    st.recursive(ATOMS, compound, max_leaves=8),
    st.sampled_from(["", "$", r"\Z"]),
)


class MatchingTests(SynchronousTestCase):
    def assertMatches(self, pattern, seeds=20):
        for seed in range(seeds):
            text = matching(pattern, Random(seed))
            self.assertTrue(re.fullmatch(pattern, text), (pattern, text))

    @given(PATTERNS, st.randoms(use_true_random=False))
    def test_a_string_matches_the_whole_pattern(self, pattern, rng):
        text = matching(pattern, rng)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.assertTrue(re.fullmatch(pattern, text), (pattern, text))

    @given(PATTERNS, st.integers())
    def test_a_seed_makes_a_string(self, pattern, seed):
        self.assertEqual(matching(pattern, Random(seed)), matching(pattern, Random(seed)))

    @given(st.text(max_size=20), st.randoms(use_true_random=False))
    def test_any_text_is_a_pattern_or_a_value_error(self, pattern, rng):
        try:
            text = matching(pattern, rng)
        except ValueError:
            return
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.assertTrue(re.fullmatch(pattern, text), (pattern, text))

    def test_a_string_has_the_length_that_is_asked_for(self):
        for seed in range(20):
            self.assertEqual(len(matching(r"[a-z]+(-[a-z]+)*", Random(seed), 30, 30)), 30)
            self.assertEqual(len(matching(r"(foo|barbaz)+", Random(seed), 9, 9)), 9)
            self.assertLessEqual(len(matching(r"\d*[a-z]*", Random(seed), 0, 1)), 1)

    def test_every_branch_is_drawn(self):
        self.assertEqual({matching("a|b|c", Random(seed)) for seed in range(50)}, {"a", "b", "c"})

    def test_lookarounds_hold(self):
        self.assertMatches(r"^(?=.*\d)(?=.*[a-z])(?=.*[A-Z])[A-Za-z\d]{8,}$")
        self.assertMatches(r"^(?!foo)[fo]{3,5}$")
        self.assertMatches(r"[a-z ]*\b(?<=[a-m])x?")

    def test_groups_are_repeated_and_asked_about(self):
        self.assertMatches(r"(['\"])[a-z]*\1")
        self.assertMatches(r"(?P<q>a)?(?(q)b|c)")

    def test_letters_of_either_case_are_excluded_where_case_is_ignored(self):
        self.assertMatches(r"(?i)[^a-z]b")
        self.assertMatches(r"x(?i:[^a-y])")

    def test_a_group_may_be_named_as_other_languages_name_it(self):
        self.assertRegex(matching(r"(?<year>\d{4})-\(?", Random(1)), r"\A\d{4}-\(?\Z")

    def test_control_characters_are_drawn_only_where_nothing_else_fits(self):
        self.assertTrue(all(matching(r"[\x00-\x7f]", Random(seed)).isprintable() for seed in range(50)))
        self.assertMatches(r"[\x00-\x1f]")

    def test_half_of_a_surrogate_pair_is_never_drawn(self):
        self.assertRaises(ValueError, matching, r"\ud83d", Random(1))
        for seed in range(50):
            matching(r"[\ud000-\uefff]", Random(seed)).encode()

    def test_what_nothing_matches_is_a_value_error(self):
        for pattern in ("a^b", "[^\\s\\S]", "(?!)", "a(?=b)"):
            self.assertRaises(ValueError, matching, pattern, Random(1))

    def test_a_length_that_no_string_has_is_a_value_error(self):
        self.assertRaises(ValueError, matching, "abc", Random(1), 4)
        self.assertRaises(ValueError, matching, "a{5}", Random(1), 0, 4)

    def test_what_is_no_pattern_is_a_value_error(self):
        for pattern in ("(", "[", "*", r"\p{L}", "a{99999999999}", "(" * 5000 + ")" * 5000, "a" * 100_000):
            self.assertRaises(ValueError, matching, pattern, Random(1))

    def test_repetitions_without_end_are_given_up(self):
        for pattern in ("((a?){9999}){9999}", "((a{999}){999}){999}", "(a{1000}){1000}", r"((a+)+)+(?=b)"):
            self.assertRaises(ValueError, matching, pattern, Random(1))


class FoundTests(SynchronousTestCase):
    def test_a_pattern_is_searched_for_anywhere(self):
        self.assertTrue(found("b", "abc"))
        self.assertFalse(found("^b", "abc"))

    def test_what_is_no_pattern_is_a_value_error(self):
        self.assertRaises(ValueError, found, "(", "a")
