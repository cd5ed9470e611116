"""Tests for llmdsim.template."""

from __future__ import annotations

from datetime import datetime

from twisted.trial.unittest import SynchronousTestCase

from llmdsim.faults import BAD_REQUEST, Fault
from llmdsim.template import ChatTemplate

CHAT = [{"role": "user", "content": "Grüße"}]
TURNS = (
    "{% for message in messages %}\n"
    "    {% if message.role == 'skip' %}{% continue %}{% endif %}\n"
    "<{{ message.role }}>{{ message.content }}{{ eos_token }}\n"
    "{% endfor %}\n"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
BLOCKS = (
    "{% for m in messages %}{% for part in m['content'] | list %}"
    "{% if part.type == 'text' %}{{ part.text }}{% else %}[{{ part.type }}]{% endif %}{% endfor %}{% endfor %}"
)


def rendered(source: str, messages=CHAT, tools=(), **options) -> str:
    template = ChatTemplate({"default": source}, {"eos_token": "</s>"}, lambda: datetime(2026, 11, 21))
    return template.render(messages, tools, True, options)


class RenderTests(SynchronousTestCase):
    def test_blocks_leave_no_blanks_and_loops_may_continue(self):
        self.assertEqual(rendered(TURNS, [{"role": "skip"}, *CHAT]), "<user>Grüße</s>\n<assistant>")

    def test_json_is_written_without_ascii_escapes_or_html(self):
        self.assertEqual(rendered("{{ messages[0] | tojson }}"), '{"role": "user", "content": "Grüße"}')
        self.assertEqual(rendered("{{ '<é>' | tojson }}"), '"<é>"')

    def test_options_are_variables(self):
        self.assertEqual(rendered("{{ enable_thinking }}", enable_thinking=False), "False")

    def test_options_do_not_replace_the_chat(self):
        self.assertEqual(rendered("{{ messages | length }}", messages=CHAT, add_generation_prompt=3), "1")

    def test_absent_tools_and_documents_are_none(self):
        self.assertEqual(rendered("{{ tools is none }} {{ documents is none }}"), "True True")

    def test_the_date_is_that_of_the_clock_given(self):
        self.assertEqual(rendered("{{ strftime_now('%d %b %Y') }}"), "21 Nov 2026")

    def test_marks_of_training_are_transparent(self):
        self.assertEqual(rendered("a{% generation %}b{{ eos_token }}{% endgeneration %}c"), "ab</s>c")

    def test_tools_choose_the_template_made_for_them(self):
        template = ChatTemplate({"default": "plain", "tool_use": "tools"}, {})
        self.assertEqual(template.render(CHAT, (), True, {}), "plain")
        self.assertEqual(template.render(CHAT, [{"type": "function"}], True, {}), "tools")

    def test_a_model_with_oddly_named_templates_uses_its_first(self):
        self.assertEqual(ChatTemplate({"rag": "r", "other": "o"}, {}).render(CHAT, (), True, {}), "r")


class ShapeTests(SynchronousTestCase):
    PARTS = [{"type": "text", "text": "look"}, {"type": "image_url", "image_url": {"url": "u"}}, {"type": "odd"}]

    def test_a_template_of_strings_gets_the_text(self):
        self.assertEqual(rendered(TURNS, [{"role": "user", "content": self.PARTS}]), "<user>look</s>\n<assistant>")

    def test_a_template_of_blocks_gets_blocks(self):
        self.assertEqual(
            rendered(BLOCKS, [{"content": self.PARTS}, {"content": "!"}, {"content": None}]), "look[image]!"
        )

    def test_looping_over_something_made_of_the_content_is_not_looping_over_its_blocks(self):
        self.assertEqual(rendered("{% for x in messages[0].content.split('ü') %}{{ x }}-{% endfor %}"), "Gr-ße-")

    def test_arguments_of_calls_are_objects(self):
        calls = [{"function": {"name": "f", "arguments": arguments}} for arguments in ('{"a": 1}', "", "broken{")]
        source = "{% for c in messages[0].tool_calls %}{{ c.function.arguments | tojson }};{% endfor %}"
        self.assertEqual(rendered(source, [{"tool_calls": calls}]), '{"a": 1};{};"broken{";')

    def test_nulls_are_absent(self):
        source = "{{ messages[0].tool_calls is defined }}{{ messages[0].content }}"
        self.assertEqual(rendered(source, [{"role": "assistant", "content": None, "tool_calls": None}]), "False")

    def test_messages_of_any_shape_render(self):
        odd = ["text", None, 3, {"content": 5}, {"tool_calls": [1, {"function": 2}]}, {"content": [[], {"type": []}]}]
        self.assertEqual(rendered("{{ messages | length }}", odd), "6")
        self.assertEqual(rendered(BLOCKS, odd), "")


class ErrorTests(SynchronousTestCase):
    def refused(self, source: str) -> str:
        fault = self.assertRaises(Fault, rendered, source)
        self.assertEqual(fault.kind, BAD_REQUEST)
        return fault.message

    def test_what_a_template_refuses_is_a_bad_request_with_its_words(self):
        self.assertEqual(self.refused("{{ raise_exception('roles must alternate') }}"), "roles must alternate")

    def test_what_breaks_inside_a_template_is_a_bad_request(self):
        self.assertIn("undefined", self.refused("{{ nothing.at.all }}"))
        self.assertIn("zero", self.refused("{{ 1 // 0 }}"))

    def test_the_sandbox_holds(self):
        self.assertIn("unsafe", self.refused("{{ messages.__class__.__mro__ }}"))
        self.assertIn("unsafe", self.refused("{{ messages.append(1) }}"))

    def test_a_broken_template_is_found_when_loaded(self):
        error = self.assertRaises(ValueError, ChatTemplate, {"default": "a\n{% if %}"}, {})
        self.assertIn("line 2", str(error))
