"""
What an operator asks of a rank: its models, and its adapters' loading and unloading.
"""

from __future__ import annotations

from typing import Any
from uuid import uuid4

from twisted.web.iweb import IRequest

from llmdsim.api.parts import dumps
from llmdsim.api.schema import check, read_json
from llmdsim.config import Adapter
from llmdsim.sim.rank import Rank
from llmdsim.web.answer import Answer
from llmdsim.web.app import App
from llmdsim.web.wire import header


def routes(app: App, rank: Rank) -> None:
    """Declare the routes of models and adapters; a strict server loads adapters only where vLLM would."""

    @app.route("/v1/models")
    def models(http: IRequest) -> Answer:
        return Answer(dumps({"object": "list", "data": cards(rank)}))

    if rank.config.strict and not (rank.config.enable_lora and rank.config.allow_runtime_lora):
        return

    @app.route("/v1/load_lora_adapter", methods=["POST"])
    def load(http: IRequest) -> Answer:
        body = check("LoadLoRAAdapterRequest", read_json(http.content.read(), header(http, b"content-type")))
        name = body["lora_name"]
        rank.adapters.load(name, body["lora_path"], bool(body.get("load_inplace")))
        return _done(f"Success: LoRA adapter '{name}' added successfully.")

    @app.route("/v1/unload_lora_adapter", methods=["POST"])
    def unload(http: IRequest) -> Answer:
        body = check("UnloadLoRAAdapterRequest", read_json(http.content.read(), header(http, b"content-type")))
        name = body["lora_name"]
        rank.adapters.unload(name)
        return _done(f"Success: LoRA adapter '{name}' removed successfully.")


def cards(rank: Rank) -> list[dict[str, Any]]:
    """A card for each served name, then one for each adapter."""
    config, created = rank.config, int(rank.wall())
    base = [_card(name, created, config.model, None, config.max_model_len) for name in rank.adapters.served]
    return base + [_adapter_card(rank, adapter, created) for adapter in rank.adapters.known.values()]


def _adapter_card(rank: Rank, adapter: Adapter, created: int) -> dict[str, Any]:
    parent = adapter.base_model_name or rank.adapters.served[0]
    return _card(adapter.name, created, adapter.path or adapter.name, parent, None)


def _card(name: str, created: int, root: str, parent: str | None, window: int | None) -> dict[str, Any]:
    return {
        "id": name,
        "object": "model",
        "created": created,
        "owned_by": "vllm",
        "root": root,
        "parent": parent,
        "max_model_len": window,
        "permission": [_permission(created)],
    }


def _permission(created: int) -> dict[str, Any]:
    return {
        "id": f"modelperm-{uuid4().hex[:16]}",
        "object": "model_permission",
        "created": created,
        "allow_create_engine": False,
        "allow_sampling": True,
        "allow_logprobs": True,
        "allow_search_indices": False,
        "allow_view": True,
        "allow_fine_tuning": False,
        "organization": "*",
        "group": None,
        "is_blocking": False,
    }


def _done(text: str) -> Answer:
    return Answer(text.encode(), content_type=b"")
