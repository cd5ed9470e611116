"""The http_* families."""

from __future__ import annotations

from prometheus_client import CollectorRegistry
from twisted.trial.unittest import SynchronousTestCase

from llmdsim.web.traffic import Traffic

CHAT = "/v1/chat/completions"


class TrafficTests(SynchronousTestCase):
    def setUp(self):
        self.registry = CollectorRegistry(auto_describe=False)
        self.now = 1000.0
        self.traffic = Traffic(self.registry, lambda: self.now)

    def value(self, name, **labels):
        return self.registry.get_sample_value(name, labels)

    def test_requests_are_counted_by_handler_method_and_class_of_status(self):
        for status in (200, 201, 404):
            self.traffic.served(CHAT, "POST", status, 0.2, 10, 20)
        self.assertEqual(self.value("http_requests_total", handler=CHAT, method="POST", status="2xx"), 2)
        self.assertEqual(self.value("http_requests_total", handler=CHAT, method="POST", status="4xx"), 1)

    def test_sizes_are_summed_by_handler_alone(self):
        self.traffic.served("none", "GET", 404, 0.2, 0, 22)
        self.traffic.served("none", "POST", 405, 0.2, 10, 31)
        self.assertEqual(self.value("http_request_size_bytes_count", handler="none"), 2)
        self.assertEqual(self.value("http_request_size_bytes_sum", handler="none"), 10)
        self.assertEqual(self.value("http_response_size_bytes_sum", handler="none"), 53)

    def test_durations_are_shown_finely_for_all_and_coarsely_by_handler_and_method(self):
        self.traffic.served(CHAT, "POST", 200, 0.2, 0, 0)
        self.traffic.served(CHAT, "POST", 500, 2.0, 0, 0)
        self.traffic.served("/v1/models", "GET", 200, 0.05, 0, 0)
        self.assertEqual(self.value("http_request_duration_highr_seconds_bucket", le="0.25"), 2)
        self.assertEqual(self.value("http_request_duration_highr_seconds_count"), 3)
        coarse = {"handler": CHAT, "method": "POST"}
        self.assertEqual(self.value("http_request_duration_seconds_bucket", le="0.5", **coarse), 1)
        self.assertEqual(self.value("http_request_duration_seconds_count", **coarse), 2)

    def test_probes_are_not_counted(self):
        for handler in ("/metrics", "/health", "/load", "/ping", "/version", "/server_info"):
            self.traffic.served(handler, "GET", 200, 0.2, 0, 20)
        self.assertEqual(self.value("http_request_duration_highr_seconds_count"), 0)

    def test_a_handler_is_left_out_for_any_part_that_looks_like_a_probe(self):
        self.traffic.served("/v1/load_lora_adapter", "POST", 200, 0.2, 0, 20)
        self.traffic.served("/v1/unload_lora_adapter", "POST", 200, 0.2, 0, 20)
        self.assertEqual(self.value("http_request_duration_highr_seconds_count"), 1)

    def test_a_series_begins_with_its_first_request(self):
        self.now += 5
        self.traffic.served(CHAT, "POST", 200, 0.2, 0, 0)
        self.now += 5
        self.traffic.served(CHAT, "POST", 200, 0.2, 0, 0)
        began = self.value("http_requests_created", handler=CHAT, method="POST", status="2xx")
        self.assertEqual((began, self.value("http_request_duration_highr_seconds_created")), (1005, 1000))
