"""
What answers in the OpenAI form share: the envelope, the closing of a stream, usage, chunks that vary.

Key order and nulls are vLLM 0.33's: a whole answer has every field, a chunk those that vLLM sets.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llmdsim.api.dialect import error
from llmdsim.api.logprobs import Logprobs
from llmdsim.api.parts import DONE, Frames, fingerprint, frame, spans, usage_of
from llmdsim.config import Config
from llmdsim.faults import Fault
from llmdsim.sim.plan import Plan
from llmdsim.sim.request import Request


class OpenAIDialect:
    """A dialect of this form: its configuration and the fingerprint of its answers."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.fingerprint = fingerprint(config)

    def refusal(self, fault: Fault) -> dict[str, Any]:
        """A refusal before anything was answered."""
        return error(fault)


class OpenAIWriter:
    """A writer of this form; ``created`` is Unix time in seconds."""

    whole_object: str
    chunk_object: str

    def __init__(self, dialect: OpenAIDialect, request: Request, created: int) -> None:
        self.config, self.fingerprint = dialect.config, dialect.fingerprint
        self.request, self.created = request, created
        self.logprobs = None if request.logprobs is None else Logprobs(request.logprobs, request.tokens_as_ids)
        self.interval = max(request.stream_interval, 1)
        self.chunks = self.spell if self.varies() else Frames(self.token_chunk)

    def varies(self) -> bool:
        """Whether chunks differ in more than their text, so that each is spelled in full."""
        request = self.request
        return bool(
            request.return_token_ids or request.continuous_usage or request.logprobs is not None or self.interval > 1
        )

    def spell(self, plan: Plan, start: int, stop: int) -> bytes:
        """The frames of tokens ``start`` to ``stop``, each chunk spelled in full."""
        ranges = spans(start, stop, len(plan.texts), self.interval)
        return b"".join([frame(chunk) for first, end in ranges for chunk in self.span_chunks(plan, first, end)])

    def span_chunks(self, plan: Plan, start: int, stop: int) -> list[dict[str, Any]]:
        """The chunks that tokens ``start`` to ``stop`` show together: one, or as many as they have channels."""
        return [self.chunk(plan, start, stop, "".join(plan.texts[start:stop]))]

    def token_chunk(self, plan: Plan, i: int, text: str) -> dict[str, Any]:
        """The chunk of one token with a text."""
        return self.chunk(plan, i, i + 1, text)

    def chunk(self, plan: Plan, start: int, stop: int, shown: Any) -> dict[str, Any]:
        """The chunk of tokens ``start`` to ``stop``, which show a text (or a delta)."""
        raise NotImplementedError

    def is_last(self, plan: Plan, stop: int) -> bool:
        """Whether a chunk that ends before token ``stop`` ends its sequence."""
        return stop == len(plan.texts)

    def token_ids(self, plan: Plan, start: int, stop: int) -> Sequence[int] | None:
        """The ids of a chunk's tokens, where they are wanted."""
        return plan.ids[start:stop] if self.request.return_token_ids else None

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
            chunk["usage"]["prompt_tokens_details"] = _known(self._cached(plans[0]))
        details = self.completion_details(plans)
        if details is not None:
            chunk["usage"]["completion_tokens_details"] = details
        chunk["system_fingerprint"] = self.fingerprint
        metrics = timings(plans[0]) if self.config.enable_per_request_metrics else None
        if metrics is not None:
            chunk["metrics"] = _known(metrics)
        return frame(chunk) + DONE

    def created_cache_tokens(self, plan: Plan) -> int | None:
        """How many tokens of a prompt its answer added to the cache, where this is told."""
        return None

    def completion_details(self, plans: Sequence[Plan]) -> dict[str, Any] | None:
        """``completion_tokens_details`` of a whole request."""
        return None

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
        cached = self._cached(plans[-1]) | {"multimodal_tokens": None}
        answer["service_tier"] = None
        answer["system_fingerprint"] = self.fingerprint
        answer["usage"] = usage_of(plans) | {
            "prompt_tokens_details": cached if self.config.enable_prompt_tokens_details else None,
            "completion_tokens_details": self.completion_details(plans),
        }
        return answer

    def whole_ending(self, plans: Sequence[Plan]) -> dict[str, Any]:
        """The fields that every whole answer ends with."""
        return {
            "kv_transfer_params": plans[0].kv_transfer_params,
            "ec_transfer_params": None,
            "metrics": timings(plans[0]) if self.config.enable_per_request_metrics else None,
        }

    def sign(self, chunk: dict[str, Any], plan: Plan, last: bool) -> dict[str, Any]:
        """
        Finish a token's chunk: the fingerprint rides on the last one, unless a usage chunk follows with it.

        So does what a prefill answers.
        """
        if last and not self.request.include_usage:
            chunk["system_fingerprint"] = self.fingerprint
        chunk["kv_transfer_params"] = plan.kv_transfer_params if last else None
        return chunk

    def _cached(self, plan: Plan) -> dict[str, Any]:
        return {"cached_tokens": plan.cached_tokens, "created_cache_tokens": self.created_cache_tokens(plan)}


def _known(fields: dict[str, Any]) -> dict[str, Any]:
    """A stream's last words leave nulls out."""
    return {name: value for name, value in fields.items() if value is not None}


def timings(plan: Plan) -> dict[str, Any] | None:
    """The ``metrics`` of one request, in milliseconds; None where nothing was generated."""
    if not plan.ids:
        return None
    generation, gaps = plan.last - plan.first, len(plan.ids) - 1
    total = plan.last - plan.scheduled
    return {
        "time_to_first_token_ms": (plan.first - plan.arrival) * 1e3,
        "generation_time_ms": generation * 1e3,
        "queue_time_ms": (plan.scheduled - plan.arrival) * 1e3,
        "mean_itl_ms": generation * 1e3 / gaps if gaps > 0 else None,
        "tokens_per_second": len(plan.ids) / total if total > 0 else None,
        "speculative_decoding": None,
    }
