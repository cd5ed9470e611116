"""
``/v1/completions``: body to Request, Plan to chunks and completions.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from llmdsim.api import schema
from llmdsim.api.dialect import error
from llmdsim.api.forms import constraint
from llmdsim.api.logprobs import prompt_logprobs
from llmdsim.api.openai import OpenAIDialect, OpenAIWriter
from llmdsim.api.parts import DONE, dumps, usage
from llmdsim.api.sampling import (
    alternatives,
    check_cache_salt,
    check_logprobs,
    check_negative,
    check_sampling,
    check_stream_options,
    given,
    prompt_alternatives,
    refuse,
    request_fields,
)
from llmdsim.faults import BAD_REQUEST, Fault, bad_value
from llmdsim.sim.plan import Plan
from llmdsim.sim.request import Form, Model, Prompt, Request

DEFAULT_LIMIT = 16  # tokens, where a completion names none


class Completions(OpenAIDialect):
    """The OpenAI text completion dialect, as vLLM speaks it."""

    prefix = "cmpl-"

    def check(self, body: object) -> dict[str, Any]:
        """The body with its types right. Raises Fault, also for fields that contradict each other."""
        check_stream_options(body)
        if isinstance(body, dict) and not body.get("prompt_embeds") and body.get("prompt") in (None, ""):
            raise bad_value("Either prompt or prompt_embeds must be provided and non-empty.", "prompt")
        if isinstance(body, dict):
            check_logprobs(body)
            check_negative(body, "logprobs")
            check_cache_salt(body)
        return schema.check("CompletionRequest", body)

    def parse(self, body: dict[str, Any], id: str, model: Model) -> Request:
        """The question that a checked body asks."""
        if body.get("suffix") is not None:
            raise Fault(BAD_REQUEST, "suffix is only supported for models with FIM completion rendering", "suffix")
        prompts, echo = _prompts(body.get("prompt")), given(body, "echo", False)
        limit = given(body, "max_tokens", DEFAULT_LIMIT)
        if echo and limit == 0:  # vLLM generates a token all the same, and shows the prompt alone
            body = {**body, "max_tokens": 1}
        check_sampling(body, self.config)
        return Request(
            id=self.prefix + id,
            bare_id=id,
            model=model,
            prompts=prompts,
            max_tokens=max(limit, 1),
            form=Form(constraint=constraint(body)),
            echo=echo,
            prompt_only=limit == 0,
            logprobs=alternatives(body.get("logprobs")),
            prompt_logprobs=prompt_alternatives(body, body.get("logprobs")),
            **request_fields(body, self.config),
        )

    def writer(self, request: Request, created: int) -> CompletionWriter:
        """What answers one request; ``created`` is Unix time in seconds."""
        return CompletionWriter(self, request, created)


class CompletionWriter(OpenAIWriter):
    """Chunks and completions of one text request."""

    whole_object = chunk_object = "text_completion"

    def fault(self, fault: Fault) -> bytes:
        """An error in mid-stream; vLLM spells this one with blanks."""
        return b"data: %b\n\n" % json.dumps(error(fault)).encode() + DONE

    def varies(self) -> bool:
        """Whether chunks differ in more than their text."""
        return self.request.echo or super().varies()

    def whole(self, plans: Sequence[Plan]) -> bytes:
        """The answer of a request that does not stream."""
        answer = self.whole_envelope(plans, [self._choice(plan) for plan in plans])
        return dumps(answer | self.whole_ending(plans))

    def chunk(self, plan: Plan, start: int, stop: int, shown: Any) -> dict[str, Any]:
        """The chunk of some tokens; the last one carries the finish reason, the first an echoed prompt."""
        last = self.is_last(plan, stop)
        choice = {
            "index": plan.index,
            "text": self._before(plan, start) + self._shown(shown),
            "logprobs": self._logprobs(plan, start, stop),
            "finish_reason": plan.finish if last else None,
            "stop_reason": plan.stop_reason if last else None,
            "prompt_token_ids": plan.prompt.ids if self.request.return_token_ids and not start else None,
            "token_ids": self.token_ids(plan, start, stop),
            "weight_versions": None,
        }
        chunk = self.envelope(self.chunk_object, [choice])
        if self.request.continuous_usage:
            chunk["usage"] = usage(plan.prompt_tokens, min(stop, len(plan.ids)))
        return self.sign(chunk, plan, last)

    def _choice(self, plan: Plan) -> dict[str, Any]:
        ids, count = self.request.return_token_ids, self.request.prompt_logprobs
        return {
            "index": plan.index,
            "text": self._before(plan, 0) + self._shown("".join(plan.texts)),
            "logprobs": self._logprobs(plan, 0, len(plan.texts)),
            "finish_reason": plan.finish,
            "stop_reason": plan.stop_reason,
            "token_ids": plan.ids if ids else None,
            "prompt_logprobs": None if count is None else prompt_logprobs(plan.prompt, count),
            "prompt_token_ids": plan.prompt.ids if ids else None,
            "routed_experts": None,
            "weight_versions": None,
        }

    def _before(self, plan: Plan, start: int) -> str:
        return "".join(plan.prompt.texts) if self.request.echo and not start else ""

    def _shown(self, text: str) -> str:
        return "" if self.request.prompt_only else text

    def _logprobs(self, plan: Plan, start: int, stop: int) -> dict[str, Any] | None:
        if self.logprobs is None:
            return None
        stop = min(stop, len(plan.ids))
        if not self.request.echo:
            return self.logprobs.text(plan, start, stop)
        offset = sum(map(len, plan.prompt.texts))
        said = self.logprobs.text(plan, start, start if self.request.prompt_only else stop, offset)
        if start:
            return said
        return {name: values + said[name] for name, values in self.logprobs.echoed(plan.prompt).items()}


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
