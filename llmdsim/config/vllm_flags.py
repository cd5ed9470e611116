"""
The table of flags, second part: what vLLM has and a simulator can honour.

What vLLM has besides is in ``ignored``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from llmdsim.config.flags import DOCUMENT, OPTIONAL_INTEGER, SECRETS, flag, one_of
from llmdsim.config.simulator_flags import SimulatorFlags

_DOOR = "vLLM: door"
_ENGINE = "vLLM: engine"
_API = "vLLM: API"
_MODEL = "vLLM: model"
_LOG = "vLLM: logs and metrics"

_ALGORITHMS = one_of("sha256_cbor", "sha256", "xxhash", "xxhash_cbor")
_LEVELS = one_of("critical", "error", "warning", "info", "debug", "trace")
_LORA_RANKS = one_of(1, 8, 16, 32, 64, 128, 256, 320, 512)


@attrs.frozen
class VllmFlags(SimulatorFlags):
    """Attributes named as the flags; an empty text or None is what vLLM calls None."""

    host: str = flag("", _DOOR, "address to listen on; empty: all")
    uds: str = flag("", _DOOR, "Unix socket to listen on instead of a port")
    root_path: str = flag("", _DOOR, "path that a proxy strips before us")
    api_key: tuple[str, ...] = flag((), _DOOR, "keys, one of which clients must send", kind=SECRETS, env="VLLM_API_KEY")
    ssl_ca_certs: str = flag("", _DOOR, "certificate authorities for client certificates", later=True)
    ssl_cert_reqs: int = flag(0, _DOOR, "client certificates: 0 none, 1 optional, 2 required", later=True)
    ssl_ciphers: str = flag("", _DOOR, "TLS ciphers, in OpenSSL's notation", later=True)
    enable_ssl_refresh: bool = flag(False, _DOOR, "read the certificate again when its file changes", later=True)
    allowed_origins: tuple[str, ...] = flag((), _DOOR, "origins for CORS")
    allowed_methods: tuple[str, ...] = flag(("*",), _DOOR, "methods for CORS")
    allowed_headers: tuple[str, ...] = flag(("*",), _DOOR, "headers for CORS")
    allow_credentials: bool = flag(False, _DOOR, "credentials for CORS")
    disable_fastapi_docs: bool = flag(False, _DOOR, "no /docs, /redoc and /openapi.json")
    h11_max_incomplete_event_size: int = flag(4194304, _DOOR, "most bytes of a request's head")
    h11_max_header_count: int = flag(256, _DOOR, "most headers of a request")
    shutdown_timeout: int = flag(30, _DOOR, "seconds that open requests may go on after a signal")

    max_num_queued_reqs: int | None = flag(
        None, _ENGINE, "requests that may be in the house; one more is answered 503", kind=OPTIONAL_INTEGER
    )
    max_num_queued_tokens: int | None = flag(
        None, _ENGINE, "prompt tokens that may be in the house; more are answered 503", kind=OPTIONAL_INTEGER
    )
    max_num_batched_tokens: int | None = flag(None, _ENGINE, "tokens in one step", kind=OPTIONAL_INTEGER, later=True)
    num_gpu_blocks_override: int | None = flag(
        None, _ENGINE, "blocks in the KV cache; beats kv-cache-size", kind=OPTIONAL_INTEGER
    )
    enable_prefix_caching: bool = flag(True, _ENGINE, "find prompts again in the KV cache")
    prefix_caching_hash_algo: str = flag("sha256_cbor", _ENGINE, "how blocks are hashed", kind=_ALGORITHMS)
    scheduling_policy: str = flag("fcfs", _ENGINE, "who may go next", kind=one_of("fcfs", "priority"))
    enable_lora: bool = flag(False, _ENGINE, "serve LoRA adapters; without --strict they are served anyway")
    max_lora_rank: int = flag(16, _ENGINE, "largest rank of an adapter", kind=_LORA_RANKS)
    pipeline_parallel_size: int = flag(1, _ENGINE, "shown in the fingerprint only")
    kv_events_config: Mapping[str, Any] | None = flag(
        None, _ENGINE, "publish KV events as vLLM does: endpoint, topic, ...", kind=DOCUMENT
    )
    kv_transfer_config: Mapping[str, Any] | None = flag(
        None, _ENGINE, "the connector between prefill and decode", kind=DOCUMENT
    )
    stream_interval: int = flag(1, _ENGINE, "tokens in one streamed chunk")

    enable_auto_tool_choice: bool = flag(False, _API, "let the model choose tools")
    tool_call_parser: str = flag("", _API, "needed for that; any name is taken")
    reasoning_parser: str = flag("", _API, "let the model think aloud; any name is taken")
    chat_template: str = flag("", _API, "file or text of a Jinja template")
    chat_template_content_format: str = flag(
        "auto", _API, "what templates receive", kind=one_of("auto", "openai", "string"), later=True
    )
    default_chat_template_kwargs: Mapping[str, Any] | None = flag(
        None, _API, "variables for the chat template", kind=DOCUMENT
    )
    trust_request_chat_template: bool = flag(False, _API, "let requests bring a chat template")
    response_role: str = flag("assistant", _API, "role of an answer")
    enable_prompt_tokens_details: bool = flag(False, _API, "tell in the usage how many tokens were cached")
    enable_per_request_metrics: bool = flag(False, _API, "tell timings in each answer")
    enable_force_include_usage: bool = flag(False, _API, "every stream ends with its usage")
    enable_server_load_tracking: bool = flag(False, _API, "let /load count")
    enable_tokenizer_info_endpoint: bool = flag(False, _API, "open /tokenizer_info")
    enable_scale_out: bool = flag(False, _API, "open the render and token endpoints")
    tokens_only: bool = flag(False, _API, "only tokens in and tokens out")
    max_logprobs: int = flag(20, _API, "most logprobs of one token; -1: no limit")
    return_tokens_as_token_ids: bool = flag(False, _API, "show tokens as token_id:N in logprobs")
    sse_keep_alive_interval: int = flag(0, _API, "seconds between comments in a silent stream; 0: none", later=True)
    fingerprint_mode: str = flag(
        "full", _API, "what system_fingerprint tells", kind=one_of("full", "hash", "custom", "none")
    )
    fingerprint_value: str = flag("", _API, "the fingerprint when that is custom")

    tokenizer: str = flag("", _MODEL, "directory or name of the tokenizer; empty: that of the model")
    runner: str = flag(
        "auto", _MODEL, "generate or pooling (embeddings)", kind=one_of("auto", "draft", "generate", "pooling")
    )
    task: str = flag("", _MODEL, "the older name of runner; embed, score, ...: pooling")
    generation_config: str = flag("auto", _MODEL, "auto, vllm or a directory", later=True)
    override_generation_config: Mapping[str, Any] | None = flag(
        None, _MODEL, "default sampling parameters", kind=DOCUMENT, later=True
    )

    disable_log_stats: bool = flag(False, _LOG, "no statistics in the log")
    enable_log_requests: bool = flag(False, _LOG, "log the prompt of each request", later=True)
    disable_uvicorn_access_log: bool = flag(False, _LOG, "no access log")
    uvicorn_log_level: str = flag("info", _LOG, "level of the access log", kind=_LEVELS)
