"""Scores, reranking, labels and Cohere's embeddings: bodies to texts, numbers to answers."""

from __future__ import annotations

import json
import struct
from base64 import b64decode

from twisted.trial.unittest import SynchronousTestCase

from llmdsim.api import cohere
from llmdsim.api.pooled import Head, Reading
from llmdsim.api.schema import check
from llmdsim.api.scores import classified, documents, readings, reranked, scored, sides, text
from llmdsim.config import load
from llmdsim.faults import Fault
from llmdsim.sim.request import Conversation

HEAD = Head("score-1", 7, "m")
PARTS = {"content": [{"type": "text", "text": "x"}, {"type": "text", "text": "y"}]}


def config(*words: str):
    return load(["--model", "m", "--max-model-len", "64", *words], {})


class SideTests(SynchronousTestCase):
    def sides(self, **body):
        return sides(check("ScoreRequest", body))

    def test_the_sides_have_the_names_of_any_of_vllms_forms(self) -> None:
        for one, two in (("queries", "documents"), ("queries", "items"), ("data_1", "data_2"), ("text_1", "text_2")):
            self.assertEqual(self.sides(**{one: "a", two: ["b", PARTS]}), (["a"], ["b", PARTS]))

    def test_a_wrong_form_beside_a_right_one_is_passed_over(self) -> None:
        self.assertEqual(self.sides(queries=1, documents=[2], text_1="a", text_2="b"), (["a"], ["b"]))

    def test_texts_pair_one_with_many_or_each_with_each(self) -> None:
        self.assertEqual(self.sides(text_1=["a", "b"], text_2=["c", "d"]), (["a", "b"], ["c", "d"]))
        for one, two, words in (
            (["a", "b"], ["c"], "Input lengths must be either 1:1, 1:N or N:N"),
            ([], ["c"], "At least one text element must be given"),
            ("a", [], "At least one text_pair element must be given"),
        ):
            self.assertEqual(self.assertRaises(Fault, self.sides, text_1=one, text_2=two).message, words)

    def test_a_query_has_documents(self) -> None:
        self.assertEqual(documents({"query": "q", "documents": "d"}), (["q"], ["d"]))
        self.assertRaises(Fault, documents, {"query": "q", "documents": []})

    def test_a_document_of_parts_is_read_as_their_text(self) -> None:
        self.assertEqual([text("a"), text(PARTS)], ["a", "x\ny"])

    def test_each_side_may_have_a_limit_of_its_own(self) -> None:
        body = {"max_tokens_per_doc": 3, "max_tokens_per_query": 0, "truncate_prompt_tokens": 5}
        self.assertEqual(readings(body, config()), (Reading(keep=5), Reading(keep=3)))


class AnswerTests(SynchronousTestCase):
    def test_scores_are_in_the_order_of_the_pairs(self) -> None:
        self.assertEqual(
            scored(HEAD, [0.5, 1.0], 3),
            b'{"id":"score-1","object":"list","created":7,"model":"m","data":['
            b'{"index":0,"object":"score","score":0.5},{"index":1,"object":"score","score":1.0}],'
            b'"usage":{"prompt_tokens":3,"total_tokens":3,"completion_tokens":0,'
            b'"prompt_tokens_details":null,"completion_tokens_details":null}}',
        )

    def test_the_best_documents_come_first_and_equals_in_their_order(self) -> None:
        answer = json.loads(reranked(HEAD, ["a", "b", "c", "d"], [0.1, 0.9, 0.1, -1.0], 3, 3))
        self.assertEqual([result["index"] for result in answer["results"]], [1, 0, 2])

    def test_a_rerank_is_vllms_answer_key_for_key(self) -> None:
        self.assertEqual(
            reranked(HEAD, ["b", PARTS], [1.0, 0.5], 3, 0),
            b'{"id":"score-1","model":"m","usage":{"prompt_tokens":3,"total_tokens":3},"results":['
            b'{"index":0,"document":{"text":"b","multi_modal":null},"relevance_score":1.0},'
            b'{"index":1,"document":{"text":null,"multi_modal":[{"type":"text","text":"x"},'
            b'{"type":"text","text":"y"}]},"relevance_score":0.5}]}',
        )

    def test_the_label_of_a_prompt_is_the_likeliest(self) -> None:
        data = json.loads(classified(HEAD, [[0.25, 0.75], [0.9, 0.1]], 3))["data"]
        self.assertEqual(data[0], {"index": 0, "label": "LABEL_1", "probs": [0.25, 0.75], "num_classes": 2})
        self.assertEqual(data[1]["label"], "LABEL_0")


class CohereTests(SynchronousTestCase):
    def prompts(self, *words, **body):
        return cohere.prompts(check(cohere.REQUEST, body), config(*words), "m")

    def embed(self, vector, *types):
        return json.loads(cohere.embedded(HEAD, [vector], 3, {"texts": ["a"], "embedding_types": list(types)}))

    def test_texts_or_parts_are_asked_about(self) -> None:
        self.assertEqual(self.prompts(texts=["a", "b"]), ("a", "b"))
        chat = Conversation([{"role": "user", **PARTS}], (), False)
        self.assertEqual(self.prompts(inputs=[PARTS]), (chat,))
        wrong: list[dict] = [{}, {"texts": []}, {"images": ["data:"]}, {"texts": ["a"], "truncate": "MIDDLE"}]
        for body in wrong:
            self.assertRaises(Fault, self.prompts, **body)

    def test_a_strict_server_knows_no_input_type(self) -> None:
        fault = self.assertRaises(Fault, self.prompts, "--strict", texts=["a"], input_type="search_query")
        self.assertEqual(
            fault.message,
            "Unsupported input_type 'search_query'. This model does not define any input_type task instructions.",
        )
        self.assertEqual(self.prompts(texts=["a"], input_type="search_query"), ("a",))

    def test_long_texts_are_cut_unless_told_not_to(self) -> None:
        for body, how in (
            ({}, Reading(keep=64)),
            ({"truncate": "START", "max_tokens": 5}, Reading(keep=5, left=True)),
            ({"max_tokens": 500}, Reading(keep=64)),
            ({"truncate": "NONE", "max_tokens": 5}, Reading()),
        ):
            self.assertEqual(cohere.reading(body, config()), how)

    def test_every_wanted_type_has_every_vector(self) -> None:
        vector = [0.5, -0.5, 0.0, -1.0, 1.0, 1.0, 1.0, -1.0]
        answer = self.embed(vector, "ubinary", "binary", "base64", "float")
        found = answer["embeddings"]
        self.assertEqual(list(found), ["float", "binary", "ubinary", "base64"])
        self.assertEqual((found["float"], found["ubinary"], found["binary"]), ([vector], [[0b10101110]], [[46]]))
        self.assertEqual([*struct.unpack("<8f", b64decode(found["base64"][0]))], vector)
        self.assertEqual(list(answer), ["id", "embeddings", "texts", "meta", "response_type"])

    def test_signs_are_packed_by_eight(self) -> None:
        self.assertEqual(list(self.embed([1.0])["embeddings"]), ["float"])
        self.assertRaises(Fault, self.embed, [1.0], "binary")
