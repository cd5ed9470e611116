"""
What the rest of a cluster asks of a server: its KV events, its engines' names, its elastic scaling.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid5

from twisted.web.iweb import IRequest

from llmdsim.api.parts import dumps
from llmdsim.api.schema import read_json
from llmdsim.config import Config
from llmdsim.faults import INVALID_BODY, Fault
from llmdsim.sim.rank import Rank
from llmdsim.web.answer import Answer
from llmdsim.web.app import App
from llmdsim.web.dev import read_any
from llmdsim.web.wire import header

ENGINES = UUID("5a2b7a52-56ec-4f7c-9a4e-0c3d2b3f9d10")  # the namespace of engine ids
# vLLM's defaults, in its order.
EVENTS: dict[str, Any] = {
    "enable_kv_cache_events": False,
    "publisher": "null",
    "endpoint": "tcp://*:5557",
    "replay_endpoint": None,
    "buffer_steps": 10000,
    "hwm": 100000,
    "max_queue_size": 100000,
    "topic": "",
}
IDLE = Answer(
    dumps(
        {
            "is_scaling_elastic_ep": False,
            "phase": "idle",
            "epoch": None,
            "error": None,
            "requested_data_parallel_size": None,
        }
    )
)


def routes(app: App, rank: Rank) -> None:
    """Declare them; /query is not vLLM's, so a strict server has none."""
    config = rank.config

    @app.route("/kv_event_sources")
    def sources(http: IRequest) -> Answer:
        events = event_source(config)
        return Answer(dumps({str(max(config.data_parallel_rank, 0)): events} if events else {}))

    @app.route("/is_scaling_elastic_ep", methods=["POST"])
    def is_scaling(http: IRequest) -> Answer:
        return IDLE

    @app.route("/scale_elastic_ep", methods=["POST"])
    def scale(http: IRequest) -> Answer:
        read_json(b"{}", header(http, b"content-type"))  # only the media type matters yet
        size = wanted_size(http)
        # One that does not scale says what vLLM says without --enable-elastic-ep.
        if size != config.data_parallel_size:
            raise Fault(INVALID_BODY, "Elastic EP scaling requires enable_elastic_ep=True.")
        return Answer(dumps({"message": f"Scaled to {size} data parallel engines"}))

    if config.strict:
        return

    @app.route("/query")
    def query(http: IRequest) -> Answer:
        names = {str(number): {"engine_id": engine_id(config, number)} for number in range(config.data_parallel_size)}
        return Answer(dumps(names))


def event_source(config: Config) -> dict[str, Any] | None:
    """Where one rank publishes its KV events, in the form of vLLM's ``--kv-events-config``; None: nowhere."""
    given = config.kv_events_config or {}
    if given.get("enable_kv_cache_events"):
        return {**EVENTS, "publisher": "zmq", **{key: value for key, value in given.items() if key in EVENTS}}
    if not config.enable_kvcache or not config.zmq_endpoint:
        return None
    return {
        **EVENTS,
        "enable_kv_cache_events": True,
        "publisher": "zmq",
        "endpoint": config.zmq_endpoint,
        "replay_endpoint": config.kv_events_replay_endpoint,
        "buffer_steps": config.kv_events_replay_queue_size,
        "topic": f"kv@{config.pod_ip}:{config.port}@{config.model}",
    }


def engine_id(config: Config, rank: int) -> str:
    """The name of a rank's engine: the same for one seed, on every rank's port."""
    return str(uuid5(ENGINES, f"{config.seed}-{rank}"))


def wanted_size(http: IRequest) -> int:
    """The size that a body of /scale_elastic_ep asks for; Fault with vLLM's texts."""
    try:
        body = read_any(http)
    except ValueError:
        raise Fault(INVALID_BODY, "Invalid JSON format") from None
    members = body if isinstance(body, dict) else {}
    size = members.get("new_data_parallel_size")
    if size is None:
        raise Fault(INVALID_BODY, "new_data_parallel_size is required")
    for name, value in (("new_data_parallel_size", size), ("drain_timeout", members.get("drain_timeout", 120))):
        if not isinstance(value, int) or value <= 0:
            raise Fault(INVALID_BODY, f"{name} must be a positive integer")
    return int(size)
