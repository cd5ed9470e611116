"""
Who may ask: API keys and CORS, said before any route as vLLM's server (Starlette) says it.

A guard raises Refused with an Answer of its own, since these refusals are not in the envelope of faults.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from hashlib import sha256
from secrets import compare_digest
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes

from llmdsim.sim.rank import Rank
from llmdsim.web.answer import Answer

if TYPE_CHECKING:
    from llmdsim.web.app import App

Headers = tuple[tuple[bytes, bytes], ...]

GUARDED = (b"/v1", b"/v2", b"/inference", b"/cohere")
UNAUTHORIZED = Answer(b'{"error":"Unauthorized"}', 401)

METHODS = ("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY")
SAFE_HEADERS = ("Accept", "Accept-Language", "Content-Language", "Content-Type")
# Every answer has "vary: Origin" besides.
VARY = b"Access-Control-Request-Method, Access-Control-Request-Headers, Access-Control-Request-Private-Network"


class Refused(Exception):
    """A guard's refusal, with the answer that is to be given."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.status)
        self.answer = answer


def routes(app: App, rank: Rank) -> None:
    """Set the guards, keys before CORS: a request without a key hears nothing of allowed origins."""
    config = rank.config
    if config.api_key:
        app.before.append(keys(config.api_key))
    app.before.append(
        Cors(
            config.allowed_origins,
            config.allowed_methods,
            config.allowed_headers,
            config.allow_credentials,
        ).check
    )


def keys(accepted: Iterable[str]) -> Callable[[Any], None]:
    """The guard that wants one of these as a bearer token, on guarded paths; it compares in constant time."""
    digests = [sha256(key.encode()).digest() for key in accepted]

    def guard(http: Any) -> None:
        if http.method == b"OPTIONS" or not unquote_to_bytes(http.path).startswith(GUARDED):
            return
        scheme, _, token = (http.getHeader(b"authorization") or b"").partition(b" ")
        offered = sha256(token).digest()
        known = [compare_digest(offered, digest) for digest in digests]  # all of them, whichever fits
        if scheme.lower() != b"bearer" or not any(known):
            raise Refused(UNAUTHORIZED)

    return guard


class Cors:
    """Starlette's CORSMiddleware; ``*`` in a list stands for all."""

    def __init__(
        self, origins: tuple[str, ...], methods: tuple[str, ...], headers: tuple[str, ...], credentials: bool
    ) -> None:
        self._origins = frozenset(origin.encode() for origin in origins)
        self._methods = METHODS if "*" in methods else methods
        self._headers = sorted({*SAFE_HEADERS, *headers})
        self._any_header = "*" in headers
        self._any_origin = "*" in origins
        self._credentials = credentials

    def check(self, http: Any) -> None:
        """The guard: answers a preflight, and adds what else a browser wants to read."""
        origin = http.getHeader(b"origin")
        if origin is None:
            return
        asked = http.getHeader(b"access-control-request-method")
        if http.method == b"OPTIONS" and asked is not None:
            raise Refused(self._preflight(http, origin, asked))
        if self._any_origin:
            http.setHeader(b"access-control-allow-origin", origin if self._credentials else b"*")
        elif origin in self._origins:
            http.setHeader(b"access-control-allow-origin", origin)
        if self._credentials:
            http.setHeader(b"access-control-allow-credentials", b"true")

    def _preflight(self, http: Any, origin: bytes, method: bytes) -> Answer:
        wanted = http.getHeader(b"access-control-request-headers")
        checks = {
            b"origin": self._any_origin or origin in self._origins,
            b"method": method.decode("latin-1") in self._methods,
            b"headers": wanted is None or self._any_header or self._known(wanted),
            b"private-network": http.getHeader(b"access-control-request-private-network") is None,
        }
        failed = b", ".join(name for name, passed in checks.items() if not passed)
        status, text = (400, b"Disallowed CORS " + failed) if failed else (200, b"OK")
        headers = self._allowances(origin, checks[b"origin"], wanted)
        return Answer(text, status, b"text/plain; charset=utf-8", headers)

    def _known(self, wanted: bytes) -> bool:
        known = {header.lower().encode() for header in self._headers}
        return all(header.strip() in known for header in wanted.lower().split(b","))

    def _allowances(self, origin: bytes, allowed: bool, wanted: bytes | None) -> Headers:
        headers = {b"vary": VARY}
        if self._any_origin and not self._credentials:
            headers[b"access-control-allow-origin"] = b"*"
        headers[b"access-control-allow-methods"] = ", ".join(self._methods).encode()
        headers[b"access-control-max-age"] = b"600"
        if not self._any_header:
            headers[b"access-control-allow-headers"] = ", ".join(self._headers).encode()
        elif wanted is not None:
            headers[b"access-control-allow-headers"] = wanted
        if self._credentials:
            headers[b"access-control-allow-credentials"] = b"true"
        if allowed:
            headers.setdefault(b"access-control-allow-origin", origin)
        return tuple(headers.items())
