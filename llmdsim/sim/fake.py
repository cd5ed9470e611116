"""
Fake metrics: a page that shows what the configuration says, computed when it is asked for, whatever really happens.

Names, labels and bounds are those of the real page; what the document means is read and checked by config.fake.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric

from llmdsim.config import Config, Function
from llmdsim.sim import series
from llmdsim.sim.meter import Counter, Family, Gauge, Histogram, Primitive
from llmdsim.sim.series import TABLE, Row, one_two_five

KEYS = {
    "vllm:num_requests_running": "running-requests",
    "vllm:num_requests_waiting": "waiting-requests",
    "vllm:kv_cache_usage_perc": "kv-cache-usage",
    "vllm:prefix_cache_queries_total": "prefix-cache-queries",
    "vllm:prefix_cache_hits_total": "prefix-cache-hits",
    "vllm:prompt_tokens_total": "total-prompt-tokens",
    "vllm:generation_tokens_total": "total-generation-tokens",
    "vllm:request_success_total": "request-success-total",
    "vllm:request_prompt_tokens": "request-prompt-tokens",
    "vllm:request_generation_tokens": "request-generation-tokens",
    "vllm:request_max_num_generation_tokens": "request-max-generation-tokens",
    "vllm:request_params_max_tokens": "request-params-max-tokens",
    "vllm:time_to_first_token_seconds": "ttft-buckets-values",
    "vllm:inter_token_latency_seconds": "tpot-buckets-values",
    "vllm:request_time_per_output_token_seconds": "request-tpot-buckets-values",
    "vllm:e2e_request_latency_seconds": "e2erl-buckets-values",
    "vllm:request_queue_time_seconds": "queue-time-buckets-values",
    "vllm:request_inference_time_seconds": "inf-time-buckets-values",
    "vllm:request_prefill_time_seconds": "prefill-time-buckets-values",
    "vllm:request_decode_time_seconds": "decode-time-buckets-values",
}
ROWS = tuple((row, KEYS[row.name]) for row in TABLE if row.name in KEYS)
SUMMED = {"total-prompt-tokens": "request-prompt-tokens", "total-generation-tokens": "request-generation-tokens"}
OLDER_NAMES = {
    "vllm:kv_cache_usage_perc": ("vllm:gpu_cache_usage_perc", series.OLD_CACHE_USAGE),
    "vllm:inter_token_latency_seconds": ("vllm:time_per_output_token_seconds", series.OLD_TOKEN_GAPS),
}
NO_ADAPTER: Sequence[Mapping[str, Any]] = ({},)


Children = Sequence[tuple[Mapping[str, str], Primitive]]


class _Set(NamedTuple):
    """A member of the document, and when it was set: by the clock, and in Unix time."""

    value: Any
    since: float
    created: float


class Fake:
    """
    The page of one rank's fake metrics.

    ``cache_config`` is the real page's family of that name; ``seconds`` is the clock, ``wall`` Unix time in seconds.
    """

    def __init__(
        self, config: Config, cache_config: Family, seconds: Callable[[], float], wall: Callable[[], float]
    ) -> None:
        self._common = {"engine": str(max(config.data_parallel_rank, 0)), "model_name": config.display_name}
        self._max_lora = str(config.max_loras)
        self._token_bounds = one_two_five(config.max_model_len)
        self._interval = config.fake_metrics_refresh_interval
        self._older_names = {} if config.strict else OLDER_NAMES
        self._cache_config, self._seconds, self._wall = cache_config, seconds, wall
        self._started = wall()
        self._members: dict[str, _Set] = {}
        self.update(config.fake_metrics or {})
        self.registry = CollectorRegistry(auto_describe=False)
        self.registry.register(self)

    def update(self, members: Mapping[str, Any]) -> None:
        """Show these members from now on; those that are the same objects as before go on, others start anew."""
        old, now = self._members, (self._seconds(), self._wall())
        self._members = {
            # A member that was given again is another object, however equal.
            key: old[key] if key in old and old[key].value is value else _Set(value, *now)
            for key, value in members.items()
        }

    def collect(self) -> Iterator[Metric]:
        """The page as it is now, in the order of the real one; what is not configured is left out."""
        older = []
        for row, key in ROWS:
            children = self._children(row, key)
            if not children:
                continue
            yield _metric(row.kind, row.name, row.help, children)
            if row.name in self._older_names:
                older.append(_metric(row.kind, *self._older_names[row.name], children))
        yield self._lora()
        yield self._cache_config.metric()
        yield from older

    def _children(self, row: Row, key: str) -> Children:
        if row.kind == "gauge":
            return self._gauge(key)
        if row.kind == "histogram":
            return self._histogram(row, key)
        return self._reasons(row, key) if row.label else self._counter(key)

    def _gauge(self, key: str) -> Children:
        found = self._members.get(key)
        if found is None:
            return []
        value = self._now(found)
        return [(self._common, Gauge(value if key == "kv-cache-usage" else value // 1))]

    def _histogram(self, row: Row, key: str) -> Children:
        found = self._members.get(key)
        if found is None or not found.value:
            return []
        histogram = Histogram(row.bounds or self._token_bounds, found.created)
        for value, count in zip(_values(histogram.bounds), found.value, strict=False):
            histogram.observe_many(value, count)
        return [(self._common, histogram)]

    def _counter(self, key: str) -> Children:
        found = self._members.get(key) or self._summed(key)
        return [] if found is None else [(self._common, _counted(found.created, found.value))]

    def _summed(self, key: str) -> _Set | None:
        """A total that is not given, from the array of the same tokens."""
        array = self._members.get(SUMMED.get(key, ""))
        if array is None or not array.value:
            return None
        total = sum(
            count * math.floor(value) for value, count in zip(_values(self._token_bounds), array.value, strict=False)
        )
        return array._replace(value=total)

    def _reasons(self, row: Row, key: str) -> Children:
        found = self._members.get(key)
        if found is None:
            return []
        return [
            ({**self._common, row.label: reason}, _counted(found.created, count))
            for reason, count in found.value.items()
        ]

    def _lora(self) -> Metric:
        found = self._members.get("loras") or _Set((), 0.0, self._started)
        states = {_adapters(state): state.get("timestamp", found.created) for state in found.value or NO_ADAPTER}
        children = [
            (
                {"max_lora": self._max_lora, "running_lora_adapters": running, "waiting_lora_adapters": waiting},
                Gauge(timestamp),
            )
            for (running, waiting), timestamp in states.items()
        ]
        return _metric("gauge", "vllm:lora_requests_info", series.LORA_INFO, children)

    def _now(self, found: _Set) -> float:
        if not isinstance(found.value, Function):
            return float(found.value)
        elapsed = self._seconds() - found.since
        return value_at(found.value, elapsed // self._interval * self._interval)


def value_at(function: Function, seconds: float) -> float:
    """What a function is so many seconds after it was set."""
    start, end, period = function.start, function.end, function.period
    done = seconds % period / period
    if function.name == "oscillate":
        return (start + end) / 2 + (end - start) / 2 * math.sin(2 * math.pi * done)
    if function.name == "squarewave":
        return start if done < 0.5 else end
    share = min(seconds / period, 1.0) if function.name == "ramp" else done
    return start + (end - start) * share


def _values(bounds: Sequence[float]) -> Sequence[float]:
    """What an observation in each bucket is taken to be: the upper bound, and one more for those beyond the last."""
    return (*bounds, bounds[-1] + 1)


def _counted(created: float, value: float) -> Counter:
    counter = Counter(created)
    counter.add(value)
    return counter


def _adapters(state: Mapping[str, Any]) -> tuple[str, str]:
    return state.get("running", ""), state.get("waiting", "")


def _metric(kind: str, name: str, help: str, children: Children) -> Metric:
    family = Family(kind, name, help)
    for labels, child in children:
        family.add(child, labels)
    return family.metric()
