"""What the parsers see in a raw text, whole and token by token."""

from __future__ import annotations

import json

from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from llmdsim.api.parsing import (
    ARGUMENTS,
    CALL,
    CONTENT,
    NAME,
    REASONING,
    THOUGHT,
    Call,
    Piece,
    View,
    Views,
    call_id,
    merged,
    parse,
)
from llmdsim.sim.plan import Plan, abort
from llmdsim.sim.request import Form
from llmdsim.test.support import a_plan
from llmdsim.test.writing import call, letters

PARIS = Call("get_weather", '{"location": "Paris"}')


def shown(view: View, channel: str, number: int = 0) -> str:
    """What all tokens show together of one channel."""
    pieces = [piece for pieces in view.pieces for piece in pieces]
    return "".join(piece.text for piece in pieces if (piece.channel, piece.call) == (channel, number))


class ReasoningTests(SynchronousTestCase):
    def think(self, *texts: str, tools: bool = False) -> tuple[str | None, str | None]:
        view = parse(texts, thinking=True, tools=tools)
        return view.reasoning, view.content

    def test_reasoning_lies_before_its_end_mark_and_content_behind(self) -> None:
        self.assertEqual(self.think("<think>", "\nwhy\n", "</think>", "\n\nso"), ("\nwhy\n", "\n\nso"))

    def test_the_opening_mark_may_be_the_prompts(self) -> None:
        self.assertEqual(self.think("why", "</think>", "so"), ("why", "so"))

    def test_without_an_end_mark_all_is_reasoning(self) -> None:
        self.assertEqual(self.think("<think>", "why"), ("why", None))

    def test_a_tool_call_ends_reasoning_that_nothing_else_has_ended(self) -> None:
        for tools in (True, False):
            self.assertEqual(self.think("why", call()[:20], tools=tools), ("why", call()[:20]))
        self.assertEqual(self.think(call(), tools=True), (None, None))

    def test_what_is_empty_is_absent(self) -> None:
        self.assertEqual(self.think("<think>", "</think>", ""), (None, None))

    def test_marks_are_hidden_however_they_are_cut(self) -> None:
        view = parse(letters("<think>why</think>so"), thinking=True, tools=False)
        self.assertEqual((shown(view, REASONING), shown(view, CONTENT)), ("why", "so"))
        self.assertEqual(sum(map(len, view.pieces)), 5)

    def test_reasoning_tokens_are_counted_as_they_come(self) -> None:
        view = parse(["<think>", "a", "b", "</think>", "so", ""], thinking=True, tools=False)
        self.assertEqual(view.thought, [0, 1, 2, 2, 2, 2])

    def test_without_a_parser_marks_are_text(self) -> None:
        view = parse(["<think>", "a", "</think>"], thinking=False, tools=False)
        self.assertEqual((view.reasoning, view.content), (None, "<think>a</think>"))


class CallTests(SynchronousTestCase):
    def calls(self, raw: str) -> View:
        return parse(letters(raw), thinking=False, tools=True)

    def test_a_call_shows_its_name_when_that_is_complete_then_its_arguments_as_they_come(self) -> None:
        texts = ['<tool_call>\n{"na', 'me": "f', '", "arg', 'uments": {"a', '": 1}', "}\n</tool_call>", ""]
        view = parse(texts, thinking=False, tools=True)
        pieces = [pieces[0] if pieces else None for pieces in view.pieces]
        arguments = Piece(ARGUMENTS, '{"a', 0), Piece(ARGUMENTS, '": 1}', 0)
        self.assertEqual(pieces, [None, None, Piece(NAME, "f", 0), *arguments, None, None])

    def test_text_before_the_first_call_is_content_and_what_follows_is_hidden(self) -> None:
        view = self.calls(f"I am {call()} and {call()} done")
        self.assertEqual((view.content, view.calls), ("I am ", [PARIS, PARIS]))
        self.assertEqual((shown(view, CONTENT), shown(view, ARGUMENTS, 1)), ("I am ", PARIS.arguments))

    def test_parameters_is_another_word_for_arguments(self) -> None:
        self.assertEqual(self.calls(call().replace("arguments", "parameters")).calls, [PARIS])

    def test_markup_within_a_string_is_text(self) -> None:
        for text in ("</tool_call>", "<tool_call>", "<think>", '{"name": "g"}', "\\", '"', "\u2028"):
            arguments, name = json.dumps({"a": text}, ensure_ascii=False), f"f{text}"
            view = self.calls(call(arguments, name) + call())
            self.assertEqual(view.calls, [Call(name, arguments), PARIS])
            self.assertEqual((shown(view, NAME), shown(view, ARGUMENTS)), (name, arguments))

    def test_a_call_that_was_cut_off_is_content_of_a_whole_answer_and_shows_what_there_was_of_it(self) -> None:
        for cut, name, arguments in ((12, "", ""), (34, "get_weather", ""), (50, "get_weather", "{")):
            view = self.calls(call()[:cut])
            self.assertEqual((view.content, view.calls), (call()[:cut], []))
            self.assertEqual((shown(view, CONTENT), shown(view, NAME), shown(view, ARGUMENTS)), ("", name, arguments))

    def test_one_call_that_was_cut_off_makes_the_calls_before_it_content_too(self) -> None:
        view = self.calls(call() + call()[:50])
        self.assertEqual((view.content, view.calls), (call() + call()[:50], []))
        self.assertEqual(shown(view, ARGUMENTS), PARIS.arguments)

    def test_a_call_lacks_nothing_without_its_end_mark(self) -> None:
        self.assertEqual(self.calls(call().removesuffix("\n</tool_call>")).calls, [PARIS])

    def test_what_is_no_call_is_none(self) -> None:
        for raw in ('{"name": 1, "arguments": {}}', "[]", "", '{"name": "f"}', '{"arguments": {}, "name": "f"}'):
            view = self.calls(f"<tool_call>{raw}</tool_call>")
            self.assertEqual((view.calls, view.content), ([], f"<tool_call>{raw}</tool_call>"))

    def test_json_too_deep_to_read_is_no_call(self) -> None:
        self.assertEqual(self.calls(call("[" * 40_000 + "]" * 40_000)).calls, [])


WORDS = st.sampled_from(
    ["<think>", "</think>", "<tool_call>", "</tool_call>", '{"name": "f", "arguments": ', '{"a": "b"}', "}", "\n", "x ",
     '"', "\\", "\ud800", "\u00e9", "<", "{", '{"name": ', '"g"', ', "arguments": ', "[1, ", "NaN", "1" * 5000, call()]
)  # fmt: skip
RAW = st.lists(WORDS | st.text(max_size=3), max_size=12).map("".join)


@st.composite
def cut_texts(draw: st.DrawFn) -> list[str]:
    """A raw text in tokens of any length, none too."""
    raw = draw(RAW)
    ends = sorted(draw(st.lists(st.integers(0, len(raw)), max_size=20)))
    return [raw[start:stop] for start, stop in zip([0, *ends], [*ends, len(raw)], strict=True)]


class RuleTests(SynchronousTestCase):
    @settings(deadline=None)
    @given(cut_texts(), st.booleans(), st.booleans())
    @example(["</think>"], True, True)
    @example(["<tool_call>", '{"name": "f"'], False, True)
    def test_what_tokens_show_joins_to_what_the_whole_shows(
        self, texts: list[str], thinking: bool, tools: bool
    ) -> None:
        raw, view = "".join(texts), parse(texts, thinking=thinking, tools=tools)
        self.assertEqual((len(view.pieces), len(view.thought)), (len(texts), len(texts)))
        self.assertEqual(shown(view, REASONING), view.reasoning or "")
        for number, each in enumerate(view.calls):
            self.assertEqual((shown(view, NAME, number), shown(view, ARGUMENTS, number)), tuple_of(each))
            json.loads(each.arguments)
        broken = tools and not view.calls and CALL in (view.content or "")
        content = (view.content or "").partition(CALL)[0] if broken else view.content or ""
        self.assertEqual(shown(view, CONTENT), content)
        if not tools:
            self.assertTrue(raw.endswith(content))

    @settings(deadline=None)
    @given(cut_texts(), st.booleans(), st.booleans())
    def test_how_a_text_is_cut_changes_nothing_of_what_is_shown(
        self, texts: list[str], thinking: bool, tools: bool
    ) -> None:
        views = [parse(cut, thinking=thinking, tools=tools) for cut in (texts, letters("".join(texts)))]
        self.assertEqual(*[(view.reasoning, view.content, view.calls) for view in views])
        self.assertEqual(*[merged(view.pieces) for view in views])

    @settings(deadline=None)
    @given(cut_texts(), st.booleans(), st.booleans())
    def test_a_name_comes_once_and_before_its_arguments(self, texts: list[str], thinking: bool, tools: bool) -> None:
        pieces = [piece for each in parse(texts, thinking=thinking, tools=tools).pieces for piece in each]
        calls = [(piece.call, piece.channel) for piece in pieces if piece.channel in (NAME, ARGUMENTS)]
        names = [number for number, channel in calls if channel == NAME]
        self.assertEqual(names, list(range(len(names))))
        self.assertEqual(calls, sorted(calls, key=lambda each: (each[0], each[1] == ARGUMENTS)))
        self.assertTrue({number for number, _ in calls} <= set(names))

    @settings(deadline=None)
    @given(cut_texts(), st.booleans(), st.booleans())
    def test_nothing_is_shown_that_was_not_said(self, texts: list[str], thinking: bool, tools: bool) -> None:
        view = parse(texts, thinking=thinking, tools=tools)
        for text, pieces in zip(texts, view.pieces, strict=True):
            for piece in pieces:
                self.assertTrue(piece.channel == NAME or (piece.text and piece.text in text))


def tuple_of(each: Call) -> tuple[str, str]:
    return each.name, each.arguments


class MergeTests(SynchronousTestCase):
    def test_neighbours_of_one_channel_and_call_are_one(self) -> None:
        arguments = [Piece(ARGUMENTS, "{", 0), Piece(ARGUMENTS, "}", 0), Piece(ARGUMENTS, "{", 1)]
        pieces = [[Piece(CONTENT, "a", 0)], [], [Piece(CONTENT, "b", 0), Piece(NAME, "f", 0)], arguments]
        expected = [Piece(CONTENT, "ab", 0), Piece(NAME, "f", 0), Piece(ARGUMENTS, "{}", 0), Piece(ARGUMENTS, "{", 1)]
        self.assertEqual(merged(pieces), expected)

    def test_names_are_never_joined(self) -> None:
        pieces = [[Piece(NAME, "f", 0)], [Piece(NAME, "f", 0)]]
        self.assertEqual(merged(pieces), [Piece(NAME, "f", 0)] * 2)


class ViewsTests(SynchronousTestCase):
    def plan(self, *texts: str) -> Plan:
        plan = a_plan(len(texts))
        plan.texts = list(texts)
        return plan

    def test_a_plan_is_read_once(self) -> None:
        views, plan = Views(Form(thinking=True)), self.plan("a", THOUGHT, "b")
        self.assertIs(views(plan), views(plan))

    def test_an_abort_is_seen_though_it_left_as_many_texts(self) -> None:
        views, plan = Views(Form(thinking=True)), self.plan("a", THOUGHT, "b")
        self.assertEqual(views(plan).content, "b")
        abort(plan, 2)
        self.assertEqual((len(plan.texts), views(plan).content), (3, None))

    def test_calls_have_ids_of_their_own(self) -> None:
        plans = self.plan("a"), self.plan("a")
        plans[1].index = 1
        ids = {call_id(plan, number) for plan in plans for number in (0, 1)}
        self.assertEqual(len(ids), 4)
        self.assertEqual({len(id) for id in ids}, {len("chatcmpl-tool-") + 16})
