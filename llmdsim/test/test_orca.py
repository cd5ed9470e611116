from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from llmdsim.sim.metrics import Load
from llmdsim.web.orca import load_metrics


class Asking:
    """A request that asks for a format, or for none."""

    def __init__(self, asked: bytes | None) -> None:
        self._asked = asked

    def getHeader(self, name: bytes) -> bytes | None:
        return self._asked if name == b"endpoint-load-metrics-format" else None


class LoadReportTests(SynchronousTestCase):
    def report(self, asked: bytes | None) -> tuple[tuple[bytes, bytes], ...]:
        return load_metrics(Asking(asked), lambda: Load(running=5, waiting=3, kv_usage=0.25))

    def test_text_names_each_metric(self) -> None:
        words = b"TEXT named_metrics.num_requests_waiting=3.0, named_metrics.kv_cache_usage_perc=0.25"
        for asked in (b"TEXT", b"text"):
            self.assertEqual(self.report(asked), ((b"endpoint-load-metrics", words),))

    def test_json_has_blanks_as_pythons_has(self) -> None:
        words = b'JSON {"named_metrics": {"num_requests_waiting": 3.0, "kv_cache_usage_perc": 0.25}}'
        self.assertEqual(self.report(b"JSON"), ((b"endpoint-load-metrics", words),))

    def test_who_asks_for_nothing_or_another_format_gets_nothing(self) -> None:
        self.assertEqual([self.report(asked) for asked in (None, b"", b"BIN")], [(), (), ()])
