"""
Rendering: a chat or completion body as the tokens and sampling parameters that ``/inference/v1/generate`` takes.

And the way back, from its answer to the plans of a chat or completion. Reading prompts is the rank's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs

from llmdsim.api.invalid import Error, invalid
from llmdsim.api.sampling import GREEDY, given, refuse
from llmdsim.api.scalars import anything, integer, text
from llmdsim.api.shapes import listing, no_model, optional, record
from llmdsim.config import Config
from llmdsim.faults import bad_value
from llmdsim.sim.media import features, media
from llmdsim.sim.plan import Plan
from llmdsim.sim.request import Model, Prompt, Request, Tokens

Decode = Callable[[Sequence[int]], str]
DELTA, FINAL_ONLY = 1, 2  # vLLM's output kinds
STREAM_OPTIONS = ("include_usage", "continuous_usage_stats")
TRANSFERS = ("kv_transfer_params", "ec_transfer_params")
TEMPLATE_DEFAULTS = {"cohere_format": "cmd4"}
NO_CHAT = (
    "chat_request is required when a tool or reasoning parser is configured because plain detokenization would leak "
    "raw parser markup into content."
)
LORA = "The model `{}` is a LoRA adapter and is not supported by the render endpoints."

# vLLM's SamplingParams in their order: name, default, and whether vLLM shows the default too.
_FIELDS: tuple[tuple[str, Any, bool], ...] = (
    ("n", 1, False),
    ("presence_penalty", 0.0, True),
    ("frequency_penalty", 0.0, True),
    ("repetition_penalty", 1.0, True),
    ("temperature", 1.0, True),
    ("top_p", 1.0, True),
    ("top_k", 0, False),
    ("min_p", 0.0, True),
    ("seed", None, False),
    ("stop", [], True),
    ("stop_token_ids", [], True),
    ("ignore_eos", False, False),
    ("max_tokens", 16, False),
    ("min_tokens", 0, False),
    ("logprobs", None, False),
    ("prompt_logprobs", None, False),
    ("logprob_token_ids", None, False),
    ("skip_special_tokens", True, False),
    ("spaces_between_special_tokens", True, False),
    ("include_stop_str_in_output", False, False),
    ("output_kind", FINAL_ONLY, True),
    ("stream_interval", None, False),
    ("skip_clone", True, True),
    ("output_text_buffer_length", 0, False),
    ("structured_outputs", None, False),
    ("logit_bias", None, False),
    ("allowed_token_ids", None, False),
    ("extra_args", None, False),
    ("bad_words", [], True),
    ("skip_reading_prefix_cache", False, True),
    ("repetition_detection", None, False),
)


def check_base(model: Model) -> None:
    """Raise Fault for an adapter: rendering is for the base model."""
    if model.adapter is not None:
        raise refuse(LORA.format(model.adapter))


def chat(config: Config, body: Mapping[str, Any], request: Request, tokens: Tokens) -> dict[str, Any]:
    """A chat as a generate request; ``tokens`` are its prompt's."""
    payload = given(body, "mm_payload", "tensors") != "none"
    alternatives = given(body, "top_logprobs", 0) if body.get("logprobs") else None
    changes = {"logprobs": alternatives, "skip_special_tokens": _skips_special(config, body)}
    template = _template(config, body)
    thinks = bool(config.reasoning_parser)
    return _generate_request(body, request, tokens) | {
        "token_offsets": _offsets(body, "".join(tokens.texts), tokens),
        "features": features(media(body["messages"]), len(tokens.ids), payload),
        "sampling_params": sampling_params(body, _limit(config, request, tokens), changes),
        "reasoning_ended": False if thinks else None,
        "reasoning_parser_kwargs": {"chat_template_kwargs": template} if thinks else None,
        "parse_context": _parse_context(body, template),
    }


def completion(
    config: Config, body: Mapping[str, Any], request: Request, prompt: Prompt, tokens: Tokens
) -> dict[str, Any]:
    """One prompt of a completion as a generate request."""
    written = prompt if isinstance(prompt, str) else ""
    changes = {"skip_special_tokens": given(body, "skip_special_tokens", True)}
    return _generate_request(body, request, tokens) | {
        "token_offsets": _offsets(body, written, tokens),
        "sampling_params": sampling_params(body, _limit(config, request, tokens), changes),
    }


def sampling_params(body: Mapping[str, Any], limit: int, changes: Mapping[str, Any]) -> dict[str, Any]:
    """The sampling fields of a body as vLLM writes its SamplingParams; ``changes`` win over the body's own."""
    own = {name: _as(default, body[name]) for name, default, _ in _FIELDS if body.get(name) is not None}
    strings = given(body, "stop", [])
    stop = [strings] if isinstance(strings, str) else list(strings)
    held = 0 if own.get("include_stop_str_in_output") else max(map(len, stop), default=1) - 1
    values = own | {
        "max_tokens": limit,
        "stop": stop,
        "output_kind": DELTA if body.get("stream") else FINAL_ONLY,
        "output_text_buffer_length": held,
        "extra_args": _extra(body),
        "skip_reading_prefix_cache": own.get("prompt_logprobs") is not None,
    }
    if values.get("temperature", 1.0) < GREEDY:
        values |= {"temperature": 0.0, "top_p": 1.0, "top_k": 0, "min_p": 0.0}
    values |= changes
    shown = ((name, values.get(name, default), default, always) for name, default, always in _FIELDS)
    return {name: value for name, value, default, always in shown if always or value != default}


def _as(default: Any, value: Any) -> Any:
    return float(value) if isinstance(default, float) else value


def _extra(body: Mapping[str, Any]) -> dict[str, Any] | None:
    """What vLLM hands to an engine beside its own sampling fields."""
    transfers = {name: body[name] for name in TRANSFERS if body.get(name) is not None}
    return {**given(body, "vllm_xargs", {}), **transfers} or None


def _generate_request(body: Mapping[str, Any], request: Request, tokens: Tokens) -> dict[str, Any]:
    """A generate request with all fields in vLLM's order, those that its kinds differ in still empty."""
    return {
        "request_id": request.id,
        "token_ids": tokens.ids,
        "token_offsets": None,
        "features": None,
        "content_parts": None,
        "sampling_params": None,
        "model": request.model.name,
        "reasoning_ended": None,
        "reasoning_parser_kwargs": None,
        "return_token_ids": body.get("return_token_ids"),
        "output_mode": "tokens",
        "parse_context": None,
        "stream": request.stream,
        "stream_options": _stream_options(body),
        "cache_salt": body.get("cache_salt"),
        "priority": request.priority,
        "kv_transfer_params": body.get("kv_transfer_params"),
        "ec_transfer_params": body.get("ec_transfer_params"),
    }


def _stream_options(body: Mapping[str, Any]) -> dict[str, Any] | None:
    options = body.get("stream_options")
    return None if options is None else {name: given(options, name, False) for name in STREAM_OPTIONS}


def _limit(config: Config, request: Request, tokens: Tokens) -> int:
    """The most tokens that may be generated: more than fits beside the prompt is cut."""
    room = config.max_model_len - len(tokens.ids)
    if room < 1:
        raise bad_value(f"max_tokens must be at least 1, got {room}.", "max_tokens", room)
    return room if request.max_tokens is None else min(request.max_tokens, room)


def _skips_special(config: Config, body: Mapping[str, Any]) -> bool:
    """Whether detokenizing leaves special tokens out: parsers look for theirs."""
    calls = config.tool_call_parser and body.get("tools") and body.get("tool_choice") != "none"
    return not (config.reasoning_parser or calls) and given(body, "skip_special_tokens", True)


def _template(config: Config, body: Mapping[str, Any]) -> dict[str, Any]:
    """What a chat template may read, as vLLM passes it on to its parsers."""
    named = {name: body[name] for name in ("documents", "reasoning_effort") if body.get(name) is not None}
    return {
        **TEMPLATE_DEFAULTS,
        **(config.default_chat_template_kwargs or {}),
        **given(body, "chat_template_kwargs", {}),
        "add_generation_prompt": given(body, "add_generation_prompt", True),
        "continue_final_message": given(body, "continue_final_message", False),
        **named,
    }


def _parse_context(body: Mapping[str, Any], template: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "tools": body.get("tools"),
        "tool_choice": given(body, "tool_choice", "auto" if body.get("tools") else "none"),
        "parallel_tool_calls": given(body, "parallel_tool_calls", True),
        "include_reasoning": given(body, "include_reasoning", True),
        "chat_template_kwargs": template,
        "history_tool_call_cnt": 0,
    }


def _offsets(body: Mapping[str, Any], whole: str, tokens: Tokens) -> list[list[int]] | None:
    """Where each token begins and ends in the text, where that is asked for; a special token takes no room in it."""
    if not body.get("return_token_offsets") or not tokens.texts:
        return None
    offsets: list[list[int]] = []
    at = 0
    for piece in tokens.texts:
        end = at + len(piece) if whole.startswith(piece, at) else at
        offsets.append([at, end])
        at = end
    return offsets


def check_answer(body: object) -> dict[str, Any]:
    """The body of a derender request with its types right; ``generate_response`` becomes a list. Raises Fault."""
    if isinstance(body, dict) and isinstance(body.get("generate_response"), dict):
        body = {**body, "generate_response": [body["generate_response"]]}
    errors: list[Error] = []
    checked: dict[str, Any] = _DERENDER(body, ("body",), errors)
    if errors:
        raise invalid(errors)
    return checked


def check_parsers(config: Config, body: Mapping[str, Any]) -> None:
    """Raise Fault where a parser would have to see the chat that was asked, and it is not there."""
    if body.get("chat_request") is None and (config.tool_call_parser or config.reasoning_parser):
        raise refuse(NO_CHAT)


def answered(request: Request, body: Mapping[str, Any], decode: Decode, eos: int) -> list[Plan]:
    """What was generated, as the plans of ``request``; ``decode`` makes text of ids, without the end token ``eos``."""
    choices = [choice for answer in body["generate_response"] for choice in answer["choices"]]
    asked = attrs.evolve(request, n=len(choices), stream=False, echo=False, logprobs=None, prompt_logprobs=None)
    prompt = Tokens(given(body, "prompt_token_ids", ()), ())
    return [_plan(asked, i, prompt, choice, decode, eos) for i, choice in enumerate(choices)]


def _plan(request: Request, index: int, prompt: Tokens, choice: Mapping[str, Any], decode: Decode, eos: int) -> Plan:
    ids = choice["token_ids"]
    said = decode([id for id in ids if id != eos])
    texts = [said, *[""] * (len(ids) - 1)]  # no need to know which token adds what: the answer is whole
    return Plan(request, index, prompt, texts, ids, given(choice, "finish_reason", "stop"), choice.get("stop_reason"))


_CHOICE = record(
    {"index": integer, "token_ids": listing(integer), "finish_reason": optional(text), "stop_reason": anything},
    frozenset(("index", "token_ids")),
    no_model,
    False,
)
_ANSWER = record({"request_id": text, "choices": listing(_CHOICE, 1)}, frozenset(("choices",)), no_model, False)
_DERENDER = record(
    {
        "generate_response": listing(_ANSWER, 1),
        "prompt_token_ids": optional(listing(integer)),
        "model": optional(text),
    },
    frozenset(("generate_response",)),
    no_model,
    False,
)
