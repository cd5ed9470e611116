from __future__ import annotations

import re
from typing import Any

from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read
from twisted.trial.unittest import SynchronousTestCase

from llmdsim.api.compiling import openapi
from llmdsim.test.doors import Client, Door, chat, text

ALIVE = (("GET", "/health"), ("GET", "/ping"), ("POST", "/ping"))
READY = (("GET", "/ready"), ("GET", "/health/ready"))


class HealthTests(SynchronousTestCase):
    def test_health_is_an_empty_object(self) -> None:
        door = Door()
        for method, path in (*ALIVE, *READY):
            heard = door.ask(method, path)
            self.assertEqual((heard.status, heard.body), (200, b"{}"), path)
            self.assertEqual(heard.header("content-type"), "application/json")

    def test_a_strict_health_is_nothing_at_all(self) -> None:
        door = Door("--strict")
        for method, path in (*ALIVE, *READY):
            heard = door.ask(method, path)
            self.assertEqual((heard.status, heard.body, heard.header("content-type")), (200, b"", None), path)

    def test_readiness_waits_for_the_startup_duration_and_health_does_not(self) -> None:
        door = Door("--startup-duration", "10s")
        for seconds, status in ((0, 503), (9.5, 503), (0.5, 200)):
            door.clock.advance(seconds)
            self.assertEqual([door.ask(*probe).status for probe in READY], [status] * 2)
            self.assertEqual([door.ask(*probe).status for probe in ALIVE], [200] * 3)

    def test_a_starting_server_answers_all_the_same(self) -> None:
        self.assertEqual(Door("--startup-duration", "10s").post("/v1/completions", text(1)).status, 200)

    def test_a_probe_by_head_is_405_as_on_vllm(self) -> None:
        heard = Door().ask("HEAD", "/health")
        self.assertEqual((heard.status, heard.header("allow")), (405, "GET"))


class LoadTests(SynchronousTestCase):
    def load(self, *words: str) -> list[Any]:
        door = Door("--time-to-first-token", "1s", "--max-num-seqs", "1", *words)
        loads = [door.ask("GET", "/load").json()]
        clients = [Client(door).post("/v1/chat/completions", chat(1, stream=stream)) for stream in (True, False)]
        loads.append(door.ask("GET", "/load").json())
        clients[0].leave()
        loads.append(door.ask("GET", "/load").json())
        door.clock.pump([0, 1])
        loads.append(door.ask("GET", "/load").json())
        return [load["server_load"] for load in loads]

    def test_load_counts_open_requests_where_it_is_tracked(self) -> None:
        self.assertEqual(self.load("--enable-server-load-tracking"), [0, 2, 1, 0])

    def test_load_is_zero_where_it_is_not_tracked(self) -> None:
        self.assertEqual(self.load(), [0] * 4)


class MetricsTests(SynchronousTestCase):
    def test_the_page_has_vllms_content_type_and_can_be_read(self) -> None:
        heard = Door().ask("GET", "/metrics")
        self.assertEqual(heard.header("content-type"), "text/plain; version=1.0.0; charset=utf-8")
        self.assertIn("vllm:num_requests_running", {family.name for family in read(heard.body.decode())})

    def test_prometheus_gets_the_format_it_asks_for(self) -> None:
        accept = (
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
            "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.1"
        )
        heard = Door().ask("GET", "/metrics", headers={"Accept": accept})
        self.assertTrue(str(heard.header("content-type")).startswith("application/openmetrics-text"))
        self.assertIn("vllm:num_requests_running", {family.name for family in read_openmetrics(heard.body.decode())})

    def test_an_accept_header_that_is_no_text_is_no_bug(self) -> None:
        heard = Door().ask("GET", "/metrics", headers={"Accept": b"\xff"})
        self.assertEqual(self.flushLoggedErrors(), [])
        self.assertEqual(heard.status, 200)

    def test_no_series_is_there_twice(self) -> None:
        door = Door()
        door.post("/v1/chat/completions", chat(3))
        page = door.ask("GET", "/metrics").body.decode()
        series = [line.rpartition(" ")[0] for line in page.splitlines() if not line.startswith("#")]
        self.assertEqual(len(series), len(set(series)))

    def test_a_request_is_counted_with_its_tokens_and_its_reason(self) -> None:
        door = Door()
        door.post("/v1/chat/completions", chat(3))
        door.post("/v1/completions", text(2, stream=True))
        page = door.ask("GET", "/metrics").body.decode()
        lines = re.findall(r'^vllm:request_success_total\{.*finished_reason="length".*\} (\S+)$', page, re.M)
        self.assertEqual((lines, door.gauge("vllm:generation_tokens_total")), (["2.0"], 5))

    def test_the_door_counts_requests_by_route(self) -> None:
        door = Door()
        door.post("/v1/completions", text(1))
        door.post("/v1/completions", {"model": "nope", "prompt": "hi"})
        page = door.ask("GET", "/metrics").body.decode()
        counted = 'http_requests_total{handler="/v1/completions",method="POST",status="%s"} 1.0\n'
        for status in ("2xx", "4xx"):
            self.assertIn(counted % status, page)


class DescriptionTests(SynchronousTestCase):
    def test_the_version_is_vllms(self) -> None:
        self.assertEqual(Door().ask("GET", "/version").body, b'{"version":"0.33.0"}')

    def test_the_document_lists_the_served_paths_that_vllm_describes_and_no_other(self) -> None:
        door = Door()
        document = door.ask("GET", "/openapi.json").json()
        self.assertEqual(document["openapi"], "3.1.0")
        self.assertEqual(set(document["paths"]), set(door.app.paths()) & set(openapi()["paths"]))
        for path, item in document["paths"].items():
            for method in item:
                self.assertFalse(door.ask(method.upper(), path).body.startswith(b'{"detail":'), (method, path))

    def test_the_document_tells_refusals_that_are_sent_and_keeps_vllms_own(self) -> None:
        door = Door()
        document, vllm = door.ask("GET", "/openapi.json").json()["paths"], openapi()["paths"]
        for method, path in (("get", "/v1/responses/{response_id}"), ("post", "/v1/responses/{response_id}/cancel")):
            told, sent = document[path][method]["responses"], door.ask(method.upper(), path)
            self.assertIn(str(sent.status), told)
            self.assertEqual(told | vllm[path][method]["responses"], told)
            self.assertNotIn(str(sent.status), vllm[path][method]["responses"])

    def test_every_reference_of_the_document_is_in_it(self) -> None:
        heard = Door().ask("GET", "/openapi.json")
        named = set(re.findall(r'"#/components/schemas/([^"]+)"', heard.body.decode()))
        self.assertLessEqual(named, set(heard.json()["components"]["schemas"]))

    def test_the_document_can_be_withheld(self) -> None:
        heard = Door("--disable-fastapi-docs").ask("GET", "/openapi.json")
        self.assertEqual((heard.status, heard.body), (404, b'{"detail":"Not Found"}'))
