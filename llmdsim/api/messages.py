"""
``/v1/messages``: Anthropic's dialect, asked as a chat and answered in content blocks and named events.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

from llmdsim.api import schema
from llmdsim.api.anthropic import as_chat
from llmdsim.api.chat import Chat
from llmdsim.api.dialect import error
from llmdsim.api.parsing import ARGUMENTS, CONTENT, NAME, REASONING, Piece, Views, call_id
from llmdsim.api.parts import dumps, escaped
from llmdsim.config import Config
from llmdsim.faults import INVALID_BODY, Fault
from llmdsim.sim.plan import Plan
from llmdsim.sim.request import Model, Request

ERRORS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
}
BLOCKS = {REASONING: "thinking", CONTENT: "text", NAME: "tool_use", ARGUMENTS: "tool_use"}


class Messages(Chat):
    """Anthropic's Messages, as vLLM speaks them."""

    def check(self, body: object) -> dict[str, Any]:
        """The body with its types right. Raises Fault."""
        return schema.check("AnthropicMessagesRequest", body)

    def parse(self, body: dict[str, Any], id: str, model: Model) -> Request:
        """The question that a checked body asks."""
        return super().parse(as_chat(body), id, model)

    def writer(self, request: Request, created: int) -> MessageWriter:  # type: ignore[override]
        """What answers one request; the time is not shown."""
        return MessageWriter(self.config, request)

    def refusal(self, fault: Fault) -> dict[str, Any]:
        """A refusal; bodies of a wrong shape are refused in the OpenAI form, as in vLLM."""
        return error(fault) if fault.kind is INVALID_BODY else problem(fault)


def problem(fault: Fault) -> dict[str, Any]:
    """Anthropic's error envelope."""
    status = fault.kind.status
    kind = ERRORS.get(status, "api_error" if status >= 500 else "invalid_request_error")
    return {"type": "error", "error": {"type": kind, "message": fault.message}}


def event(name: str, **fields: Any) -> bytes:
    """One named event; its type comes first."""
    return b"event: %b\ndata: %b\n\n" % (name.encode(), dumps({"type": name, **fields}))


class MessageWriter:
    """Blocks and events of one answer. A stream's events are written in order, once."""

    def __init__(self, config: Config, request: Request) -> None:
        self._config, self._request = config, request
        self._parsed = request.form.marked or bool(config.reasoning_parser)
        self._seen = Views(request.form)
        self._block = ""
        self._index = -1
        self._before = self._after = b""

    def opening(self, plan: Plan) -> bytes:
        """The start of the message; its usage counts the whole prompt."""
        message: dict[str, Any] = {
            "id": self._request.id,
            "type": "message",
            "role": "assistant",
            "content": [],
            "model": self._request.model.name,
            "stop_reason": None,
            "stop_sequence": None,
            "usage": {"input_tokens": plan.prompt_tokens, "output_tokens": 0},
        }
        return event("message_start", message=message)

    def chunks(self, plan: Plan, start: int, stop: int) -> bytes:
        """The events of tokens ``start`` to ``stop``; a token that shows nothing has none."""
        if self._parsed:
            shown = [piece for pieces in self._seen(plan).pieces[start:stop] for piece in pieces]
            return b"".join([self._piece(piece, plan) for piece in shown])
        texts = [text for text in plan.texts[start:stop] if text]
        if not texts:
            return b""
        opened = b"" if self._block else self._open(CONTENT, {"type": "text", "text": ""})
        return opened + b"".join([self._before + escaped[text] + self._after for text in texts])

    def closing(self, plans: Sequence[Plan]) -> bytes:
        """The end of the last block, why the message ended, and its end."""
        plan = plans[0]
        delta = {"stop_reason": self._stop_reason(plan), "stop_sequence": _stop_sequence(plan)}
        ended = event("message_delta", delta=delta, usage=self._usage(plan))
        return self._close() + ended + event("message_stop")

    def fault(self, fault: Fault) -> bytes:
        """An error in mid-stream, after the open block's end."""
        return self._close() + b"event: error\ndata: %b\n\n" % dumps(problem(fault))

    def whole(self, plans: Sequence[Plan]) -> bytes:
        """The answer of a request that does not stream; nulls are left out."""
        plan = plans[0]
        answer: dict[str, Any] = {
            "id": self._request.id,
            "type": "message",
            "role": "assistant",
            "content": self._content(plan),
            "model": self._request.model.name,
            "stop_reason": self._stop_reason(plan),
        }
        if _stop_sequence(plan) is not None:
            answer["stop_sequence"] = _stop_sequence(plan)
        return dumps(answer | {"usage": self._usage(plan)})

    def _content(self, plan: Plan) -> list[dict[str, Any]]:
        view = self._seen(plan)
        blocks: list[dict[str, Any]] = []
        if view.reasoning is not None:
            blocks.append({"type": "thinking", "thinking": view.reasoning, "signature": _signature(self._request)})
        if view.content is not None or not (blocks or view.calls):
            blocks.append({"type": "text", "text": view.content or ""})
        for number, call in enumerate(view.calls):
            arguments = json.loads(call.arguments)
            blocks.append({"type": "tool_use", "id": call_id(plan, number), "name": call.name, "input": arguments})
        return blocks

    def _piece(self, piece: Piece, plan: Plan) -> bytes:
        if piece.channel == NAME:
            block = {"type": "tool_use", "id": call_id(plan, piece.call), "name": piece.text, "input": {}}
            return self._open(NAME, block)
        opened = b""
        if self._block != BLOCKS[piece.channel]:
            opened = self._open(piece.channel, _empty(piece.channel))
        return opened + self._before + escaped[piece.text] + self._after

    def _open(self, channel: str, block: dict[str, Any]) -> bytes:
        closed = self._close()
        self._block, self._index = BLOCKS[channel], self._index + 1
        head = b'event: content_block_delta\ndata: {"type":"content_block_delta","delta":{"type":"%b","%b":'
        self._before = head % DELTAS[self._block]
        self._after = b'},"index":%d}\n\n' % self._index
        return closed + event("content_block_start", content_block=block, index=self._index)

    def _close(self) -> bytes:
        if not self._block:
            return b""
        signed = b""
        if self._block == "thinking":
            delta = {"type": "signature_delta", "signature": _signature(self._request)}
            signed = event("content_block_delta", delta=delta, index=self._index)
        self._block = ""
        return signed + event("content_block_stop", index=self._index)

    def _stop_reason(self, plan: Plan) -> str:
        if plan.finish == "length":
            return "max_tokens"
        if _stop_sequence(plan) is not None:
            return "stop_sequence"
        return "tool_use" if self._parsed and self._seen(plan).calls else "end_turn"

    def _usage(self, plan: Plan) -> dict[str, Any]:
        if not self._config.enable_prompt_tokens_details:
            return {"input_tokens": plan.prompt_tokens, "output_tokens": len(plan.ids)}
        return {
            "input_tokens": plan.prompt_tokens - plan.cached_tokens,
            "output_tokens": len(plan.ids),
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": plan.cached_tokens,
        }


DELTAS = {
    "text": (b"text_delta", b"text"),
    "thinking": (b"thinking_delta", b"thinking"),
    "tool_use": (b"input_json_delta", b"partial_json"),
}


def _empty(channel: str) -> dict[str, Any]:
    return {"type": "thinking", "thinking": ""} if channel == REASONING else {"type": "text", "text": ""}


def _stop_sequence(plan: Plan) -> str | None:
    return plan.stop_reason if isinstance(plan.stop_reason, str) else None


def _signature(request: Request) -> str:
    """What a thinking block is signed with: 32 hex digits of the answer's own."""
    return blake2b(request.id.encode("utf-8", "replace"), digest_size=16).hexdigest()
