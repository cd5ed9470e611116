"""Flags that are accepted and have no effect: the rest of vLLM 0.33's, retired ones, and those of Go's klog."""

from __future__ import annotations

from llmdsim.config.argv import DOCUMENT, MANY, ONE, SWITCH

_SWITCHES = """
headless grpc aggregate-engine-logging fail-on-environ-validation trust-request-mm-kwargs enable-log-outputs
enable-log-deltas cohere-is-reasoning-model log-error-stack enable-offline-docs enable-flash-late-interaction
trust-remote-code allow-deprecated-quantization enable-return-routed-experts return-sampling-mask use-fp64-gumbel
enable-trace-replay disable-sliding-window disable-cascade-attn skip-tokenizer-init enable-prompt-embeds
sleep-mode-offload-cudagraph enable-cumem-allocator enable-nccl-comm-suspend use-tqdm-on-load
enable-mamba-cache-stochastic-rounding numa-bind dcp-q-replicate data-parallel-hybrid-lb data-parallel-external-lb
data-parallel-multi-port-external-lb enable-hc-sp enable-expert-parallel enable-batch-sharded-sampling
enable-ep-weight-filter enable-dbo enable-shm-tensor-arena enable-elastic-ep disable-nccl-for-dp-synchronization
enable-eplb ray-workers-use-nsight disable-custom-all-reduce enable-fault-tolerance kv-sharing-fast-prefill
swa-bounded-replay enable-mamba-shared-prefix-checkpoint use-replayssm language-model-only enable-mm-embeds
interleave-mm-strings skip-mm-profiling mm-device-do-normalize enable-tower-connector-lora fully-sharded-loras
specialize-active-lora enable-mixed-moe-lora-format enable-moe-shared-loras kv-cache-metrics cudagraph-metrics
enable-layerwise-nvtx-tracing enable-mfu-metrics enable-logging-iteration-details jit-monitor-verbose
long-prefill-token-threshold-adaptive enable-chunked-prefill disable-chunked-mm-input scheduler-reserve-full-isl
disable-hybrid-kv-cache-manager async-scheduling enable-flashinfer-autotune monokernel
exclude-tools-when-tool-choice-none
"""
_VALUED = """
api-server-count gdn-prefill-backend kda-prefill-backend kda-decode-backend reasoning-effort-map tool-parser-plugin
tool-strict-level tool-server max-log-len cohere-format anthropic-disabled-thinking-effort grpc-port
data-parallel-supervisor-port dp-supervisor-probe-interval-s dp-supervisor-probe-timeout-s
dp-supervisor-probe-failure-threshold disable-access-log-for-endpoints tokenizer-mode dtype hf-config-path
allowed-local-media-path revision code-revision tokenizer-revision quantization quantization-config config-format
hf-token hf-overrides model-class-overrides pooler-config sleep-mode-backend model-impl io-processor-plugin
renderer-num-workers load-format download-dir safetensors-load-strategy safetensors-prefetch-num-threads
safetensors-prefetch-block-size model-loader-extra-config pt-load-map-location attention-backend mamba-backend
mamba-ssu-algorithm mamba-cache-philox-rounds reasoning-parser-plugin distributed-executor-backend master-addr
master-port nnodes node-rank distributed-timeout-seconds cpu-distributed-timeout-seconds device-ids
decode-context-parallel-size dcp-comm-backend dcp-kv-cache-interleave-size cp-kv-cache-interleave-size
prefill-context-parallel-size data-parallel-start-rank data-parallel-size-local data-parallel-address
data-parallel-rpc-port data-parallel-backend all2all-backend ubatch-size elastic-ep-max-dp-size
dbo-decode-token-threshold dp-sync-interval dbo-prefill-token-threshold eplb-config expert-placement-strategy
max-parallel-loading-workers worker-cls worker-extension-cls fault-tolerance-config gpu-memory-utilization
device-memory-utilization kv-cache-memory-bytes kv-cache-dtype prefix-cache-retention-interval mamba-cache-dtype
mamba-ssm-cache-dtype mamba-block-size prefix-match-unit mamba-cache-mode replayssm-buffer-len kv-offloading-size
kv-offloading-backend offload-backend cpu-offload-gb offload-group-size offload-num-in-group offload-prefetch-step
limit-mm-per-prompt media-io-kwargs mm-processor-cache-gb mm-processor-cache-type mm-hasher-algorithm
mm-shm-cache-max-object-size-mb mm-encoder-tp-mode mm-encoder-attn-backend mm-encoder-attn-dtype
mm-encoder-fp8-scale-path mm-encoder-fp8-scale-save-path mm-encoder-fp8-scale-save-margin video-pruning-rate
video-pruning-method mm-tensor-ipc mm-processor-device mm-ipc-gpu-memory-gb lora-dtype default-mm-loras
max-lora-cls-labels logging-config log-level log-config-file show-hidden-metrics-for-version otlp-traces-endpoint
per-request-spec-decode-metrics kv-cache-metrics-sample custom-histogram-buckets jit-monitor-mode
max-num-scheduled-tokens max-num-active-seqs long-prefill-token-threshold scheduler-cls watermark
prefill-schedule-interval max-cudagraph-capture-size ir-op-priority moe-backend linear-backend
sparse-indexer-topk-backend speculative-config spec-method spec-model spec-tokens watermark-config diffusion-config
ec-manager-config compilation-config attention-config engram-config reasoning-config kernel-config additional-config
structured-outputs-config aux-output-config profiler-config watchdog-config optimization-level performance-mode
weight-transfer-config
logprobs-mode convert
"""
_LISTS = """
middleware allowed-media-domains sleep-preserve-parameter-names logits-processors ignore-patterns numa-bind-nodes
numa-bind-cpus kv-cache-dtype-skip-layers cpu-offload-params offload-params lora-target-modules
collect-detailed-traces cudagraph-capture-sizes
"""
_RETIRED_SWITCHES = """
enable-reasoning use-v2-block-manager disable-frontend-multiprocessing disable-async-output-proc enable-lora-bias
enable-prompt-adapter worker-use-ray engine-use-ray multi-step-stream-outputs guided-decoding-disable-fallback
disable-mm-preprocessor-cache enable-multimodal-encoder-data-parallel
"""
_RETIRED_VALUED = """
swap-space num-scheduler-steps guided-decoding-backend preemption-mode max-seq-len-to-capture device model-class
max-context-len-to-capture num-lookahead-slots rope-scaling rope-theta speculative-model num-speculative-tokens
lora-extra-vocab-size long-lora-scaling-factors max-prompt-adapters scheduler-delay-factor qlora-adapter-name-or-path
tokenizers-cache-dir zmq-max-connect-attempts
"""
_LOGGING_SWITCHES = """
logtostderr alsologtostderr one-output add-dir-header skip-headers skip-log-headers legacy-stderr-threshold-behavior
"""
_LOGGING_VALUED = """
vmodule stderrthreshold alsologtostderrthreshold log-dir log-file log-file-max-size log-backtrace-at
"""

RETIRED = {
    **dict.fromkeys(_RETIRED_SWITCHES.split(), SWITCH),
    **dict.fromkeys(_RETIRED_VALUED.split(), ONE),
}
LOGGING = {
    **dict.fromkeys(_LOGGING_SWITCHES.split(), SWITCH),
    **dict.fromkeys(_LOGGING_VALUED.split(), ONE),
}
IGNORED = {
    **dict.fromkeys(_SWITCHES.split(), SWITCH),
    **dict.fromkeys(_VALUED.split(), DOCUMENT),
    **dict.fromkeys(_LISTS.split(), MANY),
}
ALIASES = {"max-running-requests": "max-num-seqs", "lora": "lora-modules"}
SHORTS = {
    "h": "help",
    "v": "v",
    "tp": "tensor-parallel-size",
    "pp": "pipeline-parallel-size",
    "dp": "data-parallel-size",
    "dpn": "data-parallel-rank",
    "dpr": "data-parallel-start-rank",
    "dpl": "data-parallel-size-local",
    "dpa": "data-parallel-address",
    "dpp": "data-parallel-rpc-port",
    "dpb": "data-parallel-backend",
    "dph": "data-parallel-hybrid-lb",
    "dpe": "data-parallel-external-lb",
    "dpm": "data-parallel-multi-port-external-lb",
    "dcp": "decode-context-parallel-size",
    "pcp": "prefill-context-parallel-size",
    "ep": "enable-expert-parallel",
    "asc": "api-server-count",
    "q": "quantization",
    "n": "nnodes",
    "r": "node-rank",
    "cc": "compilation-config",
    "ac": "attention-config",
    "sc": "speculative-config",
    "dc": "diffusion-config",
}
"""vLLM's short flags, without their dash."""
