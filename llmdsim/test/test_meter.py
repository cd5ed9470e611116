"""The primitives of the metrics, folded into prometheus_client's terms and compared with its own."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from prometheus_client import Counter as TheirCounter
from prometheus_client import Histogram as TheirHistogram
from prometheus_client import Summary as TheirSummary
from prometheus_client.exposition import generate_latest
from twisted.trial.unittest import SynchronousTestCase

from llmdsim.sim.meter import Counter, Family, Gauge, Histogram, Page, Summary, render

BOUNDS = (0.5, 1.0, 20.0)
LABELS = {"model_name": "base", "engine": "0"}
PROMETHEUS_3 = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,"
    "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)
PROMETHEUS_2 = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.4,*/*;q=0.1"


def page_of(*families):
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Page(families))
    return registry


def own_kinds():
    """A registry with one series of each kind, and the verbs that feed them."""
    counter, histogram, summary = Counter(0.0), Histogram(BOUNDS, 0.0), Summary(0.0)
    families = [Family("counter", "vllm:a_total", "A."), Family("histogram", "vllm:b", "B.")]
    families.append(Family("summary", "vllm:c", "C."))
    for family, child in zip(families, (counter, histogram, summary), strict=True):
        family.add(child, LABELS)
    return page_of(*families), (counter.add, histogram.observe, summary.observe)


def their_kinds():
    """The same in prometheus_client's own classes."""
    registry = CollectorRegistry(auto_describe=False)
    counter = TheirCounter("vllm:a_total", "A.", tuple(LABELS), registry=registry).labels(**LABELS)
    histogram = TheirHistogram("vllm:b", "B.", tuple(LABELS), registry=registry, buckets=BOUNDS).labels(**LABELS)
    summary = TheirSummary("vllm:c", "C.", tuple(LABELS), registry=registry).labels(**LABELS)
    return registry, (counter.inc, histogram.observe, summary.observe)


def without_start_times(registry):
    return [line for line in generate_latest(registry).decode().splitlines() if "_created{" not in line]


class PageTests(SynchronousTestCase):
    @given(st.lists(st.floats(0, 100) | st.sampled_from(BOUNDS)))
    def test_a_page_is_that_of_prometheus_client_for_the_same_values(self, values):
        own, theirs = own_kinds(), their_kinds()
        for verbs in (own[1], theirs[1]):
            for value in values:
                for verb in verbs:
                    verb(value)
        self.assertEqual(without_start_times(own[0]), without_start_times(theirs[0]))

    def test_counters_histograms_and_summaries_tell_when_they_began(self):
        family = Family("counter", "a_total", "A.")
        family.add(Counter(1234.5), {})
        page = render(page_of(family), "")[0]
        self.assertIn(b"# HELP a_created A.\n# TYPE a_created gauge\na_created 1234.5\n", page)

    def test_one_primitive_may_stand_under_two_names(self):
        new, old = Family("gauge", "new", "N."), Family("gauge", "old", "O.")
        gauge = old.add(new.add(Gauge(), {}), {})
        gauge.value = 7
        page = render(page_of(new, old), "")[0]
        self.assertIn(b"\nnew 7.0\n", page)
        self.assertIn(b"\nold 7.0\n", page)

    def test_gauges_are_refreshed_when_the_page_is_asked_for(self):
        family = Family("gauge", "a", "A.")
        gauge = family.add(Gauge(), {})
        registry = CollectorRegistry(auto_describe=False)
        registry.register(Page([family], lambda: setattr(gauge, "value", gauge.value + 1)))
        self.assertTrue(render(registry, "")[0].endswith(b"\na 1.0\n"))
        self.assertTrue(render(registry, "")[0].endswith(b"\na 2.0\n"))

    def test_a_series_may_be_added_after_the_first_page(self):
        family = Family("gauge", "a", "A.")
        registry = page_of(family)
        render(registry, "")
        family.add(Gauge(3), {"x": "y"})
        self.assertIn(b'\na{x="y"} 3.0\n', render(registry, "")[0])


class HistogramTests(SynchronousTestCase):
    def test_many_equal_values_are_counted_as_if_one_by_one(self):
        many, single = Histogram(BOUNDS, 0.0), Histogram(BOUNDS, 0.0)
        many.observe_many(0.75, 4)
        for _ in range(4):
            single.observe(0.75)
        self.assertEqual((many.counts, many.total), (single.counts, single.total))


class RenderTests(SynchronousTestCase):
    def setUp(self):
        family = Family("counter", "vllm:a_total", "A.")
        family.add(Counter(0.0), {})
        self.registry = page_of(family)

    def test_a_plain_page_is_announced_as_vllm_does(self):
        for accept in ("", "*/*", "text/plain;version=0.0.4"):
            self.assertEqual(render(self.registry, accept)[1], "text/plain; version=1.0.0; charset=utf-8")

    def test_openmetrics_is_spoken_to_those_who_read_colons(self):
        page, content_type = render(self.registry, PROMETHEUS_3)
        self.assertTrue(content_type.startswith("application/openmetrics-text"))
        self.assertIn(b"\nvllm:a_total 0.0\n", page)
        self.assertTrue(page.endswith(b"# EOF\n"))

    def test_names_keep_their_colon_whatever_is_asked_for(self):
        for accept in ("", PROMETHEUS_2, PROMETHEUS_3, "text/plain;version=1.0.0", "application/openmetrics-text"):
            self.assertIn(b"\nvllm:a_total 0.0\n", render(self.registry, accept)[0])
