"""
The http_* families of a page, as prometheus-fastapi-instrumentator shows them on vLLM's.

Who answers a request says so once, with the handler's route template; this room neither times nor measures.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from prometheus_client import CollectorRegistry

from llmdsim.sim.meter import Counter, Family, Histogram, Page, Summary

# vLLM leaves out each handler that has one of these anywhere in it: also /v1/load_lora_adapter, for its "/load".
UNCOUNTED = ("/metrics", "/health", "/load", "/ping", "/version", "/server_info")

FINE = (
    *(0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0),
    *(2.5, 3.0, 3.5, 4.0, 4.5, 5.0, 7.5, 10.0, 30.0, 60.0),
)
COARSE = (0.1, 0.5, 1.0)

# The help texts end in a blank, as the originals do.
SIZES = (
    "Content length of {} by handler. Only value of header is respected. Otherwise ignored. No percentile calculated. "
)
FINE_HELP = "Latency with many buckets but no API specific labels. Made for more accurate percentile calculations. "
COARSE_HELP = "Latency with only few buckets by handler. Made to be only used if aggregation by handler is important. "


class _Bound(NamedTuple):
    requests: Counter
    received: Summary
    sent: Summary
    seconds: Histogram


class Traffic:
    """What has been served; ``wall`` is Unix time in seconds."""

    def __init__(self, registry: CollectorRegistry, wall: Callable[[], float]) -> None:
        self._wall = wall
        self._requests = Family(
            "counter", "http_requests_total", "Total number of requests by method, status and handler."
        )
        self._received = Family("summary", "http_request_size_bytes", SIZES.format("incoming requests"))
        self._sent = Family("summary", "http_response_size_bytes", SIZES.format("outgoing responses"))
        fine = Family("histogram", "http_request_duration_highr_seconds", FINE_HELP)
        self._fine = fine.add(Histogram(FINE, wall()), {})
        self._coarse = Family("histogram", "http_request_duration_seconds", COARSE_HELP)
        self._bound: dict[tuple[str, str, int], _Bound | None] = {}
        self._sizes: dict[str, tuple[Summary, Summary]] = {}
        self._durations: dict[tuple[str, str], Histogram] = {}
        registry.register(Page([self._requests, self._received, self._sent, fine, self._coarse]))

    def served(self, handler: str, method: str, status: int, seconds: float, received: int, sent: int) -> None:
        """
        One request has been answered.

        ``handler`` is the route's template, or ``none`` where no route matched; ``received`` and ``sent`` are the two
        Content-Length headers, 0 where there is none (a stream has none).
        """
        key = handler, method, status // 100
        try:
            bound = self._bound[key]
        except KeyError:
            bound = self._bound[key] = self._bind(*key)
        if bound is None:
            return
        bound.requests.value += 1
        bound.received.observe(received)
        bound.sent.observe(sent)
        self._fine.observe(seconds)
        bound.seconds.observe(seconds)

    def _bind(self, handler: str, method: str, hundreds: int) -> _Bound | None:
        if any(part in handler for part in UNCOUNTED):
            return None
        labels = {"handler": handler, "method": method}
        requests = self._requests.add(Counter(self._wall()), {**labels, "status": f"{hundreds}xx"})
        if handler not in self._sizes:
            self._sizes[handler] = self._size_summaries({"handler": handler})
        if (handler, method) not in self._durations:
            self._durations[handler, method] = self._coarse.add(Histogram(COARSE, self._wall()), labels)
        return _Bound(requests, *self._sizes[handler], self._durations[handler, method])

    def _size_summaries(self, labels: dict[str, str]) -> tuple[Summary, Summary]:
        return self._received.add(Summary(self._wall()), labels), self._sent.add(Summary(self._wall()), labels)
