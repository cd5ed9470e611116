"""
What watches a server: health, readiness, version, load, metrics, and the description of its API.
"""

from __future__ import annotations

from twisted.web.iweb import IRequest

from llmdsim.api.parts import VLLM_VERSION, dumps
from llmdsim.api.schema import document
from llmdsim.sim.meter import render
from llmdsim.sim.rank import Rank
from llmdsim.web.answer import Answer
from llmdsim.web.app import App
from llmdsim.web.wire import header


def routes(app: App, rank: Rank) -> None:
    """Declare the probes."""
    _health(app, rank)
    _facts(app, rank)

    @app.route("/metrics")
    def metrics(http: IRequest) -> Answer:
        body, content_type = render(rank.page.registry, header(http, b"accept") or "")
        return Answer(body, content_type=content_type.encode())


def _health(app: App, rank: Rank) -> None:
    # vLLM's health has no body; the simulators' users read a JSON object.
    alive = Answer(content_type=b"") if rank.config.strict else Answer(b"{}")
    starting = Answer(alive.body, 503, alive.content_type)

    @app.route("/health")
    def health(http: IRequest) -> Answer:
        return alive

    @app.route("/ping", methods=["GET", "POST"])
    def ping(http: IRequest) -> Answer:
        return alive

    @app.route("/ready")
    def ready(http: IRequest) -> Answer:
        return alive if rank.ready else starting

    @app.route("/health/ready")
    def health_ready(http: IRequest) -> Answer:
        return alive if rank.ready else starting


def _facts(app: App, rank: Rank) -> None:
    @app.route("/version")
    def version(http: IRequest) -> Answer:
        return Answer(dumps({"version": VLLM_VERSION}))

    @app.route("/load")
    def load(http: IRequest) -> Answer:
        return Answer(dumps({"server_load": rank.open if rank.config.enable_server_load_tracking else 0}))

    if rank.config.disable_fastapi_docs:
        return

    @app.route("/openapi.json")
    def openapi(http: IRequest) -> Answer:
        return Answer(dumps(document(app.paths())))
