"""
The pooling routes: embeddings, pooling, scores, labels. They are answered at once, without a seat.

A strict server has them only for a pooling model, as vLLM; any other has them beside the generating routes.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Sequence
from functools import partial
from itertools import cycle
from typing import Any

from twisted.web.iweb import IRequest

from llmdsim.api import cohere, embeddings, pooled, scores
from llmdsim.api.embeddings import Kind
from llmdsim.api.pooled import Head, Reading
from llmdsim.api.sampling import given
from llmdsim.api.schema import check, read_json
from llmdsim.faults import NOT_FOUND, Fault
from llmdsim.sim.rank import Rank
from llmdsim.sim.request import Prompt
from llmdsim.sim.vectors import cosine, embedding, pooler
from llmdsim.web.answer import Answer
from llmdsim.web.generation import pod_headers
from llmdsim.web.site import App
from llmdsim.web.wire import header

Ids = Sequence[int]
Endpoint = Callable[[IRequest], Coroutine[Any, Any, Answer]]


def routes(app: App, rank: Rank) -> None:
    """Declare the pooling routes that this server has."""
    config, pooling = rank.config, Pooling(rank)
    if config.mm_encoder_only or (config.strict and not pooled.is_pooling(config)):
        return
    _declare(app, pooling.embeddings, "/v1/embeddings")
    _declare(app, pooling.pooling, "/pooling")
    _declare(app, pooling.embed, "/v2/embed")
    _declare(app, pooling.score, "/score", "/v1/score")
    _declare(app, pooling.rerank, "/rerank", "/v1/rerank", "/v2/rerank")
    if not config.strict:  # an embedding model has no labels
        _declare(app, pooling.classify, "/classify")


def _declare(app: App, endpoint: Endpoint, *urls: str) -> None:
    for url in urls:
        app.route(url, methods=["POST"], hot=True)(endpoint)


class Pooling:
    """What the pooling routes of one rank do."""

    def __init__(self, rank: Rank) -> None:
        self._rank = rank
        self._config = rank.config
        self._headers = pod_headers(rank)

    async def embeddings(self, http: IRequest) -> Answer:
        """``/v1/embeddings``."""
        body, head = self._open(http, "EmbeddingRequest", "embd-")
        return await self._vectors(embeddings.EMBEDDING, "embed", body, head)

    async def pooling(self, http: IRequest) -> Answer:
        """``/pooling``."""
        body, head = self._open(http, "PoolingRequest", "pooling-")
        task = embeddings.pooling_task(body, self._config)
        return await self._vectors(embeddings.POOLING, task, body, head)

    async def embed(self, http: IRequest) -> Answer:
        """``/v2/embed``."""
        body, head = self._open(http, cohere.REQUEST, "embd-")
        prompts = cohere.prompts(body, self._config, head.model)
        length = embeddings.dimensions(body.get("output_dimension"), self._config, head.model)
        sequences = await self._read_all(prompts, cohere.reading(body, self._config))
        embeddings.check_size(len(sequences), length)
        pool = self._pooler("embed", body, length)
        return self._answer(cohere.embedded(head, [pool(ids) for ids in sequences], _total(sequences), body))

    async def score(self, http: IRequest) -> Answer:
        """``/score``: how alike the texts of each pair are."""
        body, head = self._open(http, "ScoreRequest", "score-")
        likenesses, tokens = await self._compare(body, *scores.sides(body))
        return self._answer(scores.scored(head, likenesses, tokens))

    async def rerank(self, http: IRequest) -> Answer:
        """``/rerank``: documents by their likeness to a query."""
        body, head = self._open(http, "RerankRequest", "score-")
        query, found = scores.documents(body)
        likenesses, tokens = await self._compare(body, query, found)
        return self._answer(scores.reranked(head, found, likenesses, tokens, given(body, "top_n", 0)))

    async def classify(self, http: IRequest) -> Answer:
        """``/classify``."""
        body, head = self._open(http, "ClassificationRequest", "classify-")
        pool = self._pooler("classify", body, self._config.default_embedding_dimensions)
        sequences = await self._read_all(pooled.prompts(body, self._config), pooled.reading(body, self._config))
        return self._answer(scores.classified(head, [pool(ids) for ids in sequences], _total(sequences)))

    def _open(self, http: IRequest, component: str, prefix: str) -> tuple[dict[str, Any], Head]:
        """The checked body of a request, and what its answer begins with."""
        rank = self._rank
        body = check(component, read_json(http.content.read(), header(http, b"content-type")))
        model = self._model(body.get("model"))
        id = header(http, b"x-request-id") or body.get("request_id") or rank.new_id()
        return body, Head(prefix + id, int(rank.wall()), model)

    def _model(self, name: str | None) -> str:
        try:
            return self._rank.adapters.find(name).name
        except Fault:
            # Other than the generating routes, these do not tell the aliases.
            raise Fault(NOT_FOUND, f"The model `{name}` does not exist.") from None

    async def _vectors(self, kind: Kind, task: str, body: dict[str, Any], head: Head) -> Answer:
        length = embeddings.dimensions(body.get("dimensions"), self._config, head.model)
        pool = self._pooler(task, body, length)
        sequences = await self._read_all(pooled.prompts(body, self._config), pooled.reading(body, self._config))
        sizes = [*map(len, sequences)]
        embeddings.check_size(sum(sizes) if task.startswith("token_") else len(sizes), length)
        packed = embeddings.packed(kind, head, [pool(ids) for ids in sequences], sizes, body)
        metadata = () if packed.metadata is None else ((b"metadata", packed.metadata),)
        return Answer(packed.body, content_type=packed.content_type, headers=(*metadata, *self._headers))

    def _pooler(self, task: str, body: dict[str, Any], length: int) -> Callable[[Ids], Any]:
        return pooler(task, length, embeddings.activated(body, self._config, task))

    async def _compare(self, body: dict[str, Any], one: list[Any], two: list[Any]) -> tuple[list[float], int]:
        """The likeness of each pair, and the tokens of both sides; a single text on the left goes with each right."""
        readings = scores.readings(body, self._config)
        left = await self._read_all(map(scores.text, one), readings[0])
        right = await self._read_all(map(scores.text, two), readings[1])
        measure = partial(embedding, length=self._config.default_embedding_dimensions)
        pairs = zip(cycle(map(measure, left)), map(measure, right), strict=False)
        return [cosine(*pair) for pair in pairs], _total(left) + _total(right)

    async def _read_all(self, prompts: Iterable[Prompt], reading: Reading) -> list[Ids]:
        return [await self._read(prompt, reading) for prompt in prompts]

    async def _read(self, prompt: Prompt, reading: Reading) -> Ids:
        """The tokens of one prompt. Raises Fault where there are none, or too many."""
        planner = self._rank.planner
        if reading.special is not None or reading.keep is not None:
            prompt = reading.cut(await self._all(prompt, reading))
        ids = (await planner.read(prompt)).ids
        if not ids:
            raise pooled.empty()
        return ids

    async def _all(self, prompt: Prompt, reading: Reading) -> Ids:
        if isinstance(prompt, tuple):
            return prompt
        planner = self._rank.planner
        special = isinstance(prompt, str) if reading.special is None else reading.special
        return (await planner.tokenize(planner.text(prompt), special)).ids

    def _answer(self, body: bytes) -> Answer:
        return Answer(body, headers=self._headers)


def _total(sequences: Sequence[Ids]) -> int:
    return sum(map(len, sequences))
