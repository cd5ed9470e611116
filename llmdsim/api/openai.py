"""
What answers in the OpenAI form share: the envelope, the closing of a stream, usage.

Key order and nulls are vLLM 0.33's: a whole answer has every field, a chunk those that vLLM sets.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llmdsim.api.dialect import error
from llmdsim.api.parts import DONE, Frames, fingerprint, frame, usage_of
from llmdsim.config import Config
from llmdsim.faults import Fault
from llmdsim.sim.plan import Plan
from llmdsim.sim.request import Request


class OpenAIDialect:
    """A dialect of this form: its configuration and the fingerprint of its answers."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.fingerprint = fingerprint(config)


class OpenAIWriter:
    """A writer of this form; ``created`` is Unix time in seconds."""

    whole_object: str
    chunk_object: str
    created_cache_tokens: int | None

    def __init__(self, dialect: OpenAIDialect, request: Request, created: int) -> None:
        self.config, self.fingerprint = dialect.config, dialect.fingerprint
        self.request, self.created = request, created
        self.chunks = Frames(self.token_chunk, request.return_token_ids or request.continuous_usage)

    def token_chunk(self, plan: Plan, i: int, text: str) -> dict[str, Any]:
        """The chunk of one token."""
        raise NotImplementedError

    def opening(self, plan: Plan) -> bytes:
        """What precedes the first token of all: nothing."""
        return b""

    def closing(self, plans: Sequence[Plan]) -> bytes:
        """The usage chunk, where it was asked for, and the end mark."""
        if not self.request.include_usage:
            return DONE
        chunk = self.envelope(self.chunk_object, [])
        chunk["usage"] = usage_of(plans)
        if self.config.enable_prompt_tokens_details:
            chunk["usage"]["prompt_tokens_details"] = self._cached(plans)
        chunk["system_fingerprint"] = self.fingerprint
        return frame(chunk) + DONE

    def fault(self, fault: Fault) -> bytes:
        """An error in mid-stream, and the end mark."""
        return frame(error(fault)) + DONE

    def envelope(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        """The fields that every answer and chunk begins with."""
        return {
            "id": self.request.id,
            "object": kind,
            "created": self.created,
            "model": self.request.model.name,
            "choices": choices,
        }

    def whole_envelope(self, plans: Sequence[Plan], choices: list[dict[str, Any]]) -> dict[str, Any]:
        """The fields that every whole answer begins with, usage included."""
        answer = self.envelope(self.whole_object, choices)
        cached = self._cached(plans) | {"multimodal_tokens": None}
        answer["service_tier"] = None
        answer["system_fingerprint"] = self.fingerprint
        answer["usage"] = usage_of(plans) | {
            "prompt_tokens_details": cached if self.config.enable_prompt_tokens_details else None,
            "completion_tokens_details": None,
        }
        return answer

    def sign(self, chunk: dict[str, Any], last: bool) -> dict[str, Any]:
        """Finish a token's chunk: the fingerprint rides on the last one, unless a usage chunk follows with it."""
        if last and not self.request.include_usage:
            chunk["system_fingerprint"] = self.fingerprint
        chunk["kv_transfer_params"] = None
        return chunk

    def _cached(self, plans: Sequence[Plan]) -> dict[str, Any]:
        return {"cached_tokens": plans[0].cached_tokens, "created_cache_tokens": self.created_cache_tokens}
