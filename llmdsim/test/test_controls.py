from __future__ import annotations

import json
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from llmdsim.test.doors import Client, Door, Heard, chat, text

CONFIG = "/admin/config"
FAKE = "--fake-metrics", '{"running-requests": 3}'
BAD = "BadRequestError"
REAL = "the simulator is reporting real metrics; fake metrics cannot be updated"


def change(door: Door, members: Any) -> Heard:
    return door.ask("POST", CONFIG, data=json.dumps(members).encode())


class ConfigTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.door = Door("--inter-token-latency", "10ms", "--failure-types", "rate_limit")

    def shown(self) -> Any:
        return self.door.ask("GET", CONFIG).json()

    def refused(self, members: Any, text: str) -> None:
        before = self.shown()
        self.assertEqual(change(self.door, members).fault(), (400, BAD, text, None))
        self.assertEqual(self.shown(), before)

    def test_every_setting_is_shown_sorted_by_name(self) -> None:
        shown = self.shown()
        self.assertEqual(list(shown), sorted(shown))
        self.assertEqual((shown["DisplayModelName"], shown["inter-token-latency"], shown["port"]), ("m", "10ms", 8000))

    def test_a_change_is_answered_with_the_whole_configuration(self) -> None:
        heard = change(self.door, {"time-to-first-token": "1.5s", "failure-types": None})
        self.assertEqual((heard.status, heard.json()), (200, self.shown()))
        self.assertEqual((self.shown()["time-to-first-token"], self.shown()["failure-types"]), ("1.5s", None))

    def test_a_change_of_any_part_that_fails_changes_nothing(self) -> None:
        rate = {"failure-injection-rate": 10}
        self.refused({**rate, "port": 1}, "field 'port' is not admin-configurable")
        unit = 'field "prefill-overhead": time: unknown unit "d" in duration "1d"'
        self.refused({**rate, "prefill-overhead": "1d"}, unit)
        self.refused({"failure-injection-rate": 101}, "failure injection rate should be between 0 and 100")
        self.refused({**rate, "fake-metrics": {"running-requests": 1}}, REAL)

    def test_what_is_no_json_object_is_refused(self) -> None:
        for data in (b"", b"{", b"\xff", b"[" * 100_000):
            status, kind, message, _ = self.door.ask("POST", CONFIG, data=data).fault()
            self.assertEqual((status, kind), (400, BAD))
            self.assertTrue(message.startswith("failed to unmarshal payload: "), message)
        self.refused([], "failed to unmarshal payload: expected a JSON object")

    def test_new_latencies_hold_for_the_next_request(self) -> None:
        change(self.door, {"time-to-first-token": "2s", "inter-token-latency": 500})
        client = Client(self.door).post("/v1/completions", text(2, stream=True))
        seen = []
        for _ in range(3):
            self.door.clock.advance(1.0)
            seen.append(len(client.events()) > 0)
        self.assertEqual(seen, [False, True, True])
        self.assertEqual(self.door.rank.open, 0)

    def test_streams_go_on_with_the_new_gaps(self) -> None:
        client = Client(self.door).post("/v1/completions", text(9, stream=True))
        client.heard()
        change(self.door, {"inter-token-latency": "1s"})
        self.door.clock.advance(0.0625)
        self.assertEqual(len(client.events()), 1)
        self.door.clock.advance(0.5)
        self.assertEqual(client.events(), [])

    def test_failures_begin_and_end_with_the_next_request(self) -> None:
        def status() -> int:
            return self.door.post("/v1/completions", text(1)).status

        seen = [status()]
        for rate in (100, 0):
            change(self.door, {"failure-injection-rate": rate})
            seen.append(status())
        self.assertEqual(seen, [200, 429, 200])

    def test_a_strict_server_has_no_controls(self) -> None:
        door = Door("--strict")
        asked = (("GET", CONFIG), ("POST", CONFIG), ("POST", "/fake_metrics"))
        self.assertEqual([door.ask(method, path).status for method, path in asked], [404] * 3)


class FakeMetricsTests(SynchronousTestCase):
    def test_an_update_is_on_the_page_at_once(self) -> None:
        door = Door(*FAKE)
        self.assertEqual(door.gauge("vllm:num_requests_running"), 3)
        heard = change(door, {"fake-metrics": {"waiting-requests": 4}})
        self.assertEqual(heard.json()["fake-metrics"]["waiting-requests"], 4)
        gauges = [door.gauge(f"vllm:num_requests_{which}") for which in ("running", "waiting")]
        self.assertEqual(gauges, [3, 4])

    def test_an_update_that_makes_no_sense_changes_nothing(self) -> None:
        door = Door(*FAKE)
        heard = change(door, {"fake-metrics": {"running-requests": 5, "prefix-cache-hits": 1}})
        text = "fake metrics prefix-cache-hits and prefix-cache-queries must be specified together"
        self.assertEqual(heard.fault(), (400, BAD, text, None))
        self.assertEqual(door.gauge("vllm:num_requests_running"), 3)

    def test_the_deprecated_route_takes_the_member_alone(self) -> None:
        door = Door(*FAKE)
        heard = door.ask("POST", "/fake_metrics", data=b'{"running-requests": 5}')
        self.assertEqual((heard.status, heard.body), (204, b""))
        self.assertEqual(door.gauge("vllm:num_requests_running"), 5)

    def test_the_deprecated_route_fails_with_500(self) -> None:
        for flags, data, problem in (
            ((), b"{}", REAL),
            (FAKE, b'{"running-requests": -1}', "fake metrics request counters cannot be negative"),
            (FAKE, b"null", "failed to unmarshal payload: expected a JSON object"),
        ):
            heard = Door(*flags).ask("POST", "/fake_metrics", data=data)
            text = f"Failed to update fake metrics: {problem}"
            self.assertEqual(heard.fault(), (500, "InternalServerError", text, None))


class ErrorOnDemandTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.door = Door()

    def heard(self, value: str, path: str = "/v1/completions", body: Any = None) -> Heard:
        return self.door.post(path, body or text(1), X_Return_Error=value)

    def test_the_status_and_its_type_are_those_asked_for(self) -> None:
        types = {400: BAD, 404: "NotFoundError", 418: "APIConnectionError", 429: "RateLimitError"}
        for status, kind in {**types, 422: "UnprocessableEntityError", 503: "InternalServerError"}.items():
            message = f"Simulated error triggered by X-Return-Error header (code {status})"
            self.assertEqual(self.heard(str(status)).fault(), (status, kind, message, None))

    def test_what_is_no_status_is_a_bad_request(self) -> None:
        for value in ("soon", "99", "600", "4 0 4", "1_00", "\u00b2\u00b2\u00b2", "4" * 5000):
            heard = Client(self.door).post("/v1/completions", text(1), f"X-Return-Error: {value}").heard()
            self.assertIn(b" 400 ", heard.partition(b"\r\n")[0])
            self.assertIn(b'Invalid X-Return-Error header value \\"', heard)
            self.assertIn(b'": must be an integer'.replace(b'"', b'\\"'), heard)

    def test_a_status_without_body_has_none(self) -> None:
        heard = self.heard("204")
        self.assertEqual((heard.status, heard.body), (204, b""))

    def test_the_error_precedes_anything_wrong_with_the_body_but_not_bad_json(self) -> None:
        self.assertEqual(self.heard("503", body={"model": "unknown"}).status, 503)
        heard = Client(self.door)
        heard.channel.dataReceived(
            b"POST /v1/completions HTTP/1.1\r\nContent-Type: application/json\r\n"
            b"X-Return-Error: 503\r\nContent-Length: 1\r\n\r\n{"
        )
        self.assertEqual(heard.status(), 400)

    def test_every_generating_route_and_no_other_obeys(self) -> None:
        question = [{"role": "user", "content": "hi"}]
        for path, body in (
            ("/v1/chat/completions", chat(1)),
            ("/v1/responses", {"input": "hi"}),
            ("/v1/messages", {"model": "m", "max_tokens": 1, "messages": question}),
            ("/inference/v1/generate", {"token_ids": [1], "sampling_params": {}}),
        ):
            self.assertEqual(self.heard("418", path, body).status, 418, path)
        self.assertEqual(self.heard("418", "/v1/embeddings", {"input": "hi"}).status, 200)
        self.assertEqual(self.heard("418", "/tokenize", {"prompt": "hi"}).status, 200)

    def test_an_empty_header_is_none(self) -> None:
        self.assertEqual(Client(self.door).post("/v1/completions", text(1), "X-Return-Error:").status(), 200)
