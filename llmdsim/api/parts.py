"""
Pieces of answers that dialects share: usage, fingerprint, model cards, and a stream's frames.

Frames are cut once a stream from a chunk that its dialect spells once; per token only the text goes between.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import Any

import orjson

from llmdsim.config import Config
from llmdsim.sim.plan import Plan

VLLM_VERSION = "0.33.0"
DONE = b"data: [DONE]\n\n"
KNOWN_TEXTS = 1 << 16  # token texts kept in their JSON form; beyond that the table starts anew

Chunk = Callable[[Plan, int, str], dict[str, Any]]  # the chunk of token i (-1: any but the last) with a text


def dumps(value: Any) -> bytes:
    """JSON without blanks; half a surrogate pair, which has no UTF-8 form, is shown as ``?``."""
    try:
        return orjson.dumps(value)
    except TypeError:  # also integers beyond 64 bits, and what is nested too deep for it
        return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "replace")


class _Escaped(dict[str, bytes]):
    """Token texts as JSON strings: a vocabulary is small, so nearly every token is a look-up."""

    def __missing__(self, text: str) -> bytes:
        if len(self) >= KNOWN_TEXTS:
            self.clear()
        value = self[text] = dumps(text)
        return value


escaped = _Escaped()
_MARK = "\ufffftext\uffff"
_MARK_BYTES = dumps(_MARK)


def frame(chunk: dict[str, Any]) -> bytes:
    """One server-sent event."""
    return b"data: %b\n\n" % dumps(chunk)


class Frames:
    """
    The token frames of one stream that differ in their text only: each is cut once and filled per token.

    ``chunk`` spells the chunk of token ``i`` with a text.
    """

    def __init__(self, chunk: Chunk) -> None:
        self._chunk = chunk
        self._cut: dict[int, tuple[bytes, bytes]] = {}

    def __call__(self, plan: Plan, start: int, stop: int) -> bytes:
        """The frames of tokens ``start`` to ``stop``, the last token's among them if it is there."""
        last = len(plan.texts) - 1
        before, after = self._cut.get(plan.index) or self._open(plan)
        if stop <= last:
            if stop - start == 1:
                return before + escaped[plan.texts[start]] + after
            return b"".join([before + escaped[text] + after for text in plan.texts[start:stop]])
        head = [before + escaped[text] + after for text in plan.texts[start:last]]
        return b"".join([*head, frame(self._chunk(plan, last, plan.texts[last]))])

    def _open(self, plan: Plan) -> tuple[bytes, bytes]:
        before, after = frame(self._chunk(plan, -1, _MARK)).rsplit(_MARK_BYTES, 1)
        self._cut[plan.index] = before, after
        return before, after


def spans(start: int, stop: int, size: int, interval: int) -> list[tuple[int, int]]:
    """
    The token ranges that have a chunk each, among those that end in ``start`` to ``stop`` of ``size`` tokens.

    vLLM's ``stream_interval``: the first token alone, then ``interval`` tokens a chunk, the rest with the last.
    """
    ends = [end for end in range(start + 1, stop + 1) if end == 1 or end == size or (end - 1) % interval == 0]
    return [(end - interval if end > 1 else 0, end) for end in ends if end != size or interval == 1] + (
        [_last_span(size, interval)] if size in ends and interval > 1 else []
    )


def _last_span(size: int, interval: int) -> tuple[int, int]:
    """What the last chunk carries: the tokens since the last full interval."""
    return (0, 1) if size == 1 else (1 + (size - 2) // interval * interval, size)


def usage(prompt_tokens: int, completion_tokens: int) -> dict[str, Any]:
    """Usage counts in vLLM's order."""
    return {
        "prompt_tokens": prompt_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
        "completion_tokens": completion_tokens,
    }


def usage_of(plans: Sequence[Plan]) -> dict[str, Any]:
    """Usage of a whole request: each prompt counts once, every sequence's tokens count."""
    n = plans[0].request.n
    prompt_tokens = sum(plan.prompt_tokens for plan in plans[::n])
    return usage(prompt_tokens, sum(len(plan.ids) for plan in plans))


def fingerprint(config: Config) -> str | None:
    """``system_fingerprint``: the version, the parallel sizes above one, and a digest of the model and its flags."""
    mode = config.fingerprint_mode
    if mode == "none":
        return None
    if mode == "custom":
        return config.fingerprint_value
    digest = blake2b(f"{config.model}|{config.max_model_len}|{config.seed}".encode(), digest_size=4).hexdigest()
    if mode == "hash":
        return digest
    sizes = {"tp": config.tensor_parallel_size, "pp": config.pipeline_parallel_size, "dp": config.data_parallel_size}
    parallel = "".join(f"{name}{size}-" for name, size in sizes.items() if size > 1)
    return f"vllm-{VLLM_VERSION}-{parallel}{digest}"
