# Most of twisted.web has no annotations yet.
# mypy: disable-error-code="no-untyped-call"
"""
The Klein app of one rank: which function answers a URL, and what an error looks like.

Each function is known to Klein and, where it is hot, to a table that is asked before Klein; both run it the same way.
Bytes on the connection are the wire's.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from contextvars import copy_context
from inspect import iscoroutine
from types import coroutine
from typing import Any

from klein import Klein
from klein.resource import KleinResource
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.iweb import IRequest
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET
from werkzeug.exceptions import HTTPException, NotFound
from werkzeug.routing import Map, MapAdapter

from llmdsim.faults import INTERNAL, Fault
from llmdsim.web.answer import Answer, fault_answer
from llmdsim.web.guards import Refused
from llmdsim.web.lost import lost
from llmdsim.web.wire import gone, hang_up, reply

log = Logger()

Handler = Callable[..., "Answer | Coroutine[Any, Any, Answer | None] | None"]
Serve = Callable[..., "Deferred[None] | None"]
Served = Callable[[str, str, int, float, int, int], None]

NO_ROUTE = "none"


def uncounted(url: str, method: str, status: int, duration: float, received: int, sent: int) -> None:
    """A ``served`` for whoever does not count."""


class App(Klein):
    """
    One flat app: Klein's, with one way to answer and to fail.

    ``served(url, method, status, seconds, request bytes, response bytes)`` hears of every answered request; ``url`` is
    the route's, or ``none`` where there was no route, and a stream counts no response bytes.
    ``before`` are guards that see each request first and may raise Fault or Refused.
    ``handlers`` has every declared function by method and URL.
    ``table`` has the hot routes by method and path.
    """

    def __init__(self, *, seconds: Callable[[], float], served: Served = uncounted) -> None:
        super().__init__()
        # Klein's own Map, before anything is in it. Starlette does not redirect "//path".
        self._url_map = AnyHost(merge_slashes=False)
        self.before: list[Callable[[IRequest], None]] = []
        self.handlers: dict[tuple[str, str], Handler] = {}
        self.table: dict[tuple[bytes, bytes], Serve] = {}
        self._seconds = seconds
        self._served = served
        self._declared: set[tuple[str, str]] = set()
        astray: Any = self._astray
        self.handle_errors(Exception)(astray)

    def route(  # type: ignore[override]
        self, url: str, methods: Sequence[str] = ("GET",), hot: bool = False
    ) -> Callable[[Handler], Handler]:
        """
        Declare the function that answers ``url``; a hot one, of a fixed path, is found without Klein.

        The function gets the request, and the parts of the URL by name. It returns when it has said all: an Answer, or
        None after a stream of its own. ValueError if another function has the URL already.
        """

        def declare(handler: Handler) -> Handler:
            def serve(http: IRequest, **parts: Any) -> Deferred[None] | None:
                return self._serve(http, url, handler, parts)

            self._claim(url, methods)
            self._register(url, methods, serve)
            self.handlers.update({(method, url): handler for method in methods})
            if hot:
                self.table.update({(method.encode(), url.encode()): serve for method in methods})
            return handler

        if hot and "<" in url:
            raise ValueError(f"{url} has parts: only a fixed path can be hot")
        return declare

    def paths(self) -> list[str]:
        """The declared URLs as OpenAPI writes them: parts in braces."""
        return sorted({url.replace("<", "{").replace(">", "}") for _, url in self._declared})

    def resource(self) -> Root:
        """The app as a resource, for any Site."""
        return Root(self)

    def refuse(self, http: IRequest, fault: Fault, size: int) -> Answer:
        """The answer to a request that is refused before it is complete; it is counted here."""
        answer = fault_answer(fault)
        self._served(NO_ROUTE, str(http.method, "ascii"), answer.status, 0.0, size, len(answer.body))
        return answer

    def fail(self, http: IRequest, error: BaseException) -> None:
        """Answer a request that no route took."""
        self._failed(error, http, NO_ROUTE, self._seconds(), _size(http))

    def _claim(self, url: str, methods: Sequence[str]) -> None:
        claims = {(method, url) for method in methods}
        if claims & self._declared:
            raise ValueError(f"{','.join(methods)} {url} is declared twice")
        self._declared |= claims

    def _register(self, url: str, methods: Sequence[str], serve: Serve) -> None:
        # Klein names an endpoint after its function and gives a URL to the last function of that name.
        endpoint = f"{','.join(methods)} {url}"
        Klein.route(self, url, methods=list(methods), endpoint=endpoint)(serve)
        for rule in self.url_map.iter_rules(endpoint):
            # werkzeug lets HEAD in wherever GET is; vLLM's server does not.
            rule.methods = set(methods)

    def _serve(self, http: IRequest, url: str, handler: Handler, parts: dict[str, Any]) -> Any:
        """Run a handler and answer for it; the Deferred of one that waits fires with None, whatever happens."""
        visit = (http, url, self._seconds(), _size(http))
        try:
            for guard in self.before:
                guard(http)
            result: Any = handler(http, **parts)
            if iscoroutine(result):
                result = start(result)
            if isinstance(result, Deferred):
                return result.addCallback(self._answered, *visit).addErrback(self._failed_later, *visit)
            self._answered(result, *visit)
        except Exception as error:
            self._failed(error, *visit)
        return None

    def _answered(self, answer: Answer | None, http: Any, url: str, began: float, size: int) -> None:
        if gone(http):
            return
        if answer is not None:
            reply(http, answer)
        elif not http.finished:
            http.finish()
        self._count(http, url, began, size, len(answer.body) if answer else 0)

    def _failed(self, error: BaseException, http: IRequest, url: str, began: float, size: int) -> None:
        if gone(http):
            if not isinstance(error, (CancelledError, Fault, Refused)):
                log.failure("{url} failed after its client had left", Failure(error), url=url)
        elif http.startedWriting:
            if not isinstance(error, Fault):  # one that is told by breaking off
                log.failure("{url} failed in the middle of its answer", Failure(error), url=url)
            if not http.finished:
                hang_up(http)
                self._count(http, url, began, size, 0)
        else:
            answer = self._excuse(http, error, url)
            reply(http, answer)
            self._count(http, url, began, size, len(answer.body))

    def _failed_later(self, failure: Failure, http: IRequest, url: str, began: float, size: int) -> None:
        error: Any = failure.value
        self._failed(error, http, url, began, size)

    def _count(self, http: IRequest, url: str, began: float, size: int, sent: int) -> None:
        self._served(url, str(http.method, "ascii"), int(http.code), self._seconds() - began, size, sent)

    def _excuse(self, http: IRequest, error: BaseException, url: str) -> Answer:
        if isinstance(error, Fault):
            return fault_answer(error)
        if isinstance(error, Refused):
            return error.answer
        if isinstance(error, HTTPException):
            return lost(http, error)
        log.failure("{url} failed", Failure(error), url=url)
        return fault_answer(Fault(INTERNAL, "Internal server error"))

    def _astray(self, http: IRequest, failure: Failure) -> Excuse:
        """Klein found no route: the guards have not seen this request yet."""
        error: Any = failure.value
        try:
            for guard in self.before:
                guard(http)
        except Exception as raised:
            error = raised
        return Excuse(self, error)


class Excuse(Resource):
    """A resource that says what went wrong: Klein ends a request itself unless an error becomes a resource."""

    isLeaf = True

    def __init__(self, app: App, error: BaseException) -> None:
        super().__init__()
        self._app = app
        self._error = error

    def render(self, http: IRequest) -> int:
        """Answer for the error, to any method."""
        self._app.fail(http, self._error)
        return NOT_DONE_YET


class Root(KleinResource):
    """Klein's resource, without what Klein would log as an error before it looks for a route."""

    def __init__(self, app: App) -> None:
        super().__init__(app)
        self._nowhere = Excuse(app, NotFound())

    def render(self, http: IRequest) -> Any:
        """Find the route and run it."""
        host = http.getHeader(b"host")
        if host is not None and not host.isascii():
            host = http.requestHeaders.removeHeader(b"host")
        if host is None and not hasattr(http.getHost(), "host"):
            # Over a Unix socket there is no other name, and routing wants one.
            http.requestHeaders.setRawHeaders(b"host", [b"localhost"])
        try:
            b"/".join(http.postpath).decode()
        except UnicodeDecodeError:
            return self._nowhere.render(http)
        return super().render(http)


class AnyHost(Map):
    """Routes that hold whatever the client calls this server: werkzeug would refuse a Host header that is no name."""

    def bind(self, server_name: str, *args: Any, **options: Any) -> MapAdapter:
        """The routes as seen from one request."""
        return super().bind("localhost", *args, **options)


def start(handler: Coroutine[Any, Any, Answer | None]) -> Answer | Deferred[Answer | None] | None:
    """Run a coroutine up to its end, or to where it first waits; one that never waits costs no Deferred."""
    # A context of its own, as Deferred.fromCoroutine gives: what a handler sets must not reach the next request.
    context = copy_context()
    try:
        waiting = context.run(handler.send, None)
    except StopIteration as stop:
        answer: Answer | None = stop.value
        return answer
    return context.run(Deferred.fromCoroutine, _rest(handler, waiting))


@coroutine
def _rest(handler: Coroutine[Any, Any, Answer | None], waiting: Any) -> Any:
    """Go on with a coroutine that has waited already: pass its Deferreds out, and their results in."""
    try:
        while True:
            try:
                result = yield waiting
            except GeneratorExit:
                handler.close()
                raise
            except BaseException as raised:
                waiting = handler.throw(raised)
            else:
                waiting = handler.send(result)
    except StopIteration as stop:
        return stop.value


def _size(http: Any) -> int:
    size: int = http.content.seek(0, 2)
    http.content.seek(0)
    return size
