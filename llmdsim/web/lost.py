"""What is said to a request that has no route, as vLLM's server (Starlette) says it: not in the envelope of faults."""

from __future__ import annotations

from typing import Any

from klein.interfaces import IKleinRequest
from werkzeug.exceptions import HTTPException, MethodNotAllowed, NotFound

from llmdsim.web.answer import Answer, compact


def lost(http: Any, error: HTTPException) -> Answer:
    """The answer to a path or method that Klein does not know; ``error`` is what it raised."""
    if isinstance(error, MethodNotAllowed):
        allow = ", ".join(sorted(error.valid_methods or ())).encode()
        return Answer(compact({"detail": "Method Not Allowed"}), 405, headers=((b"allow", allow),))
    if isinstance(error, NotFound) and _known_without_slash(http):
        return Answer(b"", 307, b"", ((b"location", _without_slash(http)),))
    return Answer(compact({"detail": error.name}), error.code or 500)


def _known_without_slash(http: Any) -> bool:
    path = http.path.rstrip(b"/")
    if path == http.path or not path:
        return False
    return bool(IKleinRequest(http).mapper.allowed_methods(path.decode("ascii", "replace")))


def _without_slash(http: Any) -> bytes:
    """The absolute URL of a request, as it was asked, without the slash its path ends in."""
    host = http.getHeader(b"host") or b"%b:%d" % (http.getHost().host.encode(), http.getHost().port)
    scheme = b"https" if http.isSecure() else b"http"
    path, mark, query = http.uri.partition(b"?")
    return b"%b://%b%b%b%b" % (scheme, host, path.rstrip(b"/"), mark, query)
