"""
The generating routes: a body in, a stream of events or one answer out.

A dialect knows the shapes, the rank knows the times, and the sinks are beside this room.
"""

from __future__ import annotations

import re
from collections.abc import Coroutine
from typing import Any
from uuid import uuid4

import attrs
from twisted.internet.defer import CancelledError
from twisted.logger import Logger
from twisted.web.iweb import IRequest

from llmdsim.api.chat import Chat, ChatBatch
from llmdsim.api.completions import Completions
from llmdsim.api.dialect import Dialect, Writer
from llmdsim.api.messages import Messages
from llmdsim.api.pooled import is_pooling
from llmdsim.api.sampling import refuse
from llmdsim.api.schema import read_json
from llmdsim.faults import INTERNAL, Fault
from llmdsim.sim.rank import Rank
from llmdsim.sim.request import Request
from llmdsim.web.answer import Answer, fault_answer
from llmdsim.web.app import App
from llmdsim.web.controls import fail_on_demand
from llmdsim.web.orca import load_metrics
from llmdsim.web.sinks import Ear, EventStream, Headers, Whole
from llmdsim.web.wire import header

log = Logger()

_NUMBER = re.compile(r"\s*[+-]?\d{1,9}\s*", re.ASCII)


class Generation:
    """What every generating route does, whatever its dialect."""

    def __init__(self, rank: Rank) -> None:
        self._rank = rank
        self._headers = pod_headers(rank)

    async def answer(self, http: IRequest, dialect: Dialect) -> Answer | None:
        """Serve one request; None: it was streamed."""
        try:
            return await self._answer(http, dialect)
        except Fault as fault:
            return fault_answer(fault, dialect.refusal)

    async def _answer(self, http: IRequest, dialect: Dialect) -> Answer | None:
        rank = self._rank
        asked = read_json(http.content.read(), header(http, b"content-type"))
        fail_on_demand(http)
        body = dialect.check(asked)
        self._check_rank(http)
        model = rank.adapters.find(body.get("model"))
        request = dialect.parse(body, self._id(http, body), model)
        writer = dialect.writer(request, int(rank.wall()))
        return await self.speak(http, request, self.ear(http, request, writer))

    async def speak(self, http: IRequest, request: Request, ear: Ear) -> Answer | None:
        """Let the rank serve a request into an ear, and hear how it ends; None: it was streamed."""
        try:
            await self._rank.serve(request, ear)
            answer = ear.answer()
            report = load_metrics(http, self._rank.load)
            return attrs.evolve(answer, headers=answer.headers + report) if answer and report else answer
        except CancelledError:
            raise
        except Fault as fault:
            ear.fail(fault)
        except Exception:
            log.failure("request {id} failed", id=request.id)
            ear.fail(Fault(INTERNAL, "Internal server error"))
        return None

    def ear(self, http: IRequest, request: Request, writer: Writer) -> Ear:
        """The sink for one request."""
        if request.stream:
            return EventStream(http, writer, self._headers, request.n * len(request.prompts))
        return Whole(writer, self._headers)

    def _id(self, http: IRequest, body: dict[str, Any]) -> str:
        return header(http, b"x-request-id") or body.get("request_id") or self._rank.new_id()

    def _check_rank(self, http: IRequest) -> None:
        asked = header(http, b"x-data-parallel-rank")
        size = self._rank.config.data_parallel_size
        if asked is None or not _NUMBER.fullmatch(asked):
            return  # vLLM ignores what is no number
        if not 0 <= int(asked) < size:
            raise refuse(f"data_parallel_rank {int(asked)} is out of range [0, {size}).")


def pod_headers(rank: Rank) -> Headers:
    """The headers that tell which pod answered, from its environment."""
    config = rank.config
    headers: list[tuple[bytes, bytes]] = []
    if config.pod_name:
        headers += [(b"x-inference-pod", config.pod_name.encode()), (b"x-inference-port", b"%d" % config.port)]
    if config.pod_namespace:
        headers.append((b"x-inference-namespace", config.pod_namespace.encode()))
    return tuple(headers)


def show_request_id(http: IRequest) -> None:
    """``--enable-request-id-headers``: every answer carries the request's id, or a random one."""
    http.setHeader(b"X-Request-Id", http.getHeader(b"x-request-id") or uuid4().hex.encode())


def routes(app: App, rank: Rank) -> None:
    """Declare the generating routes; a strict server of a pooling model has none."""
    generation = Generation(rank)
    if rank.config.enable_request_id_headers:
        app.before.append(show_request_id)
    if rank.config.strict and is_pooling(rank.config):
        return
    _declare(app, generation, "/v1/chat/completions", Chat(rank.config))
    _declare(app, generation, "/v1/chat/completions/batch", ChatBatch(rank.config))
    _declare(app, generation, "/v1/completions", Completions(rank.config))
    _declare(app, generation, "/v1/messages", Messages(rank.config))


def _declare(app: App, generation: Generation, url: str, dialect: Dialect) -> None:
    @app.route(url, methods=["POST"], hot=True)
    def generate(http: IRequest) -> Coroutine[Any, Any, Answer | None]:
        return generation.answer(http, dialect)
