"""
``/v1/completions``: body to Request, Plan to chunks and completions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llmdsim.api import schema
from llmdsim.api.openai import OpenAIDialect, OpenAIWriter
from llmdsim.api.parts import dumps, is_last, usage
from llmdsim.api.sampling import check_sampling, check_stream_options, given, refuse, request_fields
from llmdsim.faults import BAD_REQUEST, Fault, bad_value
from llmdsim.sim.plan import Plan
from llmdsim.sim.request import Model, Prompt, Request

DEFAULT_LIMIT = 16  # tokens, where a completion names none


class Completions(OpenAIDialect):
    """The OpenAI text completion dialect, as vLLM speaks it."""

    prefix = "cmpl-"

    def check(self, body: object) -> dict[str, Any]:
        """The body with its types right. Raises Fault, also for fields that contradict each other."""
        check_stream_options(body)
        if isinstance(body, dict) and not body.get("prompt_embeds") and body.get("prompt") in (None, ""):
            raise bad_value("Either prompt or prompt_embeds must be provided and non-empty.", "prompt")
        return schema.check("CompletionRequest", body)

    def parse(self, body: dict[str, Any], id: str, model: Model) -> Request:
        """The question that a checked body asks."""
        if body.get("suffix") is not None:
            raise Fault(BAD_REQUEST, "suffix is only supported for models with FIM completion rendering", "suffix")
        prompts = _prompts(body.get("prompt"))
        check_sampling(body, self.config.max_n)
        return Request(
            id=self.prefix + id,
            model=model,
            prompts=prompts,
            max_tokens=given(body, "max_tokens", DEFAULT_LIMIT),
            **request_fields(body, self.config),
        )

    def writer(self, request: Request, created: int) -> CompletionWriter:
        """What answers one request; ``created`` is Unix time in seconds."""
        return CompletionWriter(self, request, created)


class CompletionWriter(OpenAIWriter):
    """Chunks and completions of one text request."""

    whole_object = chunk_object = "text_completion"
    created_cache_tokens = None

    def whole(self, plans: Sequence[Plan]) -> bytes:
        """The answer of a request that does not stream."""
        answer = self.whole_envelope(plans, [self._choice(plan) for plan in plans])
        return dumps(answer | {"kv_transfer_params": None, "ec_transfer_params": None, "metrics": None})

    def _choice(self, plan: Plan) -> dict[str, Any]:
        ids = self.request.return_token_ids
        return {
            "index": plan.index,
            "text": "".join(plan.texts),
            "logprobs": None,
            "finish_reason": plan.finish,
            "stop_reason": plan.stop_reason,
            "token_ids": plan.ids if ids else None,
            "prompt_logprobs": None,
            "prompt_token_ids": plan.prompt.ids if ids else None,
            "routed_experts": None,
            "weight_versions": None,
        }

    def token_chunk(self, plan: Plan, i: int, text: str) -> dict[str, Any]:
        """The chunk of one token; the last one carries the finish reason."""
        last, ids = is_last(plan, i), self.request.return_token_ids
        choice = {
            "index": plan.index,
            "text": text,
            "logprobs": None,
            "finish_reason": plan.finish if last else None,
            "stop_reason": plan.stop_reason if last else None,
            "prompt_token_ids": plan.prompt.ids if ids and not i else None,
            "token_ids": [plan.ids[i]] if ids else None,
            "weight_versions": None,
        }
        chunk = self.envelope(self.chunk_object, [choice])
        if self.request.continuous_usage:
            chunk["usage"] = usage(plan.prompt_tokens, i + 1)
        return self.sign(chunk, last)


def _prompts(prompt: Any) -> tuple[Prompt, ...]:
    """The prompts of a body: a text, a list of texts, token ids, or a list of these."""
    if isinstance(prompt, str):
        return (prompt,)
    if not prompt:
        raise bad_value("You must pass at least one prompt", "prompt")
    if isinstance(prompt[0], int):
        return (tuple(prompt),)
    if not all(prompt):
        raise refuse("The decoder prompt cannot be empty")
    return tuple(text if isinstance(text, str) else tuple(text) for text in prompt)
