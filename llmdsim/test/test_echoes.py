from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from llmdsim.api.echoes import echoed


def echo(field: str, value: Any) -> Any:
    return echoed("ResponsesRequest", field, value)


class EchoTests(SynchronousTestCase):
    def test_fields_are_in_the_documents_order_and_null_where_the_client_left_them_out(self) -> None:
        self.assertEqual(
            [*echo("tools", [{"type": "function", "name": "f", "parameters": {"b": 1}}])[0].items()],
            [
                ("name", "f"),
                ("parameters", {"b": 1}),
                ("strict", None),
                ("type", "function"),
                ("allowed_callers", None),
                ("defer_loading", None),
                ("description", None),
                ("output_schema", None),
            ],
        )

    def test_the_type_of_an_object_tells_the_member_of_a_union(self) -> None:
        custom, function = echo("tools", [{"type": "custom", "name": "c"}, {"type": "function", "name": "f"}])
        self.assertIn("format", custom)
        self.assertIn("parameters", function)

    def test_models_inside_of_models_are_printed_too(self) -> None:
        text = {"format": {"type": "json_schema", "schema": {"z": 1, "a": 2}, "name": "n"}}
        printed = {"name": "n", "schema": {"z": 1, "a": 2}, "type": "json_schema", "description": None, "strict": None}
        self.assertEqual(repr(echo("text", text)), repr({"format": printed, "verbosity": None}))

    def test_what_the_document_does_not_know_comes_last(self) -> None:
        self.assertEqual([*echo("reasoning", {"odd": 1, "effort": "low"})][-1], "odd")

    def test_plain_values_and_objects_of_no_known_type_are_themselves(self) -> None:
        for value in ("auto", None, {"type": "nothing", "x": 1}):
            self.assertEqual(echo("tool_choice", value), value)
