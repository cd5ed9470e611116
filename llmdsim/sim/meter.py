"""
The primitives of the metrics: a plain add or a bisect when something happens, folded when a page is asked for.

A Page is a collector of prometheus_client that owns Families; a Family owns one primitive for each set of labels.
Which families there are and what they count is said in sim.metrics, sim.features and web.traffic.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Protocol, TypeVar

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, choose_encoder, generate_latest
from prometheus_client.samples import Sample
from prometheus_client.utils import floatToGoString


class Primitive(Protocol):
    """What a family holds for one set of labels."""

    def samples(self, name: str, labels: dict[str, str]) -> list[Sample]:
        """The lines of the page; ``name`` is the family's, a counter's without ``_total``."""


P = TypeVar("P", bound=Primitive)


class Gauge:
    """A value that is set."""

    __slots__ = ("value",)

    def __init__(self, value: float = 0.0) -> None:
        self.value = value

    def samples(self, name: str, labels: dict[str, str]) -> list[Sample]:
        return [Sample(name, labels, self.value)]


class Counter:
    """A sum that only grows; ``created`` is the Unix time of its start."""

    __slots__ = ("created", "value")

    def __init__(self, created: float) -> None:
        self.created = created
        self.value: float = 0

    def add(self, amount: float) -> None:
        self.value += amount

    def samples(self, name: str, labels: dict[str, str]) -> list[Sample]:
        return [Sample(f"{name}_total", labels, self.value), Sample(f"{name}_created", labels, self.created)]


class Summary:
    """How many values there were, and their sum."""

    __slots__ = ("count", "created", "total")

    def __init__(self, created: float) -> None:
        self.created = created
        self.count = 0
        self.total: float = 0

    def observe(self, value: float) -> None:
        self.count += 1
        self.total += value

    def samples(self, name: str, labels: dict[str, str]) -> list[Sample]:
        return [
            Sample(f"{name}_count", labels, self.count),
            Sample(f"{name}_sum", labels, self.total),
            Sample(f"{name}_created", labels, self.created),
        ]


class Histogram:
    """
    Values counted by bucket.

    ``bounds`` are the finite upper bounds, ascending, each inclusive; ``counts`` has one place more, for the rest.
    """

    __slots__ = ("bounds", "counts", "created", "total")

    def __init__(self, bounds: Sequence[float], created: float) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.created = created
        self.total: float = 0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def observe_many(self, value: float, times: int) -> None:
        """The same as ``times`` calls of ``observe``."""
        self.counts[bisect_left(self.bounds, value)] += times
        self.total += value * times

    def samples(self, name: str, labels: dict[str, str]) -> list[Sample]:
        edges = [*map(floatToGoString, self.bounds), "+Inf"]
        running = list(accumulate(self.counts))
        buckets = [
            Sample(f"{name}_bucket", {**labels, "le": edge}, count) for edge, count in zip(edges, running, strict=True)
        ]
        return [
            *buckets,
            Sample(f"{name}_count", labels, running[-1]),
            Sample(f"{name}_sum", labels, self.total),
            Sample(f"{name}_created", labels, self.created),
        ]


class Family:
    """
    All series of one name.

    ``kind`` is ``counter``, ``gauge``, ``histogram`` or ``summary``; a counter's ``name`` may end in ``_total``.
    One primitive may be in two families: the same numbers under two names.
    """

    __slots__ = ("_children", "help", "kind", "name")

    def __init__(self, kind: str, name: str, help: str) -> None:
        self.kind = kind
        self.name = name.removesuffix("_total") if kind == "counter" else name
        self.help = help
        self._children: list[tuple[dict[str, str], Primitive]] = []

    def add(self, child: P, labels: Mapping[str, str]) -> P:
        """Shows ``child`` under ``labels`` from now on, and returns it."""
        self._children.append((dict(labels), child))
        return child

    def metric(self) -> Metric:
        """The family as it is now, in prometheus_client's terms."""
        folded = Metric(self.name, self.help, self.kind)
        for labels, child in self._children:
            folded.samples.extend(child.samples(self.name, labels))
        return folded


class Page:
    """A collector of families in their order; ``refresh`` sets the gauges before a page is folded."""

    def __init__(self, families: Sequence[Family], refresh: Callable[[], None] = lambda: None) -> None:
        self._families = families
        self._refresh = refresh

    def collect(self) -> Iterator[Metric]:
        self._refresh()
        for family in self._families:
            yield family.metric()


def render(registry: CollectorRegistry, accept: str) -> tuple[bytes, str]:
    """
    The page of ``registry`` and its content type, in the format that an Accept header asks for.

    Plain text is announced as vLLM announces it. OpenMetrics is spoken only to those who allow UTF-8 names (Prometheus
    3 does): for others prometheus_client writes ``vllm_x`` in the samples of ``vllm:x``, so they get plain text.
    """
    encode, content_type = choose_encoder(accept)
    if content_type.startswith("text/plain; version=1.") or "escaping=allow-utf-8" in content_type:
        return encode(registry), content_type
    return generate_latest(registry), CONTENT_TYPE_LATEST
