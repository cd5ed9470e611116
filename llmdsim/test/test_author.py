"""What the simulated model writes: what the prompt dictates, what a form demands, and reasoning before either."""

from __future__ import annotations

import json
from random import Random
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from llmdsim.api.chat import Chat, ChatBatch
from llmdsim.api.completions import Completions
from llmdsim.api.messages import Messages
from llmdsim.api.parsing import parse
from llmdsim.dataset import Presets
from llmdsim.sim.author import Author, Draft
from llmdsim.sim.plan import Plan
from llmdsim.sim.request import Constraint, Form, Request, Tokens
from llmdsim.sim.tools import Tool
from llmdsim.simulated import Simulated
from llmdsim.test.doors import Script
from llmdsim.test.support import make_rank, request
from llmdsim.test.writing import ask

ENCODER = Simulated()
F = Tool("f", {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]})
G = Tool("g</tool_call>\n", {})


def said(draft: Draft) -> str:
    """The text of a draft."""
    return "".join(draft.tokens.texts)


class AuthorCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.failed: list[int] = []

    def author(self, source: Any = None, **flags: Any) -> Author:
        config = make_rank(**flags)[0].config
        return Author(config, ENCODER, source or Presets(ENCODER.encode), self.failed.append)

    def draft(self, asked: Request, prompt: str = "hi", limit: int = 200, source: Any = None, **flags: Any) -> Draft:
        author = self.author(source, **flags)
        drafted = author.draft(asked, prompt, prompt, ENCODER.encode(prompt), limit, Random(1))
        return self.successResultOf(Deferred.fromCoroutine(drafted))

    def form(self, limit: int = 200, source: Any = None, **fields: Any) -> str:
        asked = request(limit, form=Form(**fields))
        return said(self.draft(asked, limit=limit, source=source))


class DictatedTests(AuthorCase):
    def dictated(self, text: str, limit: int = 200, **fields: Any) -> str:
        return said(self.draft(request(limit, **fields), f"Please: SAY<<{text}>>.", limit))

    def test_the_prompt_may_dictate_the_answer(self) -> None:
        for text in ("Hello there!", "", "a\nb", "<think>x</think>y", "a >> b", "<tool_call>{}</tool_call>", "é\u2028"):
            self.assertEqual(self.dictated(text), text)

    def test_no_form_changes_what_is_dictated(self) -> None:
        form = Form(tools=(F,), choice="required", thinking=True, constraint=Constraint("choice", ["no"]))
        self.assertEqual(self.dictated("Hello", form=form), "Hello")

    def test_it_ends_by_itself_unless_the_limit_cuts_it(self) -> None:
        whole, cut = (self.draft(request(), "SAY<<a b c d>>", limit) for limit in (5, 4))
        self.assertEqual((whole.complete, len(whole.tokens.ids)), (True, 4))
        self.assertEqual((cut.complete, len(cut.tokens.ids)), (False, 4))

    def test_an_opening_alone_dictates_nothing(self) -> None:
        self.assertNotEqual(said(self.draft(request(), "SAY<<hi>", 9)), "hi>")

    def test_every_dialect_can_dictate(self) -> None:
        user = {"role": "user", "content": "SAY<<ja, so>>"}
        parts = {"role": "user", "content": [{"type": "text", "text": "SAY<<ja, so>>"}]}
        asked = [
            ask(Chat, {"messages": [user]}),
            ask(Chat, {"messages": [parts]}),
            ask(ChatBatch, {"messages": [[user], [parts]]}),
            ask(Completions, {"prompt": ["SAY<<ja, so>>", "SAY<<ja, so>>"]}),
            ask(Messages, {"messages": [parts], "max_tokens": 9}),
            ask(Messages, {"messages": [{"role": "user", "content": "x"}], "system": "SAY<<ja, so>>", "max_tokens": 9}),
        ]
        for each in asked:
            planner = make_rank()[0].planner
            plans: list[Plan] = self.successResultOf(Deferred.fromCoroutine(planner.plan(each.request)))
            self.assertEqual({("".join(plan.texts), plan.finish) for plan in plans}, {("ja, so", "stop")})


class FormTests(AuthorCase):
    def test_calls_are_written_in_markup_that_the_parser_reads(self) -> None:
        for tool in (F, G):
            raw = self.form(tools=(tool,), choice="required")
            (call,) = parse([raw], thinking=False, tools=True).calls
            self.assertEqual((call.name, list(json.loads(call.arguments))), (tool.name, ["a"] if tool is F else []))

    def test_several_calls_are_one_below_the_other(self) -> None:
        asked = request(900, form=Form(tools=(F, F, G), choice="required"))
        raw = said(self.draft(asked, limit=900, tool_call_extra_call_probability=100))
        self.assertEqual(len(parse([raw], thinking=False, tools=True).calls), 3)

    def test_the_named_tool_is_called(self) -> None:
        raw = self.form(tools=(F, G), choice="named", named=G.name)
        self.assertEqual(parse([raw], thinking=False, tools=True).calls[0].name, G.name)

    def test_a_choice_is_one_of_those_given(self) -> None:
        self.assertIn(self.form(constraint=Constraint("choice", ["ja", "nein"])), ("ja", "nein"))

    def test_a_pattern_is_matched(self) -> None:
        self.assertRegex(self.form(constraint=Constraint("regex", "[ab]{3}-c")), "^[ab]{3}-c$")

    def test_a_schema_is_followed_as_an_object_or_as_text(self) -> None:
        schema = {"type": "object", "properties": {"a": {"const": "é"}}, "required": ["a"]}
        for value in (schema, json.dumps(schema)):
            self.assertEqual(self.form(constraint=Constraint("json", value)), '{"a": "é"}')

    def test_any_json_object_will_do(self) -> None:
        self.assertIsInstance(json.loads(self.form(constraint=Constraint("json_object", True))), dict)

    def test_grammars_are_answered_with_plain_text(self) -> None:
        constraint = Constraint("grammar", "root ::= x")
        self.assertEqual(self.form(source=Script("plain"), constraint=constraint), "plain")

    def test_calls_come_before_structured_output(self) -> None:
        raw = self.form(tools=(F,), choice="required", constraint=Constraint("choice", ["no"]))
        self.assertTrue(raw.startswith("<tool_call>"))

    def test_the_limit_cuts_every_form(self) -> None:
        draft = self.draft(request(form=Form(tools=(F,), choice="required")), limit=5)
        self.assertEqual((len(draft.tokens.ids), draft.complete), (5, False))


class ThinkingTests(AuthorCase):
    def read(self, limit: int = 500, source: Any = None, **fields: Any) -> tuple[str | None, str | None]:
        asked = request(limit, form=Form(thinking=True, **fields))
        view = parse([said(self.draft(asked, limit=limit, source=source))], thinking=True, tools=False)
        return view.reasoning, view.content

    def test_reasoning_comes_before_the_answer(self) -> None:
        reasoning, content = self.read()
        self.assertTrue(reasoning)
        self.assertTrue(content)

    def test_an_answer_with_a_form_is_whole_behind_it(self) -> None:
        reasoning, content = self.read(constraint=Constraint("choice", ["ja"]))
        self.assertTrue(reasoning)
        self.assertEqual((content or "").strip(), "ja")

    def test_the_limit_counts_reasoning_too(self) -> None:
        for limit in (1, 2, 7, 40):
            draft = self.draft(request(limit, form=Form(thinking=True)), limit=limit)
            self.assertLessEqual(len(draft.tokens.ids), limit)
            self.assertEqual(len(draft.tokens.ids), len(draft.tokens.texts))

    def test_few_tokens_are_reasoning_alone(self) -> None:
        self.assertIsNone(self.read(limit=4)[1])

    def test_its_tokens_are_the_encoders(self) -> None:
        tokens: Tokens = self.draft(request(99, form=Form(thinking=True)), limit=99).tokens
        self.assertEqual(tokens.texts, ENCODER.strings(tokens.ids))
