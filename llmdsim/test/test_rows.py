"""A dataset's rows: how prompts are hashed, and what a row may look like. The vectors are the older simulator's."""

from __future__ import annotations

import json
from collections.abc import Sequence
from hashlib import sha256
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from llmdsim.rows import hashes, prompt_hash, quoted, read_tokens, write_tokens
from llmdsim.sim.fnv import fnv1a
from llmdsim.sim.request import Conversation, Prompt, Tokens
from llmdsim.test.recordings import ENCODE, hash_of


def spelled(ids: Sequence[int]) -> str:
    return f"<{ids[0]}>"


class HashTests(SynchronousTestCase):
    def found_as(self, prompt: Prompt) -> list[str]:
        return [hash.hex() for hash in hashes(prompt, (1,))]

    def older(self, prompt: Prompt, text: str) -> None:
        self.assertEqual(self.found_as(prompt)[1:], [sha256(text.encode()).hexdigest()])

    def test_a_prompt_is_hashed_as_its_ids_of_four_bytes(self) -> None:
        for prompt, wanted in (
            ("This is a test.", "fc77fff3e26618799a295ee2b6ed0a5c60bfcde3d33b674d36dcf63dfc224b78"),
            ("Hello world!", "a0ca83f59d3a35d2d2d91a897001017adecf057e105c832014ced6a069335c31"),
        ):
            self.assertEqual(hash_of(prompt).hex(), wanted)

    def test_ids_that_have_no_four_bytes_have_no_hash(self) -> None:
        for id in (-1, 1 << 32):
            self.assertIsNone(prompt_hash((1, id)))
        self.assertEqual(list(hashes((1, -1), (1, -1))), [])

    def test_a_completion_was_hashed_as_what_a_user_says(self) -> None:
        self.older("Hello world!", "### user:\nHello world!\n")

    def test_a_chat_was_hashed_with_three_roles_only(self) -> None:
        roles = ("system", "user", "assistant", "tool", None)
        chat = Conversation([{"role": role, "content": str(role)} for role in roles])
        said = ("unknown", "system"), ("user", "user"), ("assistant", "assistant"), ("unknown", "tool")
        self.older(chat, "".join(f"### {role}:\n{text}\n" for role, text in (*said, ("unknown", "None"))))

    def test_the_blocks_of_a_message_were_hashed_as_lines(self) -> None:
        blocks = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
        self.older(Conversation([{"role": "user", "content": blocks}]), "### user:\na\nb\n")

    def test_messages_of_any_shape_can_be_hashed(self) -> None:
        odd: Any = [{}, {"role": ["user"], "content": 3}, {"role": "user", "content": "\ud800"}]
        self.assertEqual(len(self.found_as(Conversation(odd))), 2)

    def test_a_prompt_of_ids_has_no_text(self) -> None:
        self.assertEqual(len(self.found_as((1, 2))), 1)


class TokensTests(SynchronousTestCase):
    def read(self, value: Any) -> tuple[list[int], list[str]]:
        found = read_tokens(value if isinstance(value, bytes) else json.dumps(value).encode(), spelled)
        return [*found.ids], [*found.texts]

    @given(st.lists(st.tuples(st.integers(0, 2**32 - 1), st.text('aé🙂 "\\\n\x00'))))
    def test_what_is_written_is_read_again(self, pairs: list[tuple[int, str]]) -> None:
        ids, texts = [id for id, _ in pairs], [text for _, text in pairs]
        self.assertEqual(self.read(write_tokens(Tokens(ids, texts))), (ids, texts))

    def test_tokens_are_written_as_go_writes_them(self) -> None:
        wanted = b'{"Tokens":[2871118705,933488787,604802540],"Strings":["Hello ","world","!"]}'
        self.assertEqual(write_tokens(ENCODE("Hello world!")), wanted)

    def test_keys_have_any_case_and_older_names(self) -> None:
        for keys in (("Tokens", "Strings"), ("tokens", "strings"), ("numbers", "strings"), ("NUMBERS", "STRINGS")):
            self.assertEqual(self.read(dict(zip(keys, ([1, 2], ["a", "b"]), strict=True))), ([1, 2], ["a", "b"]))

    def test_texts_without_ids_get_those_of_the_simulated_tokenizer(self) -> None:
        wanted = [fnv1a("Hello "), fnv1a("world")], ["Hello ", "world"]
        for value in (["Hello ", "world"], {"strings": ["Hello ", "world"]}, {"Tokens": None, "Strings": wanted[1]}):
            self.assertEqual(self.read(value), wanted)

    def test_ids_without_texts_are_spelled(self) -> None:
        for value in ({"numbers": [7, 8]}, {"Tokens": [7, 8], "Strings": None}):
            self.assertEqual(self.read(value), ([7, 8], ["<7>", "<8>"]))

    def test_an_answer_may_be_empty(self) -> None:
        for written in ("[]", '{"Tokens":[],"Strings":[]}', '{"Tokens":null,"Strings":null}'):
            self.assertEqual(self.read(written.encode()), ([], []))

    def test_anything_else_is_broken(self) -> None:
        for value in (
            b"",
            b"{",
            b"\xff",
            b'["\\ud800"]',
            "text",
            3,
            None,
            {},
            {"Text": ["a"]},
            [1],
            {"Tokens": ["a"], "Strings": ["a"]},
            {"Tokens": [True], "Strings": ["a"]},
            {"Tokens": [-1], "Strings": ["a"]},
            {"Tokens": [1 << 32], "Strings": ["a"]},
            {"Tokens": [1.0], "Strings": ["a"]},
            {"Tokens": [1], "Strings": [None]},
            {"Tokens": [1, 2], "Strings": ["a"]},
            {"Tokens": 1, "Strings": ["a"]},
            {"Tokens": [1], "Strings": "a"},
        ):
            with self.assertRaises(ValueError, msg=repr(value)):
                self.read(value)
        for stored in (None, 3, 1.5):  # what else a column may hold
            with self.assertRaises(ValueError):
                read_tokens(stored, spelled)


class NameTests(SynchronousTestCase):
    def test_a_name_is_quoted_for_sql(self) -> None:
        self.assertEqual(quoted('a"b; c'), '"a""b; c"')
