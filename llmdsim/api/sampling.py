"""
The sampling fields that chat and completions share: their ranges, with vLLM's refusals, and what the simulation uses.

Bodies have passed their schema, so types are right; a null is an absent field.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmdsim.config import Config
from llmdsim.faults import BAD_REQUEST, Fault, bad_value
from llmdsim.sim.request import Stops
from llmdsim.sim.transfer import Transfer

EVERY = 20  # alternatives that stand for a whole vocabulary
GREEDY = 1e-5  # temperatures below this choose the likeliest token


def refuse(message: str) -> Fault:
    """A refusal that names no parameter."""
    return Fault(BAD_REQUEST, message)


def given(body: Mapping[str, Any], name: str, default: Any) -> Any:
    """A field, or the default where it is absent or null."""
    value = body.get(name)
    return default if value is None else value


def check_stream_options(body: object) -> None:
    """``stream_options`` belongs to streams. Checked before types are, as in vLLM."""
    if isinstance(body, dict) and body.get("stream_options") and not body.get("stream"):
        raise bad_value("Stream options can only be defined when `stream=True`.", "stream_options")


def check_logprobs(body: Mapping[str, Any]) -> None:
    """Fields about log-probabilities must fit each other. Checked before types are, as in vLLM."""
    if body.get("prompt_logprobs") not in (None, 0) and body.get("stream"):
        raise bad_value("`prompt_logprobs` are not available when `stream=True`.", "prompt_logprobs")
    check_negative(body, "prompt_logprobs", " or -1")
    check_negative(body, "top_logprobs", " or -1")
    if body.get("top_logprobs") and not body.get("logprobs"):
        raise bad_value("when using `top_logprobs`, `logprobs` must be set to true.", "top_logprobs")


def check_negative(body: Mapping[str, Any], name: str, every: str = "") -> None:
    """A count of alternatives is none below zero; ``every`` says how the whole vocabulary is asked for, if it can."""
    count = body.get(name)
    if isinstance(count, int) and count < (-1 if every else 0):
        raise bad_value(f"`{name}` must be a positive value{every}.", name, count)


def alternatives(count: int | None) -> int | None:
    """A checked count of alternatives; -1 means all."""
    return EVERY if count == -1 else count


def prompt_alternatives(body: Mapping[str, Any], said: int | None) -> int | None:
    """The alternatives of a prompt's tokens: as many as of those ``said`` where the prompt is repeated."""
    wanted = body.get("prompt_logprobs")
    return alternatives(said if wanted is None and body.get("echo") else wanted)


def check_cache_salt(body: Mapping[str, Any]) -> None:
    """A cache salt that is given must salt. Checked before types are, as in vLLM."""
    salt = body.get("cache_salt")
    if salt is not None and (not isinstance(salt, str) or not salt):
        raise bad_value("Parameter 'cache_salt' must be a non-empty string if provided.", "cache_salt")


def check_sampling(body: Mapping[str, Any], config: Config) -> None:
    """Raise vLLM's refusal of the first sampling field that is out of range."""
    _check_count(given(body, "n", 1), config.max_n)
    for name in ("presence_penalty", "frequency_penalty"):
        value = float(given(body, name, 0.0))
        if not -2 <= value <= 2:
            raise refuse(f"{name} must be in [-2, 2], got {value}.")
    _check_positive(float(given(body, "repetition_penalty", 1.0)))
    _check_temperature(float(given(body, "temperature", 1.0)))
    _check_nucleus(body)
    _check_limits(body)
    _check_stops(body)
    _check_logprob_counts(body, config.max_logprobs)
    if float(given(body, "temperature", 1.0)) < GREEDY and given(body, "n", 1) > 1:
        raise refuse(f"n must be 1 when using greedy sampling, got {body['n']}.")


def stops(body: Mapping[str, Any]) -> Stops:
    """The stop conditions of a body."""
    strings = given(body, "stop", ())
    return Stops(
        strings=(strings,) if isinstance(strings, str) else tuple(strings),
        ids=frozenset(given(body, "stop_token_ids", ())),
        min_tokens=given(body, "min_tokens", 0),
        include=given(body, "include_stop_str_in_output", False),
    )


def request_fields(body: Mapping[str, Any], config: Config) -> dict[str, Any]:
    """The Request's fields that mean the same in chat and completions."""
    options = given(body, "stream_options", {})
    forced = config.enable_force_include_usage
    usage = forced or bool(options.get("include_usage"))
    return {
        "n": given(body, "n", 1),
        "stops": stops(body),
        "ignore_eos": given(body, "ignore_eos", False),
        "seed": body.get("seed"),
        "priority": given(body, "priority", 0),
        "cache_salt": given(body, "cache_salt", ""),
        "return_prompt_text": given(body, "return_prompt_text", False),
        "truncate": body.get("truncate_prompt_tokens"),
        "return_token_ids": given(body, "return_token_ids", False),
        "tokens_as_ids": given(body, "return_tokens_as_token_ids", config.return_tokens_as_token_ids),
        "stream_interval": given(body, "stream_interval", config.stream_interval),
        "transfer": Transfer.read(body.get("kv_transfer_params")),
        "stream": given(body, "stream", False),
        "include_usage": usage,
        "continuous_usage": usage and (forced or bool(options.get("continuous_usage_stats"))),
    }


def _check_count(n: int, max_n: int) -> None:
    if n < 1:
        raise refuse(f"n must be at least 1, got {n}.")
    if n > max_n:
        raise refuse(
            f"n must be at most {max_n}, got {n}. "
            "To increase this limit, set the VLLM_MAX_N_SEQUENCES environment variable."
        )


def _check_positive(repetition_penalty: float) -> None:
    if repetition_penalty <= 0:
        raise refuse(f"repetition_penalty must be greater than zero, got {repetition_penalty}.")


def _check_temperature(value: float) -> None:
    if value < 0:
        raise bad_value(f"temperature must be non-negative, got {value}.", "temperature", value)
    if value > 2:
        raise bad_value(f"temperature must be in [0, 2], got {value}.", "temperature", value)


def _check_nucleus(body: Mapping[str, Any]) -> None:
    top_p, top_k = float(given(body, "top_p", 1.0)), given(body, "top_k", 0)
    if not 0 < top_p <= 1:
        raise bad_value(f"top_p must be in (0, 1], got {top_p}.", "top_p", top_p)
    if top_k < -1:
        raise refuse(f"top_k must be 0 (disable), or at least 1, got {top_k}.")
    min_p = float(given(body, "min_p", 0.0))
    if not 0 <= min_p <= 1:
        raise refuse(f"min_p must be in [0, 1], got {min_p}.")


def _check_limits(body: Mapping[str, Any]) -> None:
    limit = given(body, "max_completion_tokens", body.get("max_tokens"))
    if limit is not None and limit < 1:
        raise bad_value(f"max_tokens must be at least 1, got {limit}.", "max_tokens", limit)
    least = given(body, "min_tokens", 0)
    if least < 0:
        raise refuse(f"min_tokens must be greater than or equal to 0, got {least}.")


def _check_logprob_counts(body: Mapping[str, Any], most: int) -> None:
    wanted = {
        "logprobs": given(body, "top_logprobs", body.get("logprobs")),
        "prompt_logprobs": body.get("prompt_logprobs"),
    }
    for name, count in wanted.items():
        if count is None or isinstance(count, bool) or most < 0:
            continue
        count = most + 1 if count == -1 else count  # the whole vocabulary is more, whatever its size
        if count > most:
            kind = "sample" if name == "logprobs" else "prompt"
            raise bad_value(
                f"Requested {kind} logprobs of {count}, which is greater than max allowed: {most}", name, count
            )


def _check_stops(body: Mapping[str, Any]) -> None:
    strings = given(body, "stop", ())
    if strings == "" or ("" in strings and not isinstance(strings, str)):
        raise refuse("stop cannot contain an empty string.")
