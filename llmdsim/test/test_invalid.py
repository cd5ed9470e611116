from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from llmdsim.api.invalid import Error, invalid, problem, rejected
from llmdsim.faults import INVALID_BODY


def missing(name: str, value: object) -> Error:
    return problem("missing", ("body", name), "Field required", value)


class InvalidTests(SynchronousTestCase):
    def test_one_error_is_told_in_the_singular_and_names_its_field(self):
        fault = invalid([missing("messages", {"model": "base"})])
        self.assertEqual(fault.kind, INVALID_BODY)
        self.assertEqual(fault.param, "body.messages")
        self.assertEqual(
            fault.message,
            "1 validation error:\n  {'type': 'missing', 'loc': 'body.messages', 'msg': 'Field required', "
            "'input': '<dict of 1 items>'}",
        )

    def test_the_first_of_several_errors_is_the_param(self):
        fault = invalid([missing("prompt", {}), missing("messages", {})])
        self.assertTrue(fault.message.startswith("2 validation errors:\n  "))
        self.assertEqual(fault.param, "body.prompt")

    def test_ten_errors_are_shown_and_the_rest_is_counted(self):
        self.assertNotIn("more", invalid([missing("a", 1)] * 10).message)
        lines = invalid([missing("a", 1)] * 12).message.split("\n")
        self.assertEqual(lines[0], "12 validation errors:")
        self.assertEqual(len(lines), 12)
        self.assertEqual(lines[-1], "  ...and 2 more errors")

    def test_a_bare_text_stands_as_it_is_and_has_no_param(self):
        fault = invalid(["Unsupported Media Type: Only 'application/json' is allowed"])
        self.assertEqual(
            fault.message, "1 validation error:\n  Unsupported Media Type: Only 'application/json' is allowed"
        )
        self.assertIsNone(fault.param)

    def test_a_long_input_is_cut(self):
        self.assertIn("'" + "x" * 200 + "...[truncated]'", invalid([missing("a", "x" * 201)]).message)
        self.assertIn("'" + "x" * 200 + "'", invalid([missing("a", "x" * 200)]).message)

    def test_a_long_entry_is_cut(self):
        entry = invalid([missing("y" * 2000, 1)]).message.split("\n  ")[1]
        self.assertEqual(len(entry), 1000 + len("...[truncated]"))
        self.assertTrue(entry.endswith("y...[truncated]"))

    def test_lists_are_counted_and_scalars_shown(self):
        shown = [invalid([missing("a", value)]).message for value in ([1, 2], None, True, 1.5, 10**5000)]
        expected = ["<list of 2 items>", "None", "True", "1.5", "<int>"]
        for message, text in zip(shown, expected, strict=True):
            self.assertIn(f"'input': '{text}'", message)

    def test_names_of_union_branches_are_left_out_of_a_location(self):
        error = problem("string_type", ("body", "stop", "list[str]", 0, "str"), "m", 1)
        self.assertEqual(invalid([error]).param, "body.stop.0")

    def test_a_location_of_nothing_but_branches_is_kept(self):
        self.assertEqual(invalid([problem("t", ("list", "str"), "m", 1)]).param, "list.str")

    def test_the_error_of_a_validator_shows_the_exception(self):
        message = invalid([rejected(("body", "n"), "0", "n must be positive")]).message
        self.assertIn("'msg': 'Value error, n must be positive', 'input': '0'", message)
        self.assertTrue(message.endswith("'ctx': {'error': ValueError('n must be positive')}}"))

    def test_paths_of_the_host_are_not_told(self):
        self.assertIn("'input': '<path>'", invalid([missing("a", "/home/me/secret")]).message)
