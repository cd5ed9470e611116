"""Where an answer stops, and what text is held back until it is sure to be shown."""

from __future__ import annotations

from itertools import accumulate

from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from llmdsim.sim.request import Stops, Tokens
from llmdsim.sim.stopping import Cut, cut

EOS = 99, "<end>"
SPOKEN = [" Hello", " world", "!", " How", " are", " you", " today", "?", " I", " am", " fine"]


def say(texts: list[str], complete: bool = False, **stops: object) -> Cut:
    """Cut a draft of these tokens, whose ids are 10, 11, ..."""
    return cut(Tokens([*range(10, 10 + len(texts))], texts), complete, EOS, Stops(**stops))  # type: ignore[arg-type]


class EndTests(SynchronousTestCase):
    def test_the_end_token_counts_and_shows_nothing(self) -> None:
        self.assertEqual(say(["a", "b"], complete=True), (["a", "b", ""], [10, 11, 99], "stop", None))

    def test_a_draft_that_the_limit_cut_has_no_end_token(self) -> None:
        self.assertEqual(say(["a", "b"]), (["a", "b"], [10, 11], "length", None))

    def test_an_empty_answer_is_the_end_token_alone(self) -> None:
        for stops in ({}, {"strings": ("stop",)}):
            self.assertEqual(say([], complete=True, **stops), ([""], [99], "stop", None))

    def test_the_draft_itself_stays_as_it_was(self) -> None:
        draft = Tokens([10, 11], ["a", "b"])
        cut(draft, True, EOS, Stops(strings=("b",)))
        self.assertEqual(draft, ([10, 11], ["a", "b"]))


class StringTests(SynchronousTestCase):
    def test_vllms_example_holds_back_what_may_begin_the_stop_string(self) -> None:
        found = say(SPOKEN, strings=("you today",))
        self.assertEqual(found.texts, ["", " Hel", "l", "o wo", "rld!", " How", " are "])
        self.assertEqual((found.ids, found.finish, found.stop_reason), ([*range(10, 17)], "stop", "you today"))

    def test_what_was_held_back_is_shown_with_the_last_token(self) -> None:
        pieces = ["Hello", " world", " again"]
        found = say(pieces, strings=("12345678",))
        self.assertEqual((found.texts, found.finish), (["", "Hell", "o world again"], "length"))
        found = say(pieces, complete=True, strings=("12345678",))
        self.assertEqual((found.texts, found.finish), (["", "Hell", "o worl", "d again"], "stop"))

    def test_the_stop_string_is_not_shown(self) -> None:
        found = say(["one", " two", " three"], strings=(" t",))
        self.assertEqual(("".join(found.texts), found.ids, found.stop_reason), ("one", [10, 11], " t"))

    def test_included_it_is_shown_and_nothing_is_held_back(self) -> None:
        found = say(SPOKEN, strings=("you to",), include=True)
        self.assertEqual(found.texts, [" Hello", " world", "!", " How", " are", " you", " to"])
        self.assertEqual(found.stop_reason, "you to")

    def test_a_stop_string_of_one_character_holds_nothing_back(self) -> None:
        self.assertEqual(say(["a", "b", "c!d"], strings=("!",)).texts, ["a", "b", "c"])

    def test_a_stop_string_may_spread_over_many_tokens(self) -> None:
        found = say([*"abcdefgh"], strings=("cdef",))
        self.assertEqual(("".join(found.texts), found.ids), ("ab", [*range(10, 16)]))

    def test_the_longest_stop_string_says_how_much_is_held_back(self) -> None:
        self.assertEqual(say([*"abcdef"], strings=("x", "wxyz")).texts, ["", "", "", "a", "b", "cdef"])

    def test_of_two_that_end_in_one_token_the_first_listed_wins(self) -> None:
        for strings, shown in ((("wo", "Hel"), "Hello "), (("Hel", "wo"), "")):
            found = say(["Hello world"], strings=strings)
            self.assertEqual(("".join(found.texts), found.stop_reason), (shown, strings[0]))

    def test_the_end_ends_without_a_reason_where_no_stop_string_came(self) -> None:
        found = say(["a", "b"], complete=True, strings=("zzz",))
        self.assertEqual((found.texts, found.finish, found.stop_reason), (["", "", "ab"], "stop", None))


class IdTests(SynchronousTestCase):
    def test_a_stop_id_ends_the_answer_and_its_text_is_not_shown(self) -> None:
        found = say(["a", "b", "c"], ids=frozenset({11}))
        self.assertEqual(found, (["a", ""], [10, 11], "stop", 11))

    def test_included_its_text_is_shown(self) -> None:
        self.assertEqual(say(["a", "b", "c"], ids=frozenset({11}), include=True).texts, ["a", "b"])

    def test_a_stop_id_lets_go_of_what_was_held_back(self) -> None:
        found = say(["a", "b", "c", "d"], ids=frozenset({12}), strings=("wxyz",))
        self.assertEqual((found.texts, found.stop_reason), (["", "", "ab"], 12))

    def test_a_stop_string_before_the_stop_id_wins(self) -> None:
        found = say(["a", "b", "c", "d"], ids=frozenset({13}), strings=("bc",))
        self.assertEqual(("".join(found.texts), found.ids, found.stop_reason), ("a", [10, 11, 12], "bc"))

    def test_the_end_token_ends_without_a_reason_even_if_it_is_listed(self) -> None:
        found = say(["a"], complete=True, ids=frozenset({EOS[0]}))
        self.assertEqual(found, (["a", ""], [10, 99], "stop", None))


class MinimumTests(SynchronousTestCase):
    def test_a_stop_string_within_the_first_min_tokens_is_passed_over(self) -> None:
        found = say(["a", "b", "a", "b", "c"], strings=("b",), min_tokens=2)
        self.assertEqual(("".join(found.texts), found.ids, found.stop_reason), ("aba", [10, 11, 12, 13], "b"))

    def test_one_that_ends_after_them_counts_though_it_began_within(self) -> None:
        found = say(["a", "b", "c", "d"], strings=("bc",), min_tokens=2)
        self.assertEqual(("".join(found.texts), found.ids), ("a", [10, 11, 12]))

    def test_a_passed_stop_string_is_shown(self) -> None:
        self.assertEqual("".join(say(["a", "b"], strings=("ab",), min_tokens=2).texts), "ab")

    def test_a_stop_id_within_them_is_passed_over(self) -> None:
        tokens = Tokens([5, 6, 5, 6], ["a", "b", "c", "d"])
        found = cut(tokens, False, EOS, Stops(ids=frozenset({6}), min_tokens=2))
        self.assertEqual((found.ids, found.texts), ([5, 6, 5, 6], ["a", "b", "c", ""]))


PIECES = st.lists(st.text("ab", max_size=3), max_size=12)
STRINGS = st.lists(st.text("ab", min_size=1, max_size=4), min_size=1, max_size=3)


class RuleTests(SynchronousTestCase):
    @settings(deadline=None)
    @given(PIECES, STRINGS, st.booleans(), st.integers(0, 4))
    @example(["a", "b", "", "b"], ["bb"], False, 0)
    def test_deltas_join_to_the_text_and_are_never_taken_back(
        self, pieces: list[str], strings: list[str], include: bool, least: int
    ) -> None:
        found = say(pieces, complete=True, strings=tuple(strings), include=include, min_tokens=least)
        self.assertEqual(len(found.texts), len(found.ids))
        whole = "".join(pieces)
        shown = [*accumulate(found.texts, initial="")]
        self.assertTrue(whole.startswith(shown[-1]))
        if found.stop_reason is None:
            self.assertEqual(shown[-1], whole)
        elif include:
            self.assertTrue(shown[-1].endswith(str(found.stop_reason)))
        else:
            self.assertTrue(whole.startswith(shown[-1] + str(found.stop_reason)))

    @settings(deadline=None)
    @given(PIECES, STRINGS)
    def test_an_answer_goes_on_exactly_until_a_stop_string_is_complete(
        self, pieces: list[str], strings: list[str]
    ) -> None:
        found = say(pieces, strings=tuple(strings))
        so_far = [*accumulate(pieces)]
        complete = [place for place, text in enumerate(so_far) if any(string in text for string in strings)]
        self.assertEqual(len(found.ids), complete[0] + 1 if complete else len(pieces))
        self.assertEqual(found.finish, "stop" if complete else "length")
