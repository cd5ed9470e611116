"""
``/inference/v1/generate``: token ids in, token ids out.

Media features and the parameters of encoder transfers are accepted; a simulated engine has no use for them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from llmdsim.api import schema
from llmdsim.api.dialect import error
from llmdsim.api.logprobs import prompt_logprobs, value
from llmdsim.api.openai import timings
from llmdsim.api.parts import DONE, dumps, escaped, frame, spans, usage, usage_of
from llmdsim.api.sampling import check_sampling, check_stream_options, given, refuse, request_fields
from llmdsim.config import Config
from llmdsim.faults import Fault, bad_value
from llmdsim.sim.plan import Plan
from llmdsim.sim.request import Model, Request

SAMPLED = (
    "n",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "seed",
    "stop",
    "stop_token_ids",
    "ignore_eos",
    "max_tokens",
    "min_tokens",
    "logprobs",
    "prompt_logprobs",
    "include_stop_str_in_output",
    "stream_interval",
)
ASKED = ("stream", "stream_options", "priority", "return_token_ids", "ignore_eos")
_ID, _TEXT = "\uffffid\uffff", "\uffff\uffff"  # where a chunk's token goes
_ID_BYTES, _TEXT_BYTES = dumps(_ID), dumps(_TEXT)


@attrs.frozen(slots=True)
class TokenRequest(Request):
    """A request for tokens; any other ``output_mode`` than ``tokens`` shows their text besides."""

    output_mode: str = "tokens"


class Generate:
    """vLLM's dialect of tokens in and tokens out."""

    prefix = "generate-tokens-"

    def __init__(self, config: Config) -> None:
        self.config = config

    def check(self, body: object) -> dict[str, Any]:
        """The body with its types right. Raises Fault, also for fields that contradict each other."""
        check_stream_options(body)
        return schema.check("GenerateRequest", body)

    def parse(self, body: dict[str, Any], id: str, model: Model) -> TokenRequest:
        """The question that a checked body asks. Raises Fault for more tokens than the context window has."""
        config, sampling = self.config, body["sampling_params"]
        question = _question(body, sampling)
        check_sampling(question, config)
        _check_window(len(body["token_ids"]), config.max_model_len)
        fields = request_fields(question, config) | {
            name: _alternatives(question, name, config.max_logprobs) for name in ("logprobs", "prompt_logprobs")
        }
        limit = question.get("max_tokens")
        return TokenRequest(
            id=self.prefix + id,
            bare_id=id,
            model=model,
            prompts=(tuple(body["token_ids"]),),
            max_tokens=None if limit is None else min(limit, config.max_model_len),
            output_mode=given(body, "output_mode", "tokens"),
            **fields,
        )

    def refusal(self, fault: Fault) -> dict[str, Any]:
        """A refusal before anything was answered."""
        return error(fault)

    def writer(self, request: Request, created: int) -> GenerateWriter:
        """What answers one request; ``created`` is Unix time in seconds."""
        return GenerateWriter(self.config, request, created)


class GenerateWriter:
    """Chunks and whole answers of one request for tokens."""

    def __init__(self, config: Config, request: Request, created: int) -> None:
        self._config, self._request, self._created = config, request, created
        self._mode = request.output_mode if isinstance(request, TokenRequest) else "tokens"
        self._shows_text = self._mode != "tokens"
        self._interval = max(request.stream_interval, 1)
        self._varies = request.continuous_usage or request.logprobs is not None or self._interval > 1
        self._cut: dict[int, tuple[bytes, bytes, bytes]] = {}

    def opening(self, plan: Plan) -> bytes:
        """What precedes the first token of all: nothing."""
        return b""

    def chunks(self, plan: Plan, start: int, stop: int) -> bytes:
        """The frames of tokens ``start`` to ``stop``, the last token's among them if it is there."""
        size = len(plan.texts)
        if self._varies:
            return b"".join([self._full(plan, *span) for span in spans(start, stop, size, self._interval)])
        if stop < size:
            return self._plain(plan, start, stop)
        return self._plain(plan, start, size - 1) + self._full(plan, size - 1, size)

    def closing(self, plans: Sequence[Plan]) -> bytes:
        """The usage chunk, where it was asked for, and the end mark."""
        if not self._request.include_usage:
            return DONE
        return frame(self._chunk(self._usage(usage_of(plans), plans[0]), [])) + DONE

    def fault(self, fault: Fault) -> bytes:
        """An error in mid-stream, and the end mark."""
        return frame(error(fault)) + DONE

    def whole(self, plans: Sequence[Plan]) -> bytes:
        """The answer of a request that does not stream."""
        request, prompt = self._request, plans[0].prompt
        wanted = request.prompt_logprobs
        return dumps(
            {
                "request_id": request.id,
                "model": request.model.name,
                "created": self._created,
                "usage": self._usage(usage_of(plans), plans[0]),
                "prompt_logprobs": None if wanted is None else prompt_logprobs(prompt, wanted),
                "prompt_token_id_logprobs": None,
                "prompt_token_ids": prompt.ids if request.return_token_ids else None,
                "mm_placeholders": None,
                "metrics": timings(plans[0]) if self._config.enable_per_request_metrics else None,
                "kv_transfer_params": plans[0].kv_transfer_params,
                "ec_transfer_params": None,
                "output_mode": self._mode,
                "choices": [self._choice(plan) for plan in plans],
            }
        )

    def _choice(self, plan: Plan) -> dict[str, Any]:
        version = {"version": "default", "start": 0, "end": len(plan.ids)}
        return self._entry(plan.index, plan.finish, plan.stop_reason, plan.ids, [version]) | self._said(
            "".join(plan.texts), self._logprobs(plan, 0, len(plan.ids))
        )

    def _plain(self, plan: Plan, start: int, stop: int) -> bytes:
        """Frames of tokens that do not end the sequence, cut once: per token only the id and the text go between."""
        before, between, after = self._cut.get(plan.index) or self._open(plan)
        if not self._shows_text:
            if stop - start == 1:
                return b"%b%d%b" % (before, plan.ids[start], after)
            return b"".join([b"%b%d%b" % (before, id, after) for id in plan.ids[start:stop]])
        spoken = zip(plan.ids[start:stop], plan.texts[start:stop], strict=True)
        return b"".join([b"%b%d%b%b%b" % (before, id, between, escaped[text], after) for id, text in spoken])

    def _open(self, plan: Plan) -> tuple[bytes, bytes, bytes]:
        choice = self._entry(plan.index, None, None, [_ID], None) | self._said(_TEXT, None)
        before, _, rest = frame(self._chunk(None, [choice])).rpartition(_ID_BYTES)
        between, _, after = rest.rpartition(_TEXT_BYTES)
        self._cut[plan.index] = before, between, after
        return before, between, after

    def _full(self, plan: Plan, start: int, stop: int) -> bytes:
        """The frame of tokens ``start`` to ``stop``, spelled in full."""
        last, end = stop == len(plan.texts), min(stop, len(plan.ids))  # an aborted sequence ends without a token
        finish, reason = (plan.finish, plan.stop_reason) if last else (None, None)
        choice = self._entry(plan.index, finish, reason, plan.ids[start:end], None) | self._said(
            "".join(plan.texts[start:stop]), self._logprobs(plan, start, end)
        )
        counted = self._usage(usage(plan.prompt_tokens, end), plan) if self._request.continuous_usage else None
        return frame(self._chunk(counted, [choice]))

    def _chunk(self, counts: dict[str, Any] | None, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {"request_id": self._request.id, "usage": counts, "output_mode": self._mode, "choices": choices}

    def _entry(
        self, index: int, finish: str | None, reason: str | int | None, ids: Sequence[Any], versions: Any
    ) -> dict[str, Any]:
        return {
            "index": index,
            "finish_reason": finish,
            "stop_reason": reason,
            "token_ids": ids,
            "routed_experts": None,
            "sampling_mask": None,
            "weight_versions": versions,
        }

    def _said(self, text: str, logprobs: dict[str, Any] | None) -> dict[str, Any]:
        return {"text": text, "logprobs": logprobs} if self._shows_text else {"logprobs": logprobs}

    def _usage(self, counts: dict[str, Any], plan: Plan) -> dict[str, Any]:
        details = {"cached_tokens": plan.cached_tokens, "created_cache_tokens": None, "multimodal_tokens": None}
        shown = details if self._config.enable_prompt_tokens_details else None
        return counts | {"prompt_tokens_details": shown, "completion_tokens_details": None}

    def _logprobs(self, plan: Plan, start: int, stop: int) -> dict[str, Any] | None:
        count = self._request.logprobs
        if count is None:
            return None
        return {"content": [_ranked(plan.ids[i], i, count) for i in range(start, stop)]}


def _ranked(id: int, position: int, count: int) -> dict[str, Any]:
    """A token and its likeliest alternatives, itself the first."""
    top = [{"token_id": id + j, "logprob": value(position, j), "rank": j + 1} for j in range(count)]
    return {"token_id": id, "logprob": value(position, 0), "rank": 1, "top_logprobs": top}


def _question(body: Mapping[str, Any], sampling: Mapping[str, Any]) -> dict[str, Any]:
    """A body as the dialects of text have it: sampling fields beside the others, which win."""
    transfer = given(body, "kv_transfer_params", given(sampling, "extra_args", {}).get("kv_transfer_params"))
    question = {name: sampling[name] for name in SAMPLED if name in sampling}
    question |= {name: body[name] for name in ASKED if body.get(name) is not None}
    return question | {"kv_transfer_params": transfer}


def _check_window(tokens: int, window: int) -> None:
    if tokens > window:
        raise refuse(f"Input length ({tokens}) exceeds model's maximum context length ({window}).")


def _alternatives(question: Mapping[str, Any], name: str, most: int) -> int | None:
    """How many alternatives are wanted; -1 asks for as many as the server gives."""
    count: int | None = question.get(name)
    if count is None:
        return None
    if count < -1:
        raise bad_value(f"{name} must be non-negative or -1, got {count}.", name, count)
    return count if count >= 0 else max(most, 0)
