"""The pooling routes: where they are, what they refuse, what they answer."""

from __future__ import annotations

import struct
from base64 import b64decode
from collections.abc import Mapping
from math import hypot, isclose
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from llmdsim.sim.fnv import fnv1a
from llmdsim.sim.vectors import embedding
from llmdsim.test.doors import Door
from llmdsim.test.support import WALL
from llmdsim.web import pooling
from llmdsim.web.site import App

EMBED = "/v1/embeddings"
STRICT = ("--strict", "--runner", "pooling", "--served-model-name", "emb", "--max-model-len", "256")
PATHS: dict[str, dict[str, Any]] = {
    EMBED: {"input": "a"},
    "/pooling": {"input": "a"},
    "/v2/embed": {"texts": ["a"]},
    "/score": {"text_1": "a", "text_2": "b"},
    "/v1/score": {"text_1": "a", "text_2": "b"},
    "/rerank": {"query": "a", "documents": ["b"]},
    "/v1/rerank": {"query": "a", "documents": ["b"]},
    "/v2/rerank": {"query": "a", "documents": ["b"]},
    "/classify": {"input": "a"},
}


def door(*words: str, environ: Mapping[str, str] | None = None) -> Door:
    """A door with the pooling routes, whether or not its own app has them."""
    found = Door(*words, environ=environ)
    if not set(PATHS) & set(found.app.paths()):
        pooling.routes(found.app, found.rank)
    return found


class RouteTests(SynchronousTestCase):
    def served(self, *words: str) -> list[str]:
        app = App(seconds=lambda: 0.0)
        pooling.routes(app, Door(*words).rank)
        return app.paths()

    def test_a_server_that_is_not_strict_pools_whatever_its_model(self) -> None:
        self.assertEqual(self.served(), sorted(PATHS))

    def test_a_strict_server_pools_where_vllm_does(self) -> None:
        self.assertEqual(self.served("--strict"), [])
        self.assertEqual(self.served(*STRICT), sorted({*PATHS} - {"/classify"}))

    def test_a_server_of_encoders_alone_pools_nothing(self) -> None:
        self.assertEqual(self.served("--mm-encoder-only"), [])

    def test_every_route_answers(self) -> None:
        here = door()
        self.assertEqual([here.post(path, body).status for path, body in PATHS.items()], [200] * len(PATHS))


class EmbeddingTests(SynchronousTestCase):
    def values(self, here: Door, **body: Any) -> list[list[float]]:
        return [item["embedding"] for item in here.post(EMBED, body).json()["data"]]

    def test_an_answer_is_vllms_key_for_key(self) -> None:
        answer = door(*STRICT).ask("POST", EMBED, json={"input": "a b c"}, headers={"X-Request-Id": "rr"}).json()
        values = answer["data"][0].pop("embedding")
        self.assertEqual(
            list(answer.items()),
            [
                ("id", "embd-rr"),
                ("object", "list"),
                ("created", WALL),
                ("model", "emb"),
                ("data", [{"index": 0, "object": "embedding"}]),
                (
                    "usage",
                    {
                        "prompt_tokens": 3,
                        "total_tokens": 3,
                        "completion_tokens": 0,
                        "prompt_tokens_details": None,
                        "completion_tokens_details": None,
                    },
                ),
            ],
        )
        self.assertTrue(isclose(hypot(*values), 1, rel_tol=1e-5))

    def test_a_text_has_the_vector_of_its_tokens_in_any_company(self) -> None:
        here = door()
        one = embedding([fnv1a("a")], 384)
        self.assertEqual(self.values(here, input=["b", "a"])[1], one)
        self.assertEqual(self.values(here, input=[fnv1a("a")]), [one])
        self.assertEqual(self.values(here, input="a", dimensions=5), [one[:5]])

    def test_base64_tells_the_same_values(self) -> None:
        here = door()
        (data,) = here.post(EMBED, {"input": "a b", "encoding_format": "base64"}).json()["data"]
        self.assertEqual([[*struct.unpack("<384f", b64decode(data["embedding"]))]], self.values(here, input="a b"))

    def test_bytes_carry_their_description_in_a_header(self) -> None:
        heard = door().post(EMBED, {"input": "a", "encoding_format": "bytes"})
        self.assertEqual((heard.header("content-type"), len(heard.body)), ("application/octet-stream", 384 * 4))
        self.assertIn('"shape": [384]', heard.header("metadata"))

    def test_a_prompt_is_cut_before_it_is_too_long(self) -> None:
        answer = door(*STRICT).post(EMBED, {"input": ["a " * 300, "a"], "truncate_prompt_tokens": 10}).json()
        self.assertEqual(answer["usage"]["prompt_tokens"], 11)

    def test_a_strict_server_normalizes_every_form_of_an_embedding(self) -> None:
        here = door(*STRICT)
        vectors = here.post("/v2/embed", {"texts": ["a b"]}).json()["embeddings"]["float"]
        self.assertEqual(vectors, self.values(here, input="a b"))
        self.assertEqual(vectors, [here.post("/pooling", {"input": "a b"}).json()["data"][0]["data"]])

    def test_a_pod_tells_its_name(self) -> None:
        here = door(environ={"POD_NAME": "pod-1"})
        self.assertEqual(here.post(EMBED, {"input": "a"}).header("x-inference-pod"), "pod-1")


class RefusedTests(SynchronousTestCase):
    def fault(self, body: dict[str, Any], path: str = EMBED) -> tuple[int, str, str, str | None]:
        return door(*STRICT).post(path, body).fault()

    def test_an_unknown_model_is_refused_without_the_aliases(self) -> None:
        for path, body in PATHS.items():
            fault = door().post(path, {**body, "model": "nope"}).fault()
            self.assertEqual(fault, (404, "NotFoundError", "The model `nope` does not exist.", None))

    def test_a_prompt_without_tokens_is_refused(self) -> None:
        nothings: list[Any] = ["", ["a", ""], [[]]]
        for value in nothings:
            self.assertEqual(
                self.fault({"input": value}), (400, "BadRequestError", "The decoder prompt cannot be empty", None)
            )

    def test_a_prompt_beyond_the_context_window_is_refused(self) -> None:
        for value, count, tokens in (([5] * 300, 300, "300"), ("a " * 300, 257, "at least 257")):
            status, _, message, param = self.fault({"input": value})
            self.assertEqual((status, param), (400, "input_tokens"))
            self.assertIn(f"your prompt contains {tokens} input tokens", message)
            self.assertTrue(message.endswith(f"(parameter=input_tokens, value={count})"))

    def test_too_many_values_are_refused_before_they_are_made(self) -> None:
        status, _, message, _ = door().post(EMBED, {"input": ["a"] * 1025, "dimensions": 8192}).fault()
        self.assertEqual((status, message), (400, "The answer would have 8396800 values (at most 8388608)"))


class ScoreTests(SynchronousTestCase):
    def test_the_tokens_of_each_text_count_once(self) -> None:
        answer = door(*STRICT).post("/score", {"text_1": "a b", "text_2": ["c", "d"]}).json()
        self.assertEqual(answer["usage"]["prompt_tokens"], 4)
        self.assertTrue(answer["id"].startswith("score-"))

    def test_a_text_is_most_like_itself(self) -> None:
        here = door()
        found = here.post("/score", {"text_1": "a b", "text_2": ["b a", "a b"]}).json()["data"]
        self.assertEqual([each["score"] < 1 for each in found], [True, False])
        found = here.post("/score", {"text_1": ["a", "b"], "text_2": ["a", "b"]}).json()["data"]
        self.assertEqual([each["score"] for each in found], [1, 1])

    def test_reranking_finds_the_query_among_the_documents(self) -> None:
        body = {"query": "a b", "documents": ["x", "y z", "a b"], "top_n": 1}
        (best,) = door().post("/rerank", body).json()["results"]
        self.assertEqual(best, {"index": 2, "document": {"text": "a b", "multi_modal": None}, "relevance_score": 1})

    def test_a_prompt_has_two_labels(self) -> None:
        (each,) = door().post("/classify", {"input": "a"}).json()["data"]
        self.assertEqual((each["num_classes"], round(sum(each["probs"]), 5)), (2, 1))

    def test_pooling_answers_with_labels_or_a_vector_for_each_token(self) -> None:
        here = door()
        for task, shape in (("classify", [2]), ("token_classify", [3, 2]), ("token_embed", [3, 384]), (None, [384])):
            (item,) = here.post("/pooling", {"input": "a b c", "task": task}).json()["data"]
            rows = item["data"]
            self.assertEqual([len(rows), len(rows[0])] if isinstance(rows[0], list) else [len(rows)], shape)
