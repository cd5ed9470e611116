"""Embedding and pooling bodies and answers, and vectors as bytes."""

from __future__ import annotations

import json
import struct
from base64 import b64decode

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from llmdsim.api.embeddings import (
    EMBEDDING,
    MOST_VALUES,
    POOLING,
    activated,
    check_size,
    dimensions,
    packed,
    pooling_task,
)
from llmdsim.api.encoding import octets
from llmdsim.api.pooled import Head, Reading, is_pooling, prompts, reading
from llmdsim.api.schema import check
from llmdsim.config import load
from llmdsim.faults import Fault
from llmdsim.sim.request import Conversation

HEAD = Head("embd-1", 7, "m")
VECTORS = [[0.5, -0.25], [1.0, 0.0]]
CHAT = [{"role": "user", "content": "hi"}]
EMPTY_CHAT = "Cannot apply chat template to an empty conversation. Provide at least one message."


def config(*words: str):
    return load(["--model", "m", *words], {})


class PromptTests(SynchronousTestCase):
    def read(self, **body):
        return prompts(check("EmbeddingRequest", body), config())

    def refusal(self, **body) -> str:
        return self.assertRaises(Fault, self.read, **body).message

    def test_every_form_of_input_is_understood(self) -> None:
        for value, found in (
            ("a", ("a",)),
            (["a", "b"], ("a", "b")),
            ([1, 2], ((1, 2),)),
            ([[1, 2], []], ((1, 2), ())),
            (["1", 2.0], ((1, 2),)),
        ):
            self.assertEqual(self.read(input=value), found)

    def test_chats_are_prompts_under_either_name(self) -> None:
        chat = Conversation(CHAT, (), False)
        self.assertEqual(self.read(messages=CHAT), (chat,))
        self.assertEqual(self.read(input=CHAT), (chat,))
        self.assertEqual(self.read(messages=[CHAT, CHAT]), (chat, chat))
        self.assertEqual(self.read(messages=CHAT, input=[None]), (chat,))

    def test_an_input_that_is_right_wins_over_messages(self) -> None:
        self.assertEqual(self.read(messages=CHAT, input="a"), ("a",))

    def test_nothing_asked_is_refused_in_vllms_words(self) -> None:
        self.assertEqual(self.refusal(input=[]), "You must pass at least one prompt")
        self.assertEqual(self.refusal(messages=[]), EMPTY_CHAT)
        self.assertTrue(self.refusal().startswith("7 validation errors:\n  {'type': 'missing', 'loc': 'body.input'"))

    def test_a_template_from_a_request_has_to_be_trusted(self) -> None:
        body = {"messages": CHAT, "chat_template": "x"}
        self.assertIn("untrusted chat template", self.refusal(**body))
        self.assertEqual(len(prompts(body, config("--trust-request-chat-template"))), 1)

    def test_a_prompt_is_cut_where_the_body_says(self) -> None:
        for body, kept in (
            ({}, (1, 2, 3)),
            ({"truncate_prompt_tokens": 2}, (1, 2)),
            ({"truncate_prompt_tokens": 2, "truncation_side": "left"}, (2, 3)),
            ({"truncate_prompt_tokens": 0, "truncation_side": "left"}, ()),
            ({"truncate_prompt_tokens": -1}, (1, 2, 3)),
        ):
            self.assertEqual(reading(body, config("--max-model-len", "3")).cut([1, 2, 3]), kept)
        self.assertEqual(reading({"truncate_prompt_tokens": -1}, config("--max-model-len", "3")), Reading(keep=3))

    def test_more_than_the_context_window_cannot_be_kept(self) -> None:
        fault = self.assertRaises(Fault, reading, {"truncate_prompt_tokens": 4}, config("--max-model-len", "3"))
        self.assertEqual(fault.param, "truncate_prompt_tokens")


class ChoiceTests(SynchronousTestCase):
    def test_a_strict_server_cannot_shorten_its_vectors(self) -> None:
        fault = self.assertRaises(Fault, dimensions, 2, config("--strict"), "emb")
        self.assertEqual(
            (fault.message, fault.param),
            (
                "Model 'emb' does not support Matryoshka embeddings; dimensions must be unset (received dimensions=2).",
                None,
            ),
        )
        self.assertEqual(dimensions(None, config("--strict"), "emb"), 384)

    def test_other_servers_have_vectors_of_any_sane_length(self) -> None:
        plain = config("--default-embedding-dimensions", "9000")
        self.assertEqual([dimensions(asked, plain, "m") for asked in (None, 1, 9000)], [9000, 1, 9000])
        for asked, words in ((0, "dimensions must be at least 1"), (8193, "dimensions must be at most 8192, got 8193")):
            self.assertEqual(self.assertRaises(Fault, dimensions, asked, config(), "m").message, words)

    def test_an_answer_has_to_fit_into_memory(self) -> None:
        check_size(MOST_VALUES // 4, 4)
        self.assertRaises(Fault, check_size, MOST_VALUES // 4 + 1, 4)

    def test_a_strict_server_only_embeds(self) -> None:
        self.assertEqual(pooling_task({"input": "a"}, config("--strict")), "embed")
        self.assertEqual(pooling_task({"input": "a", "task": "classify"}, config()), "classify")
        for task, words in (("classify", ("--strict",)), ("plugin", ())):
            self.assertRaises(Fault, pooling_task, {"input": "a", "task": task}, config(*words))

    def test_data_is_for_plugins_of_which_there_are_none(self) -> None:
        fault = self.assertRaises(Fault, pooling_task, {"data": 1, "task": "plugin"}, config())
        self.assertTrue(fault.message.startswith("No IOProcessor plugin installed."))

    def test_embeddings_are_normalized_in_strict_mode_or_on_demand_and_labels_always(self) -> None:
        for body, words, task, expected in (
            ({}, (), "embed", False),
            ({}, ("--strict",), "embed", True),
            ({"use_activation": True}, (), "embed", True),
            ({"use_activation": False}, ("--strict",), "embed", False),
            ({}, (), "token_classify", True),
        ):
            self.assertIs(activated(body, config(*words), task), expected)

    def test_the_runner_or_the_older_task_says_that_a_model_pools(self) -> None:
        flags = ((), ("--runner", "pooling"), ("--task", "embed"), ("--task", "generate"))
        self.assertEqual([is_pooling(config(*words)) for words in flags], [False, True, True, False])


class AnswerTests(SynchronousTestCase):
    def answer(self, kind=EMBEDDING, vectors=VECTORS, **body):
        return packed(kind, HEAD, vectors, [3, 1], body)

    def test_floats_are_vllms_answer_key_for_key(self) -> None:
        self.assertEqual(
            self.answer().body,
            b'{"id":"embd-1","object":"list","created":7,"model":"m","data":['
            b'{"index":0,"object":"embedding","embedding":[0.5,-0.25]},'
            b'{"index":1,"object":"embedding","embedding":[1.0,0.0]}],'
            b'"usage":{"prompt_tokens":4,"total_tokens":4,"completion_tokens":0,'
            b'"prompt_tokens_details":null,"completion_tokens_details":null}}',
        )
        self.assertIn(b'{"index":0,"object":"pooling","data":[0.5,-0.25]}', self.answer(POOLING).body)

    def test_base64_is_of_little_endian_float32(self) -> None:
        data = json.loads(self.answer(encoding_format="base64").body)["data"]
        self.assertEqual([[*struct.unpack("<2f", b64decode(item["embedding"]))] for item in data], VECTORS)

    def test_bytes_come_with_a_header_that_finds_each_vector(self) -> None:
        answer = self.answer(encoding_format="bytes", embed_dtype="float16", endianness="big")
        self.assertEqual(answer.content_type, b"application/octet-stream")
        metadata = json.loads(answer.metadata)
        self.assertEqual(list(metadata), ["id", "created", "model", "data", "usage"])
        self.assertEqual(metadata["usage"], {"prompt_tokens": 4, "total_tokens": 4})
        pieces = [answer.body[item["start"] : item["end"]] for item in metadata["data"]]
        self.assertEqual([[*struct.unpack(">2e", piece)] for piece in pieces], VECTORS)
        self.assertEqual([item["shape"] for item in metadata["data"]], [[2], [2]])

    def test_bytes_only_are_the_same_bytes_without_the_header(self) -> None:
        bare = self.answer(encoding_format="bytes_only")
        self.assertEqual((bare.body, bare.metadata), (self.answer(encoding_format="bytes").body, None))

    def test_a_matrix_is_written_row_by_row(self) -> None:
        answer = self.answer(POOLING, [VECTORS, VECTORS], encoding_format="bytes")
        self.assertEqual(json.loads(answer.metadata)["data"][1]["shape"], [2, 2])
        self.assertEqual(answer.body, struct.pack("=4f", 0.5, -0.25, 1, 0) * 2)


class OctetTests(SynchronousTestCase):
    @given(st.lists(st.floats(-1, 1, width=32, allow_subnormal=False), max_size=5))
    def test_a_bfloat16_is_the_nearer_of_the_two_around_a_float32(self, values) -> None:
        codes = struct.unpack(f"<{len(values)}H", octets(values, "bfloat16", "little"))
        for value, code in zip(values, codes, strict=True):
            (found,) = struct.unpack("<f", struct.pack("<I", code << 16))
            self.assertLessEqual(abs(found - value), abs(value) / 256)

    def test_eight_bit_floats_are_rounded_to_the_nearest_and_ties_to_even(self) -> None:
        values = [0.0, 1.0, -1.0, 0.5, 1.0625, 1.1875, 1.07, 1000.0, 2.0**-9]
        self.assertEqual(octets(values, "fp8_e4m3", "native").hex(), "0038b83038" + "3a397e01")
        values = [0.0, 1.0, -1.0, 0.5, 1.125, 1.375, 1.13, 2.0**-16]
        self.assertEqual(octets(values, "fp8_e5m2", "native").hex(), "003cbc383c" + "3e3d01")
