"""
The generating routes: a body in, a stream of events or one answer out.

A dialect knows the shapes and the rank knows the times; here are only the sinks between them.
"""

from __future__ import annotations

import re
from collections.abc import Coroutine
from typing import Any, Protocol
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
from llmdsim.sim.plan import Plan
from llmdsim.sim.rank import Rank
from llmdsim.sim.request import Request
from llmdsim.sim.state import Paused
from llmdsim.web.answer import Answer, fault_answer
from llmdsim.web.app import App
from llmdsim.web.orca import load_metrics
from llmdsim.web.wire import Outlet, header, open_stream

log = Logger()

_NUMBER = re.compile(r"\s*[+-]?\d{1,9}\s*", re.ASCII)

Headers = tuple[tuple[bytes, bytes], ...]


class _Ear(Protocol):
    """A sink with the door's half: what it does when the rank has finished or failed."""

    def begin(self, plan: Plan) -> None: ...
    def tokens(self, plan: Plan, start: int, stop: int) -> None: ...
    def end(self, plan: Plan) -> None: ...
    def answer(self) -> Answer | None: ...
    def fail(self, fault: Fault) -> None: ...


class EventStream:
    """Server-sent events. While the client reads too slowly, tokens are only counted; the next write carries them."""

    def __init__(self, http: IRequest, writer: Writer, headers: Headers, sequences: int) -> None:
        self._http, self._writer, self._headers, self._left = http, writer, headers, sequences
        self._outlet: Outlet | None = None
        self._spoken = False
        self._paused = False
        self._held: dict[int, tuple[Plan, int, int]] = {}  # while paused: choice -> plan, first and last unsent token
        self._tail = b""  # a sequence's last tokens wait for what follows them in the same turn
        self._ended: list[Plan] = []

    def begin(self, plan: Plan) -> None:
        """Send the head, once."""
        if self._outlet is None:
            self._outlet = open_stream(self._http, self._headers)
            self._outlet.listen(self)

    def tokens(self, plan: Plan, start: int, stop: int) -> None:
        """Send a slice of a plan, or note it while the client is slow."""
        if self._paused:
            held = self._held.get(plan.index)
            self._held[plan.index] = (plan, held[1] if held else start, stop)
            return
        data = self._writer.chunks(plan, start, stop)
        if not self._spoken:
            self._spoken = True
            data = self._writer.opening(plan) + data
        self._tail += data
        if stop < len(plan.texts):
            self._flush()

    def end(self, plan: Plan) -> None:
        """Note a sequence's end; the last one's tail leaves together with the closing."""
        self._ended.append(plan)
        self._left -= 1
        if self._left and self._tail:
            self._flush()

    def answer(self) -> None:
        """Close the stream."""
        self._release()
        self._finish(self._writer.closing(in_order(self._ended)))

    def fail(self, fault: Fault) -> None:
        """End with an error event; before the head, the fault has a status of its own and is raised again."""
        if isinstance(fault, Paused):
            self._outlet = open_stream(self._http, self._headers)
            fault = Fault(Paused.streamed, fault.message)
        if self._outlet is None:
            raise fault
        self._finish(self._writer.fault(fault))

    def pauseProducing(self) -> None:
        """The client reads too slowly."""
        self._paused = True

    def resumeProducing(self) -> None:
        """The client has caught up: send what was held."""
        self._release()
        self._flush()

    def stopProducing(self) -> None:
        """The client is gone; the handler is cancelled besides."""
        self._paused = True

    def _release(self) -> None:
        self._paused = False
        held, self._held = self._held, {}
        for plan, start, stop in held.values():
            self.tokens(plan, start, stop)

    def _flush(self) -> None:
        tail, self._tail = self._tail, b""
        if tail and self._outlet is not None:
            self._outlet.send(tail)

    def _finish(self, data: bytes) -> None:
        tail, self._tail = self._tail, b""
        if self._outlet is not None:
            self._outlet.finish(tail + data)


class Whole:
    """One JSON answer when every sequence has ended."""

    def __init__(self, writer: Writer, headers: Headers) -> None:
        self._writer, self._headers = writer, headers
        self._ended: list[Plan] = []

    def begin(self, plan: Plan) -> None:
        """Nothing is sent before the end."""

    def tokens(self, plan: Plan, start: int, stop: int) -> None:
        """The plan holds the tokens."""

    def end(self, plan: Plan) -> None:
        """Note a sequence's end."""
        self._ended.append(plan)

    def answer(self) -> Answer:
        """The whole answer."""
        return Answer(self._writer.whole(in_order(self._ended)), headers=self._headers)

    def fail(self, fault: Fault) -> None:
        """Nothing was sent, so the fault has its own status."""
        raise fault


def in_order(plans: list[Plan]) -> list[Plan]:
    """Plans by choice index."""
    return sorted(plans, key=lambda plan: plan.index)


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
        body = dialect.check(read_json(http.content.read(), header(http, b"content-type")))
        self._check_rank(http)
        model = rank.adapters.find(body.get("model"))
        request = dialect.parse(body, self._id(http, body), model)
        writer = dialect.writer(request, int(rank.wall()))
        ear = self._ear(http, request, writer)
        try:
            await rank.serve(request, ear)
            answer = ear.answer()
            report = load_metrics(http, rank.load)
            return attrs.evolve(answer, headers=answer.headers + report) if answer and report else answer
        except CancelledError:
            raise
        except Fault as fault:
            ear.fail(fault)
        except Exception:
            log.failure("request {id} failed", id=request.id)
            ear.fail(Fault(INTERNAL, "Internal server error"))
        return None

    def _ear(self, http: IRequest, request: Request, writer: Writer) -> _Ear:
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
