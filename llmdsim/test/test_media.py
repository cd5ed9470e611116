"""Features of media parts: hashes, places among the prompt's tokens."""

from __future__ import annotations

from base64 import b64decode

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from llmdsim.sim.media import Medium, features, media


def image(url: object) -> dict:
    return {"type": "image_url", "image_url": url}


class MediaTests(SynchronousTestCase):
    def found(self, *parts: object) -> list[Medium]:
        return media([{"role": "user", "content": list(parts)}])

    def test_media_are_found_in_every_message_in_their_order(self):
        messages = [
            {"role": "user", "content": [{"type": "text", "text": "x"}, image({"url": "u1"})]},
            {"role": "assistant", "content": "no media"},
            {"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "d", "format": "wav"}}]},
            {"role": "user", "content": [{"type": "video_url", "video_url": {"url": "v"}}, image("u2")]},
        ]
        wanted = [("image", "u1"), ("audio", "d"), ("video", "v"), ("image", "u2")]
        self.assertEqual(media(messages), wanted)

    def test_parts_that_hold_nothing_are_passed_over(self):
        nothing = (image({"url": ""}), image(None), image(5), {"type": ["image_url"]}, {"type": "file"}, "text", 7)
        self.assertEqual(self.found(*nothing), [])
        self.assertIsNone(features([], 10))

    def test_a_hash_counts_within_its_modality_and_is_fnv1a_of_the_content(self):
        shown = features(self.found(image("a"), {"type": "video_url", "video_url": "a"}, image("")), 9)
        self.assertEqual(shown["mm_hashes"], {"image": ["sim_img_0_e40c292c"], "video": ["sim_video_0_e40c292c"]})
        again = features(self.found(image("a"), image("a")), 9)["mm_hashes"]["image"]
        self.assertEqual(again, ["sim_img_0_e40c292c", "sim_img_1_e40c292c"])

    def test_the_payload_is_the_hash_in_base64_and_may_be_left_out(self):
        found = self.found(image("a"))
        shown = features(found, 9)
        self.assertEqual([b64decode(each).decode() for each in shown["kwargs_data"]["image"]], ["sim_img_0_e40c292c"])
        self.assertEqual(list(features(found, 9, payload=False)), ["mm_hashes", "mm_placeholders"])

    def test_media_share_the_tokens_evenly(self):
        places = features(self.found(image("a"), image("b"), image("c")), 11)["mm_placeholders"]["image"]
        self.assertEqual([(place["offset"], place["length"]) for place in places], [(0, 3), (3, 3), (6, 3)])

    @given(st.integers(1, 40), st.integers(1, 60))
    def test_every_place_has_room_and_lies_in_the_prompt(self, count: int, tokens: int):
        shown = features([Medium("image", "a")] * count, tokens)
        places = shown["mm_placeholders"]["image"] if shown else []
        self.assertEqual(len(places), count)
        for place in places:
            self.assertTrue(place["length"] >= 1 and 0 <= place["offset"] <= tokens - place["length"], place)
