"""Tests for llmdsim.sim.messages."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from llmdsim.sim.messages import calls_text, content_text, echo_text, plain_text, prompt_text, transcript

SCALARS = st.none() | st.booleans() | st.integers() | st.text(max_size=4)
KINDS = st.sampled_from(["text", "image_url", "input_text", "input_image", "input_audio", "function", "odd"])
KEYS = st.sampled_from(
    ["role", "content", "type", "text", "image_url", "url", "tool_calls", "function", "name", "arguments"]
)
JSON = st.recursive(
    SCALARS | KINDS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=8
)

PICTURE = {"type": "image_url", "image_url": {"url": "http://x/y.png"}}
CALL = {"type": "function", "function": {"name": "weather", "arguments": '{"city": "Zürich"}'}}


class ContentTests(SynchronousTestCase):
    def test_a_string_is_its_own_text(self):
        self.assertEqual(content_text({"role": "user", "content": " a\nb "}), " a\nb ")

    def test_text_blocks_and_images_are_lines(self):
        blocks = [{"type": "text", "text": "look"}, PICTURE, {"type": "text", "text": "there"}]
        self.assertEqual(content_text({"content": blocks}), "look\nimage: http://x/y.png\nthere")

    def test_plain_text_leaves_images_out(self):
        self.assertEqual(plain_text({"content": [PICTURE, {"type": "text", "text": "there"}]}), "there")

    def test_a_prompt_has_the_checksum_of_a_picture_and_not_its_data(self):
        pictures = [{"type": "image_url", "image_url": {"url": f"data:image/png;base64,{c * 9999}"}} for c in "AB"]
        first, second = (prompt_text({"content": [picture]}) for picture in pictures)
        self.assertRegex(first, r"\Aimage: data:image/png;base64,[0-9a-f]{8}\Z")
        self.assertNotEqual(first, second)
        self.assertEqual(transcript([{"role": "user", "content": pictures}]), f"### user: {first}\n{second}\n")
        self.assertEqual(prompt_text({"content": [PICTURE]}), "image: http://x/y.png")

    def test_sound_and_film_are_silent(self):
        sound = {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}
        film = {"type": "video_url", "video_url": {"url": "http://x/y.mp4"}}
        self.assertEqual(content_text({"content": [sound, {"type": "text", "text": "a"}, film]}), "a")

    def test_blocks_of_the_responses_api_are_understood(self):
        blocks = [{"type": "input_text", "text": "a"}, {"type": "input_image", "image_url": "u"}, {"text": "b"}, "c"]
        self.assertEqual(content_text({"content": blocks}), "a\nimage: u\nb\nc")

    def test_a_missing_content_is_empty(self):
        self.assertEqual(content_text({"role": "assistant", "content": None}) + content_text({}), "")


class CallTests(SynchronousTestCase):
    def test_calls_follow_the_content_without_a_separator(self):
        message = {"content": "well", "tool_calls": [CALL, CALL]}
        call = '[weather({"city": "Zürich"})]'
        self.assertEqual(echo_text(message), "well" + call + call)

    def test_arguments_as_an_object_are_written_compactly(self):
        message = {"tool_calls": [{"function": {"name": "f", "arguments": {"ä": [1, 2]}}}]}
        self.assertEqual(calls_text(message), '[f({"ä":[1,2]})]')

    def test_arguments_deeper_than_json_can_write_are_left_out(self):
        deep: list = []
        for _ in range(100_000):
            deep = [deep]
        self.assertEqual(calls_text({"tool_calls": [{"function": {"name": "f", "arguments": deep}}]}), "[f()]")


class TranscriptTests(SynchronousTestCase):
    def test_each_message_is_a_line_with_its_role(self):
        messages = [{"role": "system", "content": "s"}, {"role": "user", "content": "This is a test."}]
        self.assertEqual(transcript(messages), "### system: s\n### user: This is a test.\n")

    def test_a_tool_result_names_its_call(self):
        messages = [{"role": "tool", "tool_call_id": "call_1", "content": "12"}]
        self.assertEqual(transcript(messages), "### tool(call_1): 12\n")

    def test_a_message_without_a_role_is_kept(self):
        self.assertEqual(transcript([{"content": "x"}]), "### : x\n")

    @given(st.lists(JSON | st.dictionaries(KEYS, JSON), max_size=4))
    def test_nothing_that_json_can_say_fails(self, messages):
        self.assertGreaterEqual(transcript(messages).count("### "), len(messages))
