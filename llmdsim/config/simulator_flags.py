"""The table of flags, first part: what a simulator has, and vLLM's flags that it had before llmdsim."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from llmdsim.config.flags import (
    ADAPTERS,
    DURATION,
    FAILURES,
    FAKE_METRICS,
    JSON_TEXT,
    MODEL_LENGTH,
    NAMES,
    OPTIONAL_INTEGER,
    flag,
)
from llmdsim.config.values import DEFAULT_MODEL_LENGTH, Adapter

_GENERAL = "General"
_LATENCY = "Latency"
_TOOLS = "Tool calls"
_CACHE = "KV cache and events"
_FAIL = "Failure injection"
_RANKS = "Data parallel"
_DATA = "Dataset"
_TOKENS = "Tokenizer and embeddings"
_TLS = "TLS"
_FAKE = "Fake metrics"
_NOTHING = "Accepted without effect"


@attrs.frozen
class SimulatorFlags:
    """Attributes named as the flags, durations in seconds."""

    config: str = flag("", _GENERAL, "YAML file; its keys are the names of the flags")
    port: int = flag(8000, _GENERAL, "HTTP port; rank r listens on port + r")
    max_request_body_size_mb: int = flag(4, _GENERAL, "largest request body in MiB, 1 to 512")
    model: str = flag("", _GENERAL, "the model to simulate; also the first word of the command line", env="SIM_MODEL")
    served_model_name: tuple[str, ...] = flag((), _GENERAL, "names clients may use; the first is shown", kind=NAMES)
    lora_modules: tuple[Adapter, ...] = flag(
        (), _GENERAL, "LoRA adapters known at start: JSON objects or name=path", kind=ADAPTERS
    )
    max_loras: int = flag(1, _GENERAL, "adapters that may run at the same time")
    max_cpu_loras: int = flag(0, _GENERAL, "adapters held in memory, at least max-loras; 0: as many as max-loras")
    max_model_len: int = flag(
        DEFAULT_MODEL_LENGTH, _GENERAL, "context window in tokens; auto and -1: the default", kind=MODEL_LENGTH
    )
    max_num_seqs: int = flag(5, _GENERAL, "sequences that may run at the same time")
    max_waiting_queue_length: int = flag(1000, _GENERAL, "requests that may wait; one more is answered 429")
    mode: str = flag("random", _GENERAL, "what to say: random (preset sentences) or echo (the last message)")
    seed: int | None = flag(None, _GENERAL, "seed of all chance; unset: the clock", kind=OPTIONAL_INTEGER)
    startup_duration: float = flag(0.0, _GENERAL, "how long /ready and /health/ready answer 503", kind=DURATION)
    strict: bool = flag(False, _GENERAL, "close every gate that vLLM closes, and check requests as vLLM does")
    enable_sleep_mode: bool = flag(False, _GENERAL, "let /sleep free the KV cache")
    enable_request_id_headers: bool = flag(False, _GENERAL, "send X-Request-Id back")
    log_http: bool = flag(False, _GENERAL, "log each request and its answer", later=True)
    mm_encoder_only: bool = flag(False, _GENERAL, "run only the encoder of a multimodal model", later=True)
    omni: bool = flag(False, _GENERAL, "answer chats with images too", later=True)
    reasoning_share: float = flag(
        0.5, _GENERAL, "share of an answer that is reasoning, with --reasoning-parser, 0 to 1"
    )
    image_emission_rate: int = flag(
        0, _GENERAL, "percentage of omni answers that carry an image", live=True, later=True
    )

    latency_calculator: str = flag("", _LATENCY, "constant, per-token, or empty: by what is set", live=True)
    latency_distribution: str = flag("", _LATENCY, "normal, or empty: normal, clamped to 0.3 to 1.7 of the mean")
    time_to_first_token: float = flag(0.0, _LATENCY, "mean time to the first token", kind=DURATION, live=True)
    time_to_first_token_std_dev: float = flag(0.0, _LATENCY, "its standard deviation", kind=DURATION, live=True)
    inter_token_latency: float = flag(0.0, _LATENCY, "mean time between two tokens", kind=DURATION, live=True)
    inter_token_latency_std_dev: float = flag(0.0, _LATENCY, "its standard deviation", kind=DURATION, live=True)
    kv_cache_transfer_latency: float = flag(
        0.0, _LATENCY, "mean time to the first token when the prefill ran elsewhere", kind=DURATION, live=True
    )
    kv_cache_transfer_latency_std_dev: float = flag(0.0, _LATENCY, "its standard deviation", kind=DURATION, live=True)
    time_to_generate_image: float = flag(
        0.0, _LATENCY, "mean time to make one image", kind=DURATION, live=True, later=True
    )
    time_to_generate_image_std_dev: float = flag(
        0.0, _LATENCY, "its standard deviation", kind=DURATION, live=True, later=True
    )
    prefill_overhead: float = flag(0.0, _LATENCY, "constant part of a prefill", kind=DURATION, live=True)
    prefill_time_per_token: float = flag(
        0.0, _LATENCY, "prefill for each prompt token that is not cached", kind=DURATION, live=True
    )
    prefill_time_std_dev: float = flag(0.0, _LATENCY, "standard deviation of a prefill", kind=DURATION, live=True)
    kv_cache_transfer_time_per_token: float = flag(
        0.0, _LATENCY, "transfer for each prompt token when the prefill ran elsewhere", kind=DURATION, live=True
    )
    kv_cache_transfer_time_std_dev: float = flag(
        0.0, _LATENCY, "standard deviation of that transfer", kind=DURATION, live=True
    )
    time_factor_under_load: float = flag(1.0, _LATENCY, "slow-down when every seat is taken, 1.0 or more", live=True)

    max_tool_call_integer_param: int = flag(100, _TOOLS, "largest integer argument")
    min_tool_call_integer_param: int = flag(0, _TOOLS, "smallest integer argument")
    max_tool_call_number_param: float = flag(100.0, _TOOLS, "largest number argument")
    min_tool_call_number_param: float = flag(0.0, _TOOLS, "smallest number argument")
    max_tool_call_array_param_length: int = flag(5, _TOOLS, "longest array argument")
    min_tool_call_array_param_length: int = flag(1, _TOOLS, "shortest array argument")
    tool_call_not_required_param_probability: int = flag(50, _TOOLS, "percentage: an optional argument is given")
    object_tool_call_not_required_field_probability: int = flag(50, _TOOLS, "percentage: an optional field is given")
    tool_call_extra_call_probability: int = flag(45, _TOOLS, "percentage: yet another tool is called")
    skip_tool_validation: bool = flag(False, _TOOLS, "do not check the JSON Schemas of tools", later=True)

    enable_kvcache: bool = flag(False, _CACHE, "simulate the KV cache; needs POD_IP in the environment")
    kv_cache_size: int = flag(1024, _CACHE, "blocks in the KV cache")
    global_cache_hit_threshold: float = flag(
        0.0, _CACHE, "share of a prompt that must be cached, 0 to 1; 0: off", later=True
    )
    block_size: int = flag(16, _CACHE, "tokens in a block: 8, 16, 32, 64 or 128")
    hash_seed: str = flag("", _CACHE, "seed of the block hashes", env="PYTHONHASHSEED")
    zmq_endpoint: str = flag("tcp://127.0.0.1:5557", _CACHE, "where KV events are published; empty: nowhere")
    kv_events_replay_endpoint: str = flag("", _CACHE, "where KV events may be asked for again; empty: nowhere")
    kv_events_replay_queue_size: int = flag(1024, _CACHE, "batches kept to be replayed")
    event_batch_size: int = flag(16, _CACHE, "KV events in a batch")
    use_vllm_map_event_format: bool = flag(False, _CACHE, "events as maps, as vLLM sends them now, not as arrays")

    failure_injection_rate: int = flag(0, _FAIL, "percentage of requests that fail", live=True)
    failure_types: tuple[str, ...] = flag((), _FAIL, "failures to choose from; empty: all", kind=FAILURES, live=True)

    data_parallel_size: int = flag(1, _RANKS, "ranks in this process, 1 to 8, each with its own port")
    data_parallel_rank: int = flag(-1, _RANKS, "be this one rank, 0 to 7; -1: be all of them")

    dataset_path: str = flag("", _DATA, "SQLite file of recorded answers; NAME=PATH,NAME=PATH for several models")
    dataset_url: str = flag("", _DATA, "where to download that file from if it does not exist")
    dataset_in_memory: bool = flag(False, _DATA, "copy the file into memory, which is quicker")
    dataset_table_name: str = flag("llmd", _DATA, "the table that holds the answers")

    render_url: str = flag("http://localhost:8082", _TOKENS, "render service that tokenizes", later=True)
    render_timeout: float = flag(30.0, _TOKENS, "how long to wait for it", kind=DURATION, later=True)
    mm_render_timeout: float = flag(60.0, _TOKENS, "the same for multimodal prompts", kind=DURATION, later=True)
    force_dummy_tokenizer: bool = flag(False, _TOKENS, "use the simulated tokenizer for every model")
    default_embedding_dimensions: int = flag(384, _TOKENS, "length of an embedding when none is asked for")

    ssl_certfile: str = flag("", _TLS, "certificate (PEM); needs ssl-keyfile")
    ssl_keyfile: str = flag("", _TLS, "private key (PEM); needs ssl-certfile")
    self_signed_certs: bool = flag(False, _TLS, "make a certificate at start")

    fake_metrics: Mapping[str, Any] | None = flag(
        None, _FAKE, "report these values instead of what happens", kind=FAKE_METRICS, live=True
    )
    fake_metrics_refresh_interval: float = flag(0.1, _FAKE, "how often functions of time are computed", kind=DURATION)

    mm_processor_kwargs: str = flag("", _NOTHING, "shown in the configuration only", kind=JSON_TEXT)
    ec_transfer_config: str = flag("", _NOTHING, "shown in the configuration only", kind=JSON_TEXT)
    enforce_eager: bool = flag(False, _NOTHING, "shown in the configuration only")
    tensor_parallel_size: int = flag(0, _NOTHING, "shown in the configuration and the fingerprint only")
    v: int = flag(2, "Logging", "how much to log: 1 warnings, 2 information, 4 debugging, 5 everything")
