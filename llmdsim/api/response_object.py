"""
The response object of the Responses API and the items of its output, with vLLM 0.33's keys, order and nulls.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any

import attrs

from llmdsim.api.echoes import echoed
from llmdsim.api.logprobs import Logprobs
from llmdsim.api.sampling import given
from llmdsim.config import Config
from llmdsim.sim.plan import Plan
from llmdsim.sim.request import Request

COMPONENT = "ResponsesRequest"
STATUSES = {"length": "incomplete", "abort": "cancelled"}

Item = dict[str, Any]


@attrs.frozen(slots=True)
class Ask(Request):
    """
    A Request and what its answer repeats or continues: the checked body, and the conversation without instructions.

    ``finds_calls``: tool calls in the model's text become items.
    """

    body: Mapping[str, Any] = attrs.field(factory=dict)
    messages: Sequence[Mapping[str, Any]] = ()
    finds_calls: bool = False


def status(plan: Plan) -> str:
    """The status of a response that has ended."""
    return STATUSES.get(plan.finish, "completed")


def response(
    ask: Ask,
    config: Config,
    created: int,
    status: str,
    prompt_tokens: int,
    output: Sequence[Item] = (),
    usage: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """The whole object; ``created`` is Unix time in seconds."""
    body = ask.body
    room = config.max_model_len - prompt_tokens
    return {
        "id": ask.id,
        "created_at": created,
        "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
        "instructions": body.get("instructions"),
        "metadata": body.get("metadata"),
        "model": ask.model.name,
        "object": "response",
        "output": output,
        "parallel_tool_calls": given(body, "parallel_tool_calls", True),
        "temperature": float(given(body, "temperature", 1.0)),
        "tool_choice": _tool_choice(body),
        "tools": echoed(COMPONENT, "tools", given(body, "tools", [])),
        "top_p": float(given(body, "top_p", 1.0)),
        "background": given(body, "background", False),
        "max_output_tokens": room if ask.max_tokens is None else min(ask.max_tokens, room),
        "max_tool_calls": body.get("max_tool_calls"),
        "previous_response_id": body.get("previous_response_id"),
        "prompt": None,
        "prompt_cache_options": echoed(COMPONENT, "prompt_cache_options", body.get("prompt_cache_options")),
        "prompt_cache_key": body.get("prompt_cache_key"),
        "prompt_cache_retention": body.get("prompt_cache_retention"),
        "reasoning": echoed(COMPONENT, "reasoning", body.get("reasoning")),
        "safety_identifier": body.get("safety_identifier"),
        "service_tier": given(body, "service_tier", "auto"),
        "status": status,
        "text": echoed(COMPONENT, "text", body.get("text")),
        "top_logprobs": ask.logprobs,
        "truncation": given(body, "truncation", "disabled"),
        "usage": usage,
        "user": body.get("user"),
        "presence_penalty": float(given(body, "presence_penalty", 0.0)),
        "frequency_penalty": float(given(body, "frequency_penalty", 0.0)),
        "kv_transfer_params": None,
        "ec_transfer_params": None,
        "input_messages": None,
        "output_messages": None,
    }


def _tool_choice(body: Mapping[str, Any]) -> Any:
    choice = given(body, "tool_choice", "auto")
    if choice == "auto" and not body.get("tools"):
        return "none"
    return echoed(COMPONENT, "tool_choice", choice)


def usage(plan: Plan, config: Config, reasoning_tokens: int) -> dict[str, Any]:
    """Token counts; what the cache had and what it was given are counted in whole blocks."""
    blocks = plan.prompt_tokens - plan.prompt_tokens % config.block_size if config.enable_prefix_caching else 0
    return {
        "input_tokens": plan.prompt_tokens,
        "input_tokens_details": {
            "cached_tokens": plan.cached_tokens,
            "cache_write_tokens": max(blocks - plan.cached_tokens, 0),
            "input_tokens_per_turn": [],
            "cached_tokens_per_turn": [],
        },
        "output_tokens": len(plan.ids),
        "output_tokens_details": {
            "reasoning_tokens": reasoning_tokens,
            "tool_output_tokens": 0,
            "output_tokens_per_turn": [],
            "tool_output_tokens_per_turn": [],
        },
        "total_tokens": plan.prompt_tokens + len(plan.ids),
    }


def raw_messages(ids: Sequence[int], texts: Sequence[str]) -> list[dict[str, Any]]:
    """Tokens as ``enable_response_messages`` shows them."""
    return [{"message": "".join(texts), "tokens": list(ids), "type": "raw_message_tokens"}]


def item_id(kind: str, ask: Ask, number: int) -> str:
    """The id of one output item, the same in every form of the answer; ``kind`` is ``msg``, ``rs`` or ``fc``."""
    digest = blake2b(f"{ask.id}-{number}".encode("utf-8", "replace"), digest_size=8)
    return f"{kind}_{digest.hexdigest()}"


def message(id: str, status: str, parts: Sequence[Item]) -> Item:
    """A message of the assistant."""
    return {"id": id, "content": parts, "role": "assistant", "status": status, "type": "message", "phase": None}


def text_part(text: str, logprobs: Sequence[Item] | None) -> Item:
    """The text of a message."""
    return {"annotations": [], "text": text, "type": "output_text", "logprobs": logprobs}


def reasoning(id: str, status: str | None, parts: Sequence[Item] | None) -> Item:
    """What the model thought."""
    return {
        "id": id,
        "summary": [],
        "type": "reasoning",
        "content": parts,
        "encrypted_content": None,
        "status": status,
    }


def reasoning_part(text: str) -> Item:
    """The text of a thought."""
    return {"text": text, "type": "reasoning_text"}


def function_call(id: str, call_id: str, name: str, arguments: str, status: str) -> Item:
    """A call of one of the client's functions; ``arguments`` is JSON text."""
    return {
        "arguments": arguments,
        "call_id": call_id,
        "name": name,
        "type": "function_call",
        "id": id,
        "caller": None,
        "namespace": None,
        "status": status,
    }


def whole_logprobs(logprobs: Logprobs, plan: Plan) -> list[Item]:
    """The log-probabilities of all tokens, as a message has them."""
    entries = logprobs.chat(plan, 0, len(plan.ids))["content"]
    return [{**_with_bytes(entry), "top_logprobs": [*map(_with_bytes, entry["top_logprobs"])]} for entry in entries]


def delta_logprobs(logprobs: Logprobs, plan: Plan, start: int, stop: int) -> list[Item]:
    """The log-probabilities of some tokens, as a delta has them: without bytes."""
    entries = logprobs.chat(plan, start, min(stop, len(plan.ids)))["content"]
    return [{**_bare(entry), "top_logprobs": [*map(_bare, entry["top_logprobs"])]} for entry in entries]


def _with_bytes(entry: Item) -> Item:
    return {"token": entry["token"], "bytes": entry["bytes"], "logprob": entry["logprob"]}


def _bare(entry: Item) -> Item:
    return {"token": entry["token"], "logprob": entry["logprob"]}
