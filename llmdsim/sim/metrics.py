"""
vLLM's and llmdsim's meters of one rank: one verb an event; names and labels are those of vLLM 0.33.

The verbs are plain adds; series.py says which families there are, meter.py folds them when the page is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import attrs
from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector

from llmdsim.config import Config
from llmdsim.sim import series
from llmdsim.sim.meter import Counter, Family, Gauge, Histogram, Page
from llmdsim.sim.series import OWN, TABLE, Row, one_two_five

LOCAL = (
    ("vllm:prompt_tokens_by_source_total", "local_cache_hit"),
    ("vllm:prompt_tokens_cached_by_source_total", "device"),
)
EXTERNAL = (
    ("vllm:prompt_tokens_by_source_total", "external_kv_transfer"),
    ("vllm:prompt_tokens_cached_by_source_total", "p2p"),
)


@attrs.frozen(slots=True)
class Load:
    """What the gauges show; ``waiting`` includes ``deferred``, ``kv_usage`` is 0 to 1, ``sleep_level`` 0 to 2."""

    running: int = 0
    waiting: int = 0
    deferred: int = 0
    kv_usage: float = 0.0
    sleep_level: int = 0


@attrs.frozen(slots=True)
class Finished:
    """
    One sequence at its end, by the clock's seconds.

    ``reason`` is stop, length, abort, error or repetition; others count as stop. ``max_tokens`` is None where the
    client set no limit. A moment that never came repeats the one before it, so that no span is negative.
    """

    reason: str
    prompt_tokens: int
    cached_tokens: int
    generated: int
    max_tokens: int | None
    arrival: float
    queued: float
    scheduled: float
    first: float
    last: float
    now: float


class Meters:
    """
    The page of one rank, complete from the start, and the verbs that move it.

    ``model_name`` is the first served name; ``cache_info`` are the labels of ``vllm:cache_config_info``; ``deprecated``
    adds the older simulator's names; ``load`` is asked once a scrape; ``wall`` is Unix time in seconds.
    """

    inter_token: Callable[[float], None]
    inter_token_many: Callable[[float, int], None]
    lag: Callable[[float], None]
    generated: Callable[[int], None]
    step: Callable[[int], None]
    source_failed: Callable[[int], None]

    def __init__(
        self,
        *,
        model_name: str,
        engine: int,
        max_model_len: int,
        cache_info: Mapping[str, str],
        max_loras: int | None,
        deprecated: bool,
        load: Callable[[], Load],
        wall: Callable[[], float],
    ) -> None:
        self._model = {"model_name": model_name}
        self._common = {"engine": str(engine), **self._model}
        self._token_bounds = one_two_five(max_model_len)
        self._load, self._wall = load, wall
        self._counters: dict[tuple[str, str], Counter] = {}
        self._gauges: dict[tuple[str, str], Gauge] = {}
        self._histograms: dict[str, Histogram] = {}
        self._max_lora = str(max_loras)
        self._lora = Family("gauge", "vllm:lora_requests_info", series.LORA_INFO)
        self._adapters: dict[tuple[str, str], Gauge] = {}
        self.lora((), ())
        families = [self._declared(row) for row in TABLE]
        families += [] if max_loras is None else [self._lora]
        self.cache_config = self._cache_config(cache_info)
        families += [self.cache_config, *map(self._declared, OWN)]
        families += self._older_names() if deprecated else []
        self.registry = self._registry(families)
        self._bind()

    # Declaring the page

    def _declared(self, row: Row) -> Family:
        family = Family(row.kind, row.name, row.help)
        common = self._common if row.by_engine else self._model
        for value in row.values:
            self._start(row, value, family, {**common, row.label: value} if row.label else common)
        return family

    def _start(self, row: Row, value: str, family: Family, labels: Mapping[str, str]) -> None:
        if row.kind == "counter":
            self._counters[row.name, value] = family.add(Counter(self._wall()), labels)
        elif row.kind == "gauge":
            self._gauges[row.name, value] = family.add(Gauge(), labels)
        else:
            histogram = Histogram(row.bounds or self._token_bounds, self._wall())
            self._histograms[row.name] = family.add(histogram, labels)

    def _cache_config(self, info: Mapping[str, str]) -> Family:
        family = Family("gauge", "vllm:cache_config_info", series.CACHE_INFO)
        family.add(Gauge(1.0), {**info, "engine": self._common["engine"]})
        return family

    def _older_names(self) -> list[Family]:
        usage = Family("gauge", "vllm:gpu_cache_usage_perc", series.OLD_CACHE_USAGE)
        usage.add(self._gauges["vllm:kv_cache_usage_perc", ""], self._common)
        gaps = Family("histogram", "vllm:time_per_output_token_seconds", series.OLD_TOKEN_GAPS)
        gaps.add(self._histograms["vllm:inter_token_latency_seconds"], self._common)
        return [usage, gaps]

    def _registry(self, families: Sequence[Family]) -> CollectorRegistry:
        registry = CollectorRegistry(auto_describe=False)
        GCCollector(registry)
        PlatformCollector(registry)
        ProcessCollector(registry=registry)
        registry.register(Page(families, self._refresh))
        return registry

    # Found by name once: a request makes a dozen observations, a token one or two.

    def _bind(self) -> None:
        counters, histograms = self._counters, self._histograms
        self.inter_token = histograms["vllm:inter_token_latency_seconds"].observe
        self.inter_token_many = histograms["vllm:inter_token_latency_seconds"].observe_many
        self.lag = histograms["llmdsim:pacing_lag_seconds"].observe
        self.generated = counters["vllm:generation_tokens_total", ""].add
        self.step = histograms["vllm:iteration_tokens_total"].observe
        self._reactor_lag = histograms["llmdsim:reactor_lag_seconds"].observe
        self.source_failed = counters["llmdsim:dataset_errors_total", ""].add
        self._aborted = counters["llmdsim:requests_aborted_total", ""].add
        self._bind_prefill(counters, histograms)
        self._bind_sizes(histograms)
        self._bind_times(histograms)

    def _bind_prefill(self, counters: Mapping[tuple[str, str], Counter], histograms: Mapping[str, Histogram]) -> None:
        self._ttft = histograms["vllm:time_to_first_token_seconds"].observe
        self._prompt = counters["vllm:prompt_tokens_total", ""].add
        self._computed = counters["vllm:prompt_tokens_by_source_total", "local_compute"].add
        self._cached = counters["vllm:prompt_tokens_cached_total", ""].add
        self._local = tuple(counters[key].add for key in LOCAL)
        self._external = tuple(counters[key].add for key in EXTERNAL)
        self._queried = counters["vllm:prefix_cache_queries_total", ""].add
        self._hit = counters["vllm:prefix_cache_hits_total", ""].add
        self._queried_outside = counters["vllm:external_prefix_cache_queries_total", ""].add
        self._hit_outside = counters["vllm:external_prefix_cache_hits_total", ""].add

    def _bind_sizes(self, histograms: Mapping[str, Histogram]) -> None:
        self._prompt_size = histograms["vllm:request_prompt_tokens"].observe
        self._prefill_size = histograms["vllm:request_prefill_kv_computed_tokens"].observe
        self._generated_size = histograms["vllm:request_generation_tokens"].observe
        self._preempted = histograms["vllm:request_num_preemptions"].observe
        self._max_tokens = histograms["vllm:request_params_max_tokens"].observe
        self._choices = histograms["vllm:request_params_n"].observe
        self._most_generated = histograms["vllm:request_max_num_generation_tokens"].observe

    def _bind_times(self, histograms: Mapping[str, Histogram]) -> None:
        self._e2e = histograms["vllm:e2e_request_latency_seconds"].observe
        self._queue_time = histograms["vllm:request_queue_time_seconds"].observe
        self._inference_time = histograms["vllm:request_inference_time_seconds"].observe
        self._prefill_time = histograms["vllm:request_prefill_time_seconds"].observe
        self._decode_time = histograms["vllm:request_decode_time_seconds"].observe
        self._token_time = histograms["vllm:request_time_per_output_token_seconds"].observe

    # What happens to a request

    def first_token(self, ttft: float, prompt_tokens: int, cached_tokens: int, external_tokens: int = 0) -> None:
        """The prefill of a sequence is done, ``ttft`` seconds after its arrival; external tokens are cached ones."""
        self._ttft(ttft)
        self._prompt(prompt_tokens)
        self._computed(prompt_tokens - cached_tokens)
        self._cached(cached_tokens)
        for count in self._local:
            count(cached_tokens - external_tokens)
        for count in self._external:
            count(external_tokens)

    def finished(self, done: Finished) -> None:
        """A sequence has ended by itself; one whose client left is ``aborted``, as vLLM counts it nowhere."""
        reason = done.reason if done.reason in series.FINISHED_REASONS else "stop"
        self._counters["vllm:request_success_total", reason].add(1)
        self._sizes(done)
        decode = done.last - done.first
        self._e2e(done.now - done.arrival)
        self._queue_time(done.scheduled - done.queued)
        self._inference_time(done.last - done.scheduled)
        self._prefill_time(done.first - done.scheduled)
        self._decode_time(decode)
        self._token_time(decode / (done.generated - 1) if done.generated > 1 else 0.0)

    def _sizes(self, done: Finished) -> None:
        self._prompt_size(done.prompt_tokens)
        self._prefill_size(done.prompt_tokens - done.cached_tokens)
        self._generated_size(done.generated)
        self._preempted(0)
        if done.max_tokens is not None:
            self._max_tokens(done.max_tokens)

    def parent_finished(self, n: int, most_generated: int) -> None:
        """All ``n`` sequences of a request have ended; the longest has ``most_generated`` tokens."""
        self._choices(n)
        self._most_generated(most_generated)

    def aborted(self) -> None:
        """A client has left before the end of its request."""
        self._aborted(1)

    def rejected(self, reason: str) -> None:
        """A queue limit refused a request: ``max_num_queued_reqs`` or ``max_num_queued_tokens``."""
        self._counters["vllm:admission_rejections_total", reason].add(1)

    def prefix_lookup(self, queried: int, hit: int) -> None:
        """The cache was asked for ``queried`` tokens and had ``hit`` of them."""
        self._queried(queried)
        self._hit(hit)

    def external_lookup(self, queried: int, hit: int) -> None:
        """The KV connector was asked for ``queried`` tokens, which the cache did not have, and got ``hit`` of them."""
        self._queried_outside(queried)
        self._hit_outside(hit)

    def lora(self, running: Sequence[str], waiting: Sequence[str]) -> None:
        """The adapters in use have changed; each combination stays, with the time when it was last seen."""
        key = ",".join(running), ",".join(waiting)
        gauge = self._adapters.get(key)
        if gauge is None:
            names = {"running_lora_adapters": key[0], "waiting_lora_adapters": key[1]}
            gauge = self._adapters[key] = self._lora.add(Gauge(), {"max_lora": self._max_lora, **names})
        gauge.value = self._wall()

    def reactor_lag(self, seconds: float) -> None:
        """The reactor's clock called ``seconds`` later than it was asked to."""
        self._reactor_lag(seconds)

    def _refresh(self) -> None:
        load, gauges = self._load(), self._gauges
        gauges["vllm:num_requests_running", ""].value = load.running
        gauges["vllm:num_requests_waiting", ""].value = load.waiting
        gauges["vllm:num_requests_waiting_by_reason", "capacity"].value = load.waiting - load.deferred
        gauges["vllm:num_requests_waiting_by_reason", "deferred"].value = load.deferred
        gauges["vllm:kv_cache_usage_perc", ""].value = load.kv_usage
        for level, state in enumerate(series.SLEEP_STATES):
            gauges["vllm:engine_sleep_state", state].value = level == load.sleep_level


def meters(config: Config, load: Callable[[], Load], wall: Callable[[], float]) -> Meters:
    """The meters of one rank's configuration; a strict server shows adapters only where it serves them."""
    shows_adapters = config.enable_lora or bool(config.lora_modules) or not config.strict
    return Meters(
        model_name=config.display_name,
        engine=max(config.data_parallel_rank, 0),
        max_model_len=config.max_model_len,
        cache_info=series.cache_info(
            block_size=config.block_size,
            num_gpu_blocks=config.kv_cache_size,
            max_model_len=config.max_model_len,
            prefix_caching_hash_algo=config.prefix_caching_hash_algo,
        ),
        max_loras=config.max_loras if shows_adapters else None,
        deprecated=not config.strict,
        load=load,
        wall=wall,
    )
