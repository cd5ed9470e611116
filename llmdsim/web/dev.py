"""
What a developer or a trainer does to a rank: sleep, pause, abort, reset, look inside.

vLLM has these routes with VLLM_SERVER_DEV_MODE=1 only, and so has a strict server. What a state means is sim.state's.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from twisted.web.iweb import IRequest

from llmdsim.api.invalid import Error
from llmdsim.api.parts import dumps
from llmdsim.api.scalars import Check, boolean, bounded, integer, one_of
from llmdsim.api.schema import invalid
from llmdsim.config import dump
from llmdsim.faults import INVALID_BODY, Fault
from llmdsim.sim.features import SleepMode
from llmdsim.sim.rank import Rank
from llmdsim.sim.state import MODES
from llmdsim.web.answer import Answer
from llmdsim.web.app import App

LEVEL = bounded(integer, 0, 2)
MODE = one_of(MODES)
FORMAT = one_of(("text", "json"))
EMPTY = Answer(content_type=b"")


def routes(app: App, rank: Rank) -> None:
    """Declare the routes that are open; a strict server without dev mode has little of them."""
    config = rank.config
    if config.strict and not config.dev_mode:
        return
    _sleep(app, rank)
    _pause(app, rank)
    _abort(app, rank)
    _caches(app, rank)
    _inside(app, rank)


def query(http: IRequest, name: str, check: Check, default: Any, errors: list[Error]) -> Any:
    """One parameter of the query, the last of its name as FastAPI takes it; what is wrong goes to ``errors``."""
    values = http.args.get(name.encode())
    return check(values[-1].decode("utf-8", "replace"), ("query", name), errors) if values else default


def read_any(http: IRequest) -> Any:
    """The value of a JSON body of any media type; ValueError with Python's own text."""
    return json.loads(http.content.read())


def _refuse(errors: list[Error]) -> None:
    if errors:
        raise invalid(errors)


def _json(value: Any) -> Answer:
    return Answer(dumps(value))


def _sleep(app: App, rank: Rank) -> None:
    stopwatch = _Stopwatch(rank)

    @app.route("/sleep", methods=["POST"])
    async def sleep(http: IRequest) -> Answer:
        errors: list[Error] = []
        level = query(http, "level", LEVEL, 1, errors)
        mode = query(http, "mode", MODE, "abort", errors)
        _refuse(errors)
        with stopwatch.during("sleep"):
            await rank.state.sleep(level, mode)
        return _json({"status": "sleeping", "level": level})

    @app.route("/wake_up", methods=["POST"])
    def wake_up(http: IRequest) -> Answer:
        values = http.args.get(b"tags")
        tags = [value.decode("utf-8", "replace") for value in values] if values else None
        with stopwatch.during("wake"):
            awake = rank.state.wake(tags)
        return _json({"status": "awake" if awake else "sleeping", "tags": tags})

    @app.route("/is_sleeping")
    def is_sleeping(http: IRequest) -> Answer:
        return _json({"is_sleeping": rank.state.sleeping})

    @app.route("/release_kv_cache_memory", methods=["POST"])
    def release(http: IRequest) -> Answer:
        rank.state.release()
        return _json({"status": "kv_cache_released"})


class _Stopwatch:
    """vLLM's meters of sleep mode, on the page from the first operation on."""

    def __init__(self, rank: Rank) -> None:
        self._rank = rank
        self._meters: SleepMode | None = None

    @contextmanager
    def during(self, operation: str) -> Iterator[None]:
        """Time what is done inside."""
        rank = self._rank
        meters = self._meters = self._meters or SleepMode(rank.meters.registry, rank.wall)
        began = rank.clock.seconds()
        meters.began(operation)
        try:
            yield
        finally:
            meters.ended(operation, rank.clock.seconds() - began)


def _pause(app: App, rank: Rank) -> None:
    @app.route("/pause", methods=["POST"])
    async def pause(http: IRequest) -> Answer:
        errors: list[Error] = []
        mode = query(http, "mode", MODE, "abort", errors)
        clear = query(http, "clear_cache", boolean, True, errors)
        _refuse(errors)
        await rank.state.pause(mode, clear)
        return _json({"status": "paused"})

    @app.route("/resume", methods=["POST"])
    def resume(http: IRequest) -> Answer:
        rank.state.resume()
        return _json({"status": "resumed"})

    @app.route("/is_paused")
    def is_paused(http: IRequest) -> Answer:
        return _json({"is_paused": rank.state.paused})


def _abort(app: App, rank: Rank) -> None:
    @app.route("/abort_requests", methods=["POST"])
    def abort(http: IRequest) -> Answer:
        try:
            body = read_any(http)
        except ValueError:
            raise Fault(INVALID_BODY, "Invalid JSON format") from None
        ids = _names(_members(body).get("request_ids"))
        aborted = rank.abort(ids or None)
        return _json({"status": "aborted", "aborted": len(ids) or aborted})


def _names(ids: Any) -> list[str]:
    return list(map(str, ids)) if isinstance(ids, list) else [ids] if isinstance(ids, str) else []


def _members(body: Any) -> dict[str, Any]:
    if not isinstance(body, dict):
        raise Fault(INVALID_BODY, "Request body must be a JSON object")
    return body


def _document(http: IRequest) -> dict[str, Any]:
    try:
        return _members(read_any(http))
    except ValueError as error:
        raise Fault(INVALID_BODY, f"JSON decode error: {error}") from None


def _caches(app: App, rank: Rank) -> None:
    @app.route("/reset_prefix_cache", methods=["POST"])
    def reset_prefix(http: IRequest) -> Answer:
        errors: list[Error] = []
        running = query(http, "reset_running_requests", boolean, False, errors)
        query(http, "reset_external", boolean, False, errors)
        _refuse(errors)
        return _json({"success": rank.reset_cache(running)})

    # There is no cache of images or encodings that could be full.
    @app.route("/reset_mm_cache", methods=["POST"])
    def reset_mm(http: IRequest) -> Answer:
        return EMPTY

    @app.route("/reset_encoder_cache", methods=["POST"])
    def reset_encoder(http: IRequest) -> Answer:
        return EMPTY


def _inside(app: App, rank: Rank) -> None:
    config = rank.config
    workers = max(config.tensor_parallel_size, 1) * config.pipeline_parallel_size

    @app.route("/get_world_size")
    def world_size(http: IRequest) -> Answer:
        errors: list[Error] = []
        with_ranks = query(http, "include_dp", boolean, True, errors)
        _refuse(errors)
        return _json({"world_size": workers * (config.data_parallel_size if with_ranks else 1)})

    @app.route("/collective_rpc", methods=["POST"])
    def collective_rpc(http: IRequest) -> Answer:
        # Nobody is there to be called: each worker answers None, as most of vLLM's methods do.
        if _document(http).get("method") is None:
            raise Fault(INVALID_BODY, "Missing 'method' in request body")
        return _json({"results": [None] * workers})

    @app.route("/server_info")
    def server_info(http: IRequest) -> Answer:
        errors: list[Error] = []
        form = query(http, "config_format", FORMAT, "text", errors)
        _refuse(errors)
        return _json(info(rank, form))


def info(rank: Rank, form: str) -> dict[str, Any]:
    """What /server_info tells: the configuration as text or JSON, without its keys, and where it runs."""
    config = rank.config
    shown = {name.replace("-", "_"): value for name, value in dump(config).items()}
    return {
        "vllm_config": shown if form == "json" else ", ".join(f"{name}={value!r}" for name, value in shown.items()),
        "vllm_env": {
            "VLLM_ALLOW_RUNTIME_LORA_UPDATING": config.allow_runtime_lora,
            "VLLM_ENABLE_RESPONSES_API_STORE": config.responses_store,
            "VLLM_MAX_N_SEQUENCES": config.max_n,
            "VLLM_SERVER_DEV_MODE": config.dev_mode,
        },
        "system_env": {
            "os": platform.system(),
            "python_version": platform.python_version(),
            "python_platform": platform.platform(),
        },
    }
