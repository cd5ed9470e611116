"""
SageMaker's one door for all: POST /invocations goes where the shape of its body belongs.
"""

from __future__ import annotations

from typing import Any

from twisted.web.iweb import IRequest

from llmdsim.api.schema import check, read_json
from llmdsim.faults import BAD_REQUEST, INVALID_BODY, Fault
from llmdsim.sim.rank import Rank
from llmdsim.web.app import App
from llmdsim.web.dev import read_any
from llmdsim.web.wire import header

# In vLLM's order of preference.
SHAPES = (
    ("ChatCompletionRequest", "/v1/chat/completions"),
    ("CompletionRequest", "/v1/completions"),
    ("EmbeddingRequest", "/v1/embeddings"),
    ("RerankRequest", "/rerank"),
    ("ScoreRequest", "/score"),
    ("PoolingRequest", "/pooling"),
)
PROMPTS = {"prompt", "prompt_embeds"}


def routes(app: App, rank: Rank) -> None:
    """Declare the door; what is behind it is what the other rooms serve."""

    @app.route("/invocations", methods=["POST"])
    def invocations(http: IRequest) -> Any:
        read_json(b"{}", header(http, b"content-type"))  # only the media type matters yet
        body = _body(http)
        served = [(name, url) for name, url in SHAPES if ("POST", url) in app.handlers]
        # A completion's schema wants nothing, so that without a prompt any body would be one.
        served.sort(key=lambda shape: shape[0] == "CompletionRequest" and not _prompted(body))
        for name, url in served:
            if _fits(name, body):
                http.content.seek(0)
                return app.handlers["POST", url](http)
        names = [name for name, _ in served]
        raise Fault(BAD_REQUEST, f"Cannot find suitable handler for request. Expected one of: {names}")


def _body(http: IRequest) -> Any:
    try:
        return read_any(http)
    except ValueError as error:
        raise Fault(INVALID_BODY, f"JSON decode error: {error}") from None


def _prompted(body: Any) -> bool:
    return isinstance(body, dict) and bool(body.keys() & PROMPTS)


def _fits(name: str, body: Any) -> bool:
    try:
        check(name, body)
    except Fault:
        return False
    return True
