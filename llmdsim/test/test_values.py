"""How settings are written."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from llmdsim.config import values
from llmdsim.config.values import Adapter


class Numbers(SynchronousTestCase):
    def test_an_integer_may_have_a_base_underscores_or_a_human_suffix(self) -> None:
        for written, meant in {
            "8000": 8000,
            "-1": -1,
            "0x1F90": 8080,
            "0o17": 15,
            "0b11": 3,
            "1_000": 1000,
            "1k": 1000,
            "1K": 1024,
            "32k": 32000,
            "25.6k": 25600,
            "4.1k": 4100,
            "2M": 2 * 1024**2,
            "1g": 10**9,
        }.items():
            self.assertEqual(values.integer(written), meant, written)

    def test_what_is_no_whole_number_is_refused(self) -> None:
        for written in ("", "x", "1.5", "1.5K", "1.2345k", "1 k", True, 2.5, None):
            self.assertRaises(ValueError, values.integer, written)

    def test_a_window_of_auto_or_minus_one_is_the_default(self) -> None:
        self.assertEqual([values.model_length(raw) for raw in ("auto", "-1", -1, "32K")], [1024, 1024, 1024, 32768])

    def test_a_number_is_finite(self) -> None:
        self.assertEqual(values.number("1e-3"), 0.001)
        for written in ("nan", "inf", "", "x", True):
            self.assertRaises(ValueError, values.number, written)

    def test_a_boolean_has_the_spellings_of_go(self) -> None:
        self.assertEqual(
            [values.boolean(raw) for raw in ("1", "t", "TRUE", True, 0, "f", "False")], [True] * 4 + [False] * 3
        )
        for written in ("yes", "tRue", "", 2):
            self.assertRaises(ValueError, values.boolean, written)


class Durations(SynchronousTestCase):
    def test_a_duration_is_in_go_form_or_plain_milliseconds(self) -> None:
        for written, seconds in {
            "0": 0.0,
            "1.5s": 1.5,
            "2m30s": 150.0,
            "1h0m0.5s": 3600.5,
            "250us": 0.00025,
            "3µs": 3e-6,
            "7μs": 7e-6,
            "40ns": 4e-8,
            "-5ms": -0.005,
            "+.5s": 0.5,
            "1.s": 1.0,
            "1000": 1.0,
            "1.5": 0.0015,
            "1e2": 0.1,
            100: 0.1,
            0.25: 0.00025,
        }.items():
            self.assertEqual(values.duration(written), seconds, written)

    def test_a_bad_duration_fails_with_the_words_of_go(self) -> None:
        for written, reason in {
            "": 'time: invalid duration ""',
            "fast": 'time: invalid duration "fast"',
            "-": 'time: invalid duration "-"',
            ".s": 'time: invalid duration ".s"',
            "1s5": 'time: missing unit in duration "1s5"',
            "1d": 'time: unknown unit "d" in duration "1d"',
            "1s -2s": 'time: unknown unit "s -" in duration "1s -2s"',
            "9999999h": 'time: invalid duration "9999999h"',
        }.items():
            self.assertEqual(str(self.assertRaises(ValueError, values.duration, written)), reason)

    def test_a_go_duration_needs_its_unit(self) -> None:
        error = self.assertRaises(ValueError, values.go_duration, "170")
        self.assertEqual(str(error), 'time: missing unit in duration "170"')

    def test_a_duration_is_shown_as_go_prints_it(self) -> None:
        for seconds, shown in {
            0.0: "0s",
            4e-8: "40ns",
            1.5e-6: "1.5µs",
            0.0015: "1.5ms",
            0.1: "100ms",
            1.0: "1s",
            1.5: "1.5s",
            60.0: "1m0s",
            150.0: "2m30s",
            3600.0: "1h0m0s",
            -0.005: "-5ms",
        }.items():
            self.assertEqual(values.show_duration(seconds), shown)

    @settings(derandomize=True, max_examples=200)
    @given(st.integers(min_value=-(10**15), max_value=10**15))
    def test_what_is_shown_is_read_back(self, nanoseconds: int) -> None:
        seconds = nanoseconds / 1e9
        self.assertEqual(values.duration(values.show_duration(seconds)), seconds)


class Lists(SynchronousTestCase):
    def test_names_come_as_words_as_one_word_or_as_json(self) -> None:
        for raw in (("a", "b"), ["a", "b"], "a b", ("a b", ""), '["a", "b"]'):
            self.assertEqual(values.names(raw), ("a", "b"))
        self.assertEqual([values.names(raw) for raw in ((), None, "", [7])], [(), (), (), ("7",)])

    def test_failure_types_may_be_separated_by_commas(self) -> None:
        self.assertEqual(values.kinds(("a,b, c", "d")), ("a", "b", "c", "d"))

    def test_other_words_keep_their_commas_and_blanks(self) -> None:
        self.assertEqual(values.words(("a,b c", "d")), ("a,b c", "d"))

    def test_an_adapter_is_json_a_mapping_or_a_name_and_a_path(self) -> None:
        whole = Adapter("l", "/p", "m")
        written = '{"name":"l","path":"/p","base_model_name":"m","unknown":1}'
        mapping = {"name": "l", "path": "/p", "base_model_name": "m"}
        for raw in (written, (written,), f"[{written}]", [mapping], mapping, [written]):
            self.assertEqual(values.adapters(raw), (whole,))
        self.assertEqual(values.adapters(("a=/x=1", '{"name":"b"}')), (Adapter("a", "/x=1"), Adapter("b")))

    def test_what_is_no_adapter_is_refused(self) -> None:
        for raw in ("lora", '{"name"', "[1]", '{"name":1}', [3]):
            self.assertRaises(ValueError, values.adapters, raw)


class Documents(SynchronousTestCase):
    def test_a_document_is_an_object_or_nothing(self) -> None:
        self.assertEqual(values.document('{"a":1}'), {"a": 1})
        self.assertEqual([values.document(raw) for raw in (None, "", "None")], [None] * 3)
        for raw in ("[]", "{", "1"):
            self.assertRaises(ValueError, values.document, raw)

    def test_text_is_any_scalar_but_no_collection(self) -> None:
        self.assertEqual([values.text(raw) for raw in (42, "x", True, None)], ["42", "x", "true", ""])
        self.assertRaises(ValueError, values.text, ["x"])
        self.assertEqual(values.json_text({"a": 1}), '{"a":1}')
