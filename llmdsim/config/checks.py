"""
The rules that a whole configuration must keep, in the order in which they are applied; the first that fails wins.

The texts are the older simulator's; the rules on vLLM's own flags come last.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from llmdsim.config import fake
from llmdsim.config.values import ConfigError
from llmdsim.config.vllm_flags import VllmFlags

MODES = ("random", "echo")
CALCULATORS = ("", "constant", "per-token")
DISTRIBUTIONS = ("", "normal")
BLOCK_SIZES = (8, 16, 32, 64, 128)
FAILURES = ("rate_limit", "invalid_api_key", "context_length", "server_error", "invalid_request", "model_not_found")
LAST_PORT = 65535
_PORT = re.compile(r":(\d+)$")


def check(config: VllmFlags) -> None:
    """Raise ConfigError with the text of the first rule that the configuration breaks."""
    for rules in (_identity, _latency, _limits, _loras, _tools, _cache, _failures, _fake, _ranks, _files, _rest):
        for broken, text in rules(config):
            if broken:
                raise ConfigError(text)


Rules = Iterator[tuple[bool, str]]


def _identity(config: VllmFlags) -> Rules:
    yield not config.model, "model parameter is empty"
    yield config.mode not in MODES, f"invalid mode '{config.mode}', valid values are 'random' and 'echo'"
    yield not 0 < config.port <= LAST_PORT, f"invalid port '{config.port}'"


def _latency(config: VllmFlags) -> Rules:
    # A standard deviation may be any share of its mean: samples are clamped, see --latency-distribution.
    for value, name in (
        (config.inter_token_latency, "inter token latency"),
        (config.inter_token_latency_std_dev, "inter token latency standard deviation"),
        (config.time_to_first_token, "time to first token"),
        (config.time_to_first_token_std_dev, "time to first token standard deviation"),
        (config.time_to_generate_image, "time to generate image"),
        (config.time_to_generate_image_std_dev, "time to generate image standard deviation"),
        (config.prefill_overhead, "prefill overhead"),
        (config.prefill_time_per_token, "prefill time per token"),
        (config.prefill_time_std_dev, "prefill time standard deviation"),
        (config.kv_cache_transfer_time_per_token, "kv-cache transfer time per token"),
        (config.kv_cache_transfer_time_std_dev, "kv-cache transfer time standard deviation"),
        (config.kv_cache_transfer_latency, "kv-cache transfer time"),
        (config.kv_cache_transfer_latency_std_dev, "kv-cache transfer time standard deviation"),
    ):
        yield value < 0, f"{name} cannot be negative"
    yield config.time_factor_under_load < 1, "time factor under load cannot be less than 1.0"


def _limits(config: VllmFlags) -> Rules:
    yield config.max_loras < 1, "max LoRAs cannot be less than 1"
    yield config.max_cpu_loras < config.max_loras, "max CPU LoRAs cannot be less than max LoRAs"
    yield config.max_model_len < 1, "max model len cannot be less than 1"
    yield config.max_num_seqs < 1, "max num seqs cannot be less than 1"
    yield config.max_waiting_queue_length < 0, "max waiting queue size cannot be less than 0"


def _loras(config: VllmFlags) -> Rules:
    for lora in config.lora_modules:
        yield not lora.name, "empty LoRA name"
        base = lora.base_model_name
        yield (
            base not in ("", config.model, *config.served_model_name),
            f"unknown base model '{base}' for LoRA '{lora.name}'",
        )


def _tools(config: VllmFlags) -> Rules:
    for least, most, name in (
        (config.min_tool_call_integer_param, config.max_tool_call_integer_param, "IntegerParam"),
        (config.min_tool_call_number_param, config.max_tool_call_number_param, "NumberParam"),
        (config.min_tool_call_array_param_length, config.max_tool_call_array_param_length, "ArrayParamLength"),
    ):
        yield most < least, f"MaxToolCall{name} cannot be less than MinToolCall{name}"
    yield config.min_tool_call_array_param_length < 0, "MinToolCallArrayParamLength cannot be negative"
    for percent, name in (
        (config.tool_call_not_required_param_probability, "ToolCallNotRequiredParamProbability"),
        (config.object_tool_call_not_required_field_probability, "ObjectToolCallNotRequiredParamProbability"),
        (config.tool_call_extra_call_probability, "ToolCallExtraCallProbability"),
    ):
        yield not 0 <= percent <= 100, f"{name} should be between 0 and 100"


def _cache(config: VllmFlags) -> Rules:
    sizes = ", ".join(map(str, BLOCK_SIZES))
    yield config.block_size not in BLOCK_SIZES, f"token block size should be one of the following: {sizes}"
    yield config.kv_cache_size < 0, "KV cache size cannot be negative"
    yield config.event_batch_size < 1, "event batch size cannot less than 1"
    replays = bool(config.kv_events_replay_endpoint)
    yield replays and config.kv_events_replay_queue_size < 1, "kv-events-replay-queue-size cannot be less than 1"


def _failures(config: VllmFlags) -> Rules:
    yield not 0 <= config.failure_injection_rate <= 100, "failure injection rate should be between 0 and 100"
    yield not 0 <= config.image_emission_rate <= 100, "image emission rate should be between 0 and 100"
    for kind in config.failure_types:
        yield kind not in FAILURES, f"invalid failure type '{kind}', valid types are: {', '.join(FAILURES)}"


def _fake(config: VllmFlags) -> Rules:
    if config.fake_metrics is not None:
        fake.check(config.fake_metrics)
        yield config.fake_metrics_refresh_interval <= 0, "fake metrics refresh interval must be positive"


def _ranks(config: VllmFlags) -> Rules:
    size, zmq, replay = config.data_parallel_size, config.zmq_endpoint, config.kv_events_replay_endpoint
    yield not 1 <= size <= 8, "data parallel size must be between 1 and 8"
    yield config.data_parallel_rank > 7, "data parallel rank must be between 0 and 7"
    collide = f"zmq-endpoint ({zmq}) and kv-events-replay-endpoint ({replay}) ports collide"
    yield _overlap(zmq, replay, size), f"{collide} once offset by data-parallel rank"
    last = config.port if config.data_parallel_rank >= 0 else config.port + size - 1
    yield last > LAST_PORT, f"invalid port '{last}'"


def _overlap(one: str, other: str, size: int) -> bool:
    ports = [_PORT.search(one), _PORT.search(other)]
    first, second = (int(port[1]) if port else None for port in ports)
    return first is not None and second is not None and abs(first - second) < size


def _files(config: VllmFlags) -> Rules:
    certificate, key = bool(config.ssl_certfile), bool(config.ssl_keyfile)
    yield certificate != key, "both ssl-certfile and ssl-keyfile must be provided together"
    both = config.self_signed_certs and (certificate or key)
    yield both, "cannot use both self-signed-certs and explicit ssl-certfile/ssl-keyfile"
    yield bool(config.dataset_url) and not config.dataset_path, "dataset-path is required when dataset-url is set"
    yield config.mode == "echo" and bool(config.dataset_path), "dataset cannot be defined in echo mode"


def _rest(config: VllmFlags) -> Rules:
    calculator, distribution = config.latency_calculator, config.latency_distribution
    known = "supported calculators are: constant and per-token"
    yield calculator not in CALCULATORS, f"unknown latency-calculator {calculator}, {known}"
    threshold = config.global_cache_hit_threshold
    yield not 0 <= threshold <= 1, "global cache hit threshold must be between in range [0, 1]"
    yield config.default_embedding_dimensions < 1, "default embedding dimensions must be at least 1"
    limit = config.max_request_body_size_mb
    yield not 1 <= limit <= 512, f"max-request-body-size-mb must be between 1 MB and 512 MB, got {limit}"
    yield distribution not in DISTRIBUTIONS, f"unknown latency-distribution {distribution}, supported is: normal"
    for queued, name in (
        (config.max_num_queued_reqs, "max-num-queued-reqs"),
        (config.max_num_queued_tokens, "max-num-queued-tokens"),
    ):
        yield queued is not None and queued < 0, f"{name} cannot be negative"
    yield not 0 <= config.reasoning_share <= 1, "reasoning-share must be between 0 and 1"
    yield config.stream_interval < 1, "stream-interval must be at least 1"
