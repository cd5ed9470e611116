"""
The routes of the Responses API: create, in the foreground or the background, get, stream again, cancel.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.web.iweb import IRequest

from llmdsim.api import scalars
from llmdsim.api.dialect import Writer
from llmdsim.api.invalid import Error, invalid
from llmdsim.api.parts import dumps
from llmdsim.api.pooled import is_pooling
from llmdsim.api.response_events import ResponseWriter
from llmdsim.api.response_object import Ask
from llmdsim.api.responses import Responses
from llmdsim.api.sampling import given
from llmdsim.api.schema import read_json
from llmdsim.faults import INTERNAL, Fault
from llmdsim.sim.plan import Plan
from llmdsim.sim.rank import Rank
from llmdsim.sim.request import Request
from llmdsim.web.answer import Answer
from llmdsim.web.app import App
from llmdsim.web.controls import fail_on_demand
from llmdsim.web.generation import Generation
from llmdsim.web.response_store import Background, Kept, Store
from llmdsim.web.sinks import Ear, EventStream
from llmdsim.web.wire import header

log = Logger()


def routes(app: App, rank: Rank) -> None:
    """Declare the routes; a strict server of a pooling model has none."""
    if rank.config.strict and is_pooling(rank.config):
        return
    door = ResponsesDoor(rank)

    @app.route("/v1/responses", methods=["POST"], hot=True)
    def create(http: IRequest) -> Coroutine[Any, Any, Answer | None]:
        return door.create(http)

    @app.route("/v1/responses/<response_id>")
    def get(http: IRequest, response_id: str) -> Coroutine[Any, Any, Answer | None]:
        return door.get(http, response_id)

    @app.route("/v1/responses/<response_id>/cancel", methods=["POST"])
    def cancel(http: IRequest, response_id: str) -> Answer:
        return Answer(dumps(door.store.cancel(response_id)))


class ResponseStream(EventStream):
    """Events of a response: the first are sent as soon as it has a seat; one that fails has no end."""

    def begin(self, plan: Plan) -> None:
        """Send the head and the opening."""
        super().begin(plan)
        self._spoken = True
        self._tail += self._writer.opening(plan)
        self._flush()

    def fail(self, fault: Fault) -> None:
        """Send what was held; the App breaks the connection of an answer that fails after its head."""
        self._flush()
        raise fault


class Resumed:
    """A writer whose events up to number ``last`` the client has already."""

    def __init__(self, writer: ResponseWriter, last: int) -> None:
        self._writer = writer
        self._known = last + 1

    def opening(self, plan: Plan) -> bytes:
        """What is new of the opening."""
        return self._new(self._writer.opening(plan))

    def chunks(self, plan: Plan, start: int, stop: int) -> bytes:
        """What is new of some tokens."""
        return self._new(self._writer.chunks(plan, start, stop))

    def closing(self, plans: Sequence[Plan]) -> bytes:
        """What is new of the end."""
        return self._new(self._writer.closing(plans))

    def whole(self, plans: Sequence[Plan]) -> bytes:
        """The object."""
        return self._writer.whole(plans)

    def fault(self, fault: Fault) -> bytes:
        """Nothing."""
        return b""

    def _new(self, data: bytes) -> bytes:
        if self._known <= 0:
            return data
        frames = data.split(b"\n\n")[:-1]  # JSON has no line ends
        new = frames[self._known :]
        self._known -= len(frames)
        return b"".join([frame + b"\n\n" for frame in new])


class ResponsesDoor(Generation):
    """What the routes of the Responses API do."""

    def __init__(self, rank: Rank) -> None:
        super().__init__(rank)
        self.store = Store()
        self._dialect = Responses(rank.config)

    async def create(self, http: IRequest) -> Answer | None:
        """Answer a request; None: it was streamed."""
        dialect, rank = self._dialect, self._rank
        raw = http.content.read()
        asked = read_json(raw, header(http, b"content-type"))
        fail_on_demand(http)
        body = dialect.check(asked)
        self._check_rank(http)
        model = rank.adapters.find(body.get("model"))
        dialect.check_history(body)
        earlier = body.get("previous_response_id")
        history = () if earlier is None else self.store.conversation(earlier)
        ask = dialect.parse(body, self._id(http, body), model, history)
        writer = dialect.writer(ask, int(rank.wall()))
        if body.get("background"):
            return await self._in_background(http, ask, writer, len(raw))
        return await self._in_foreground(http, ask, writer, len(raw))

    async def get(self, http: IRequest, id: str) -> Answer | None:
        """A stored response, or its events once more."""
        stream, last = _query(http)
        if not stream:
            return Answer(dumps(self.store.get(id).response))
        background = self.store.followed(id)
        writer = background.writer.fresh()
        await self._follow(http, background, writer if last is None else Resumed(writer, last))
        return None

    async def _in_foreground(self, http: IRequest, ask: Ask, writer: ResponseWriter, size: int) -> Answer | None:
        answer = await self.speak(http, ask, self.ear(http, ask, writer))
        if self._dialect.stores and given(ask.body, "store", True) and writer.told is not None:
            self.store.put(ask.id, Kept(ask.messages, size, writer.told))
        return answer

    def ear(self, http: IRequest, request: Request, writer: Writer) -> Ear:
        """The sink for one request."""
        if request.stream:
            return ResponseStream(http, writer, self._headers, 1)
        return super().ear(http, request, writer)

    async def _in_background(self, http: IRequest, ask: Ask, writer: ResponseWriter, size: int) -> Answer | None:
        prompt = await self._rank.planner.read(ask.prompts[0])
        background = Background(writer, len(prompt.ids))
        queued = dumps(background.response)
        background.task = Deferred.fromCoroutine(self._make(ask, background))
        if background.fault is not None:
            raise background.fault
        self.store.put(ask.id, Kept(ask.messages, size, background=background))
        if ask.stream:
            await self._follow(http, background, writer.fresh())
            return None
        return Answer(queued, headers=self._headers)

    async def _make(self, ask: Ask, background: Background) -> None:
        """Make a response that nobody need listen to."""
        try:
            await self._rank.serve(ask, background)
        except CancelledError:
            log.debug("response {id} was cancelled", id=ask.id)
        except Fault as fault:
            background.fail(fault)
        except Exception:
            log.failure("request {id} failed", id=ask.id)
            background.fail(Fault(INTERNAL, "Internal server error"))

    async def _follow(self, http: IRequest, background: Background, writer: ResponseWriter | Resumed) -> None:
        ear = ResponseStream(http, writer, self._headers, 1)
        await background.follow(ear)
        ear.answer()


def _query(http: IRequest) -> tuple[bool, int | None]:
    """``stream`` and ``starting_after`` of a URL. Raises Fault for what is no boolean, or no number."""
    errors: list[Error] = []
    last = _argument(http, "starting_after", scalars.integer, errors)
    stream = _argument(http, "stream", scalars.boolean, errors)
    if errors:
        raise invalid(errors)
    return bool(stream), last


def _argument(http: Any, name: str, check: Callable[..., Any], errors: list[Error]) -> Any:
    values = http.args.get(name.encode())
    return check(values[-1].decode("utf-8", "replace"), ("query", name), errors) if values else None
