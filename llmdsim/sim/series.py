"""
The table of the families that stand on a rank's page from its start: names, help and bounds of vLLM 0.33, in its order.

OWN are llmdsim's, for the end of the page. Rows are data only: sim.metrics makes the meters from them.
"""

from __future__ import annotations

from itertools import count, takewhile
from typing import NamedTuple

TTFT = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75),
    *(1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0),
)
TOKEN_GAPS = (
    *(0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75),
    *(1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0),
)
REQUEST_TIMES = (
    *(0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0),
    *(30.0, 40.0, 50.0, 60.0, 120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0),
)
STEP_TOKENS = (1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)
PREEMPTIONS = (1, 2, 3, 4, 5, 10, 20)
CHOICES = (1, 2, 5, 10, 20)
UP_TO_CONTEXT: tuple[float, ...] = ()
LAG = (0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)

SLEEP_STATES = ("awake", "weights_offloaded", "discard_all")
FINISHED_REASONS = ("stop", "length", "abort", "error", "repetition")

LORA_INFO = "Running stats on lora requests."
CACHE_INFO = "Information of the LLMEngine CacheConfig"
OLD_CACHE_USAGE = "Deprecated, use vllm:kv_cache_usage_perc. KV-cache usage. 1 means 100 percent usage."
OLD_TOKEN_GAPS = "Deprecated, use vllm:inter_token_latency_seconds. Histogram of time per output token in seconds."

# The labels of vllm:cache_config_info that a simulator has no opinion on.
CACHE_DEFAULTS = {
    "_block_size_resolved": "True",
    "cache_dtype": "auto",
    "cache_hit_alignment_tokens": "None",
    "enable_mamba_shared_prefix_checkpoint": "False",
    "gpu_memory_utilization": "0.92",
    "hash_block_size": "None",
    "is_attention_free": "False",
    "kv_cache_dtype_skip_layers": "[]",
    "kv_cache_layout": "None",
    "kv_cache_memory_bytes": "1073741824",
    "kv_offloading_backend": "native",
    "kv_offloading_size": "None",
    "kv_sharing_fast_prefill": "False",
    "mamba_block_size": "None",
    "mamba_cache_dtype": "auto",
    "mamba_cache_mode": "none",
    "mamba_page_size_padded": "None",
    "mamba_ssm_cache_dtype": "float32",
    "num_cpu_blocks": "None",
    "prefix_cache_retention_interval": "0",
    "prefix_match_unit": "None",
    "replayssm_buffer_len": "16",
    "simple_cpu_offload_num_blocks": "None",
    "skip_page_size_padded": "None",
    "sliding_window": "None",
    "swa_bounded_replay": "True",
    "use_kda_recoverssm": "False",
    "use_replayssm": "False",
    "user_specified_block_size": "True",
}


class Row(NamedTuple):
    """
    One family: ``kind`` is counter, gauge or histogram.

    Its series differ by ``label``, which takes ``values``; without a label there is one series. Each also has
    ``model_name`` and, if ``by_engine``, ``engine``. Bounds ``UP_TO_CONTEXT`` stand for 1, 2, 5, ... max-model-len.
    """

    kind: str
    name: str
    help: str
    label: str = ""
    values: tuple[str, ...] = ("",)
    bounds: tuple[float, ...] = ()
    by_engine: bool = True


def _counter(name: str, help: str) -> Row:
    return Row("counter", name, help)


def _histogram(name: str, bounds: tuple[float, ...], help: str) -> Row:
    return Row("histogram", name, help, bounds=bounds)


def cache_info(
    *,
    block_size: int,
    num_gpu_blocks: int,
    max_model_len: int | None = None,
    enable_prefix_caching: bool = True,
    prefix_caching_hash_algo: str = "sha256",
) -> dict[str, str]:
    """The labels of ``vllm:cache_config_info`` without ``engine``: every CacheConfig field of vLLM 0.33, as str()."""
    tokens = block_size * num_gpu_blocks
    return {
        **CACHE_DEFAULTS,
        "block_size": str(block_size),
        "effective_attention_block_size": str(block_size),
        "enable_prefix_caching": str(enable_prefix_caching),
        "kv_cache_max_concurrency": str(tokens / max_model_len if max_model_len else None),
        "kv_cache_size_tokens": str(tokens),
        "num_gpu_blocks": str(num_gpu_blocks),
        "num_gpu_blocks_override": str(num_gpu_blocks),
        "prefix_caching_hash_algo": prefix_caching_hash_algo,
    }


def one_two_five(limit: int) -> tuple[float, ...]:
    """The series 1, 2, 5, 10, 20, ... up to ``limit``, which belongs to it."""
    steps = (digit * 10**power for power in count() for digit in (1, 2, 5))
    return tuple(takewhile(lambda step: step <= limit, steps))


TABLE = (
    _counter(
        "vllm:estimated_flops_per_gpu_total",
        "Estimated number of floating point operations per GPU (for Model Flops Utilization calculations).",
    ),
    _counter(
        "vllm:estimated_read_bytes_per_gpu_total",
        "Estimated number of bytes read from memory per GPU (for Model Flops Utilization calculations).",
    ),
    _counter(
        "vllm:estimated_write_bytes_per_gpu_total",
        "Estimated number of bytes written to memory per GPU (for Model Flops Utilization calculations).",
    ),
    Row("gauge", "vllm:num_requests_running", "Number of requests in model execution batches."),
    Row("gauge", "vllm:num_requests_waiting", "Number of requests waiting to be processed."),
    Row(
        "gauge",
        "vllm:num_requests_waiting_by_reason",
        "Number of waiting requests by reason. Reason labels: 'capacity' = waiting for scheduling capacity; "
        "'deferred' = deferred by transient constraints (LoRA budget, KV transfer, blocked status). Sum of all "
        "reasons equals vllm:num_requests_waiting.",
        "reason",
        ("capacity", "deferred"),
    ),
    Row(
        "gauge",
        "vllm:engine_sleep_state",
        "Engine sleep state; awake = 0 means engine is sleeping; awake = 1 means engine is awake; "
        "weights_offloaded = 1 means sleep level 1; discard_all = 1 means sleep level 2.",
        "sleep_state",
        SLEEP_STATES,
    ),
    Row("gauge", "vllm:kv_cache_usage_perc", "KV-cache usage. 1 means 100 percent usage."),
    _counter("vllm:prefix_cache_queries_total", "Prefix cache queries, in terms of number of queried tokens."),
    _counter("vllm:prefix_cache_hits_total", "Prefix cache hits, in terms of number of cached tokens."),
    _counter(
        "vllm:external_prefix_cache_queries_total",
        "External prefix cache queries from KV connector cross-instance cache sharing, in terms of number of queried "
        "tokens.",
    ),
    _counter(
        "vllm:external_prefix_cache_hits_total",
        "External prefix cache hits from KV connector cross-instance cache sharing, in terms of number of cached "
        "tokens.",
    ),
    _counter("vllm:mm_cache_queries_total", "Multi-modal cache queries, in terms of number of queried items."),
    _counter("vllm:mm_cache_hits_total", "Multi-modal cache hits, in terms of number of cached items."),
    _counter("vllm:num_preemptions_total", "Cumulative number of preemption from the engine."),
    _counter("vllm:prompt_tokens_total", "Number of prefill tokens processed."),
    Row(
        "counter",
        "vllm:prompt_tokens_by_source_total",
        "Number of prompt tokens by source.",
        "source",
        ("local_compute", "local_cache_hit", "external_kv_transfer"),
    ),
    _counter("vllm:prompt_tokens_cached_total", "Number of cached prompt tokens (local + external)."),
    Row(
        "counter",
        "vllm:prompt_tokens_cached_by_source_total",
        "Prefix-cache hit tokens by the cache tier that supplied them: device (local HBM), host (offloaded to DRAM), "
        "disk, p2p (transferred from another vLLM instance) or external_unspecified. Counted at admission; sums to "
        "vllm:prefix_cache_hits + vllm:external_prefix_cache_hits.",
        "source",
        ("device", "host", "p2p", "disk", "external_unspecified"),
    ),
    _counter("vllm:generation_tokens_total", "Number of generation tokens processed."),
    Row(
        "counter",
        "vllm:request_success_total",
        "Count of successfully processed requests.",
        "finished_reason",
        FINISHED_REASONS,
    ),
    Row(
        "counter",
        "vllm:admission_rejections_total",
        "Number of admission attempts rejected by a queue limit, by reason.",
        "reason",
        ("max_num_queued_reqs", "max_num_queued_tokens"),
        by_engine=False,
    ),
    _histogram("vllm:request_prompt_tokens", UP_TO_CONTEXT, "Number of prefill tokens processed."),
    _histogram("vllm:request_generation_tokens", UP_TO_CONTEXT, "Number of generation tokens processed."),
    _histogram("vllm:iteration_tokens_total", STEP_TOKENS, "Histogram of number of tokens per engine_step."),
    _histogram(
        "vllm:request_max_num_generation_tokens",
        UP_TO_CONTEXT,
        "Histogram of maximum number of requested generation tokens.",
    ),
    _histogram("vllm:request_params_n", CHOICES, "Histogram of the n request parameter."),
    _histogram("vllm:request_params_max_tokens", UP_TO_CONTEXT, "Histogram of the max_tokens request parameter."),
    _histogram("vllm:time_to_first_token_seconds", TTFT, "Histogram of time to first token in seconds."),
    _histogram("vllm:inter_token_latency_seconds", TOKEN_GAPS, "Histogram of inter-token latency in seconds."),
    _histogram(
        "vllm:request_time_per_output_token_seconds",
        TOKEN_GAPS,
        "Histogram of time_per_output_token_seconds per request.",
    ),
    _histogram("vllm:e2e_request_latency_seconds", REQUEST_TIMES, "Histogram of e2e request latency in seconds."),
    _histogram(
        "vllm:request_queue_time_seconds", REQUEST_TIMES, "Histogram of time spent in WAITING phase for request."
    ),
    _histogram(
        "vllm:request_inference_time_seconds", REQUEST_TIMES, "Histogram of time spent in RUNNING phase for request."
    ),
    _histogram(
        "vllm:request_prefill_time_seconds", REQUEST_TIMES, "Histogram of time spent in PREFILL phase for request."
    ),
    _histogram(
        "vllm:request_decode_time_seconds", REQUEST_TIMES, "Histogram of time spent in DECODE phase for request."
    ),
    _histogram(
        "vllm:request_num_preemptions", PREEMPTIONS, "Histogram of the number of times a request was preempted."
    ),
    _histogram(
        "vllm:request_prefill_kv_computed_tokens",
        UP_TO_CONTEXT,
        "Histogram of new KV tokens computed during prefill (excluding cached tokens).",
    ),
)

OWN = (
    _counter("llmdsim:requests_aborted_total", "Requests whose client left before their end."),
    _counter("llmdsim:dataset_errors_total", "Answers that the dataset could not give: broken rows, failed queries."),
    _histogram("llmdsim:pacing_lag_seconds", LAG, "How late a token left, in seconds."),
    _histogram("llmdsim:reactor_lag_seconds", LAG, "How late a call of the reactor's clock came, in seconds."),
)
