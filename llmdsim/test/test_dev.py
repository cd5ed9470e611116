from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from llmdsim.test.doors import DONE, Client, Door, Heard, chat, text

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
DEV = {"VLLM_SERVER_DEV_MODE": "1"}
PAUSED = "Generation is paused. Please retry after it resumes."
SLOW = "--time-to-first-token", "1s", "--inter-token-latency", "1s"


class DoorTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.door = Door("--strict", *SLOW, environ=DEV)

    def call(self, path: str, method: str = "POST", **options: Any) -> Any:
        heard = self.heard(path, method, **options)
        self.assertEqual(heard.status, 200, heard.body)
        return heard.json() if heard.body else None

    def heard(self, path: str, method: str = "POST", **options: Any) -> Heard:
        return self.door.ask(method, path, **options)

    def begin(self, tokens: int = 5, **fields: Any) -> Client:
        return Client(self.door).post(CHAT, chat(tokens, **fields))


class GateTests(SynchronousTestCase):
    def test_a_strict_server_has_them_in_dev_mode_only(self) -> None:
        self.assertEqual(Door("--strict").ask("POST", "/sleep").status, 404)
        self.assertEqual(Door("--strict", environ=DEV).ask("POST", "/sleep").status, 200)

    def test_any_other_server_has_them(self) -> None:
        self.assertEqual(Door().ask("GET", "/is_sleeping").json(), {"is_sleeping": False})

    def test_they_need_no_key(self) -> None:
        self.assertEqual(Door("--api-key", "k").ask("GET", "/is_sleeping").status, 200)


class SleepTests(DoorTestCase):
    def test_it_sleeps_and_wakes_up(self) -> None:
        self.assertEqual(self.call("/sleep?level=2"), {"status": "sleeping", "level": 2})
        self.assertEqual(self.call("/is_sleeping", "GET"), {"is_sleeping": True})
        self.assertEqual(self.call("/wake_up"), {"status": "awake", "tags": None})
        self.assertEqual(self.call("/is_sleeping", "GET"), {"is_sleeping": False})

    def test_it_wakes_up_by_tags(self) -> None:
        self.call("/sleep")
        self.assertEqual(self.call("/wake_up?tags=weights"), {"status": "sleeping", "tags": ["weights"]})
        self.assertEqual(self.call("/wake_up?tags=kv_cache"), {"status": "awake", "tags": ["kv_cache"]})

    def test_a_request_hangs_until_it_wakes_up_and_waits_in_the_gauge(self) -> None:
        self.call("/sleep")
        client = self.begin(1)
        self.door.clock.pump([5.0, 5.0])
        self.assertIsNone(client.status())
        self.assertEqual(self.door.gauge("vllm:num_requests_waiting"), 1)
        self.call("/wake_up")
        self.door.clock.advance(1)
        self.assertEqual(client.status(), 200)

    def test_the_gauge_shows_one_state(self) -> None:
        for path, states in (("/sleep?level=1", "010"), ("/sleep?level=0", "000"), ("/wake_up", "100")):
            self.call(path)
            page = self.door.ask("GET", "/metrics").body.decode()
            names = "awake", "weights_offloaded", "discard_all"
            lines = [line for line in page.splitlines() if line.startswith("vllm:engine_sleep_state{")]
            found = {name: line[-3] for name in names for line in lines if f'"{name}"' in line}
            self.assertEqual("".join(found[name] for name in names), states, path)

    def test_operations_are_on_the_page_once_there_was_one(self) -> None:
        name = "vllm:sleep_mode_operation_duration_seconds_count"
        self.assertNotIn(name, self.door.ask("GET", "/metrics").body.decode())
        self.call("/sleep")
        self.assertIn(f'{name}{{operation="sleep"}} 1.0', self.door.ask("GET", "/metrics").body.decode())

    def test_the_kv_cache_can_be_given_up_in_a_pause(self) -> None:
        self.assertEqual(self.heard("/release_kv_cache_memory").fault()[:2], (500, "InternalServerError"))
        self.call("/pause")
        self.assertEqual(self.call("/release_kv_cache_memory"), {"status": "kv_cache_released"})


class QueryTests(DoorTestCase):
    def test_a_bad_level_is_an_error_of_the_query(self) -> None:
        message = (
            "1 validation error:\n  {'type': 'less_than_equal', 'loc': 'query.level', 'msg': 'Input should be less "
            "than or equal to 2', 'input': '7', 'ctx': {'le': 2}}"
        )
        self.assertEqual(self.heard("/sleep?level=7").fault(), (400, "Bad Request", message, "query.level"))
        self.assertIn("'int_parsing'", self.heard("/sleep?level=").fault()[2])

    def test_all_errors_are_told(self) -> None:
        _, _, message, param = self.heard("/sleep?level=-1&mode=never").fault()
        self.assertEqual((message[:19], param), ("2 validation errors", "query.level"))
        self.assertIn("Input should be 'abort', 'wait' or 'keep'", message)

    def test_the_last_of_a_name_counts(self) -> None:
        self.assertEqual(self.call("/sleep?level=7&level=2")["level"], 2)

    def test_what_is_no_boolean_is_refused(self) -> None:
        self.assertEqual(self.heard("/pause?clear_cache=maybe").fault()[3], "query.clear_cache")


class PauseTests(DoorTestCase):
    def test_it_pauses_and_resumes(self) -> None:
        self.assertEqual(self.call("/pause"), {"status": "paused"})
        self.assertEqual(self.call("/is_paused", "GET"), {"is_paused": True})
        self.assertEqual(self.call("/resume"), {"status": "resumed"})
        self.assertEqual(self.call("/is_paused", "GET"), {"is_paused": False})

    def test_a_newcomer_is_refused(self) -> None:
        self.call("/pause")
        self.assertEqual(self.door.post(CHAT, chat(1)).fault(), (503, "ServiceUnavailableError", PAUSED, None))

    def test_a_stream_is_refused_in_an_event_after_a_200(self) -> None:
        self.call("/pause")
        for path, body in ((CHAT, chat(1, stream=True)), (COMPLETIONS, text(1, stream=True))):
            heard = Client(self.door).post(path, body).heard()
            self.assertTrue(heard.startswith(b"HTTP/1.1 200"))
            self.assertIn(PAUSED.encode(), heard)
            self.assertIn(b"InternalServerError", heard)

    def test_what_runs_is_aborted(self) -> None:
        stream, whole = self.begin(stream=True), self.begin()
        self.door.clock.pump([1.0, 1.0])
        self.call("/pause")
        *_, last, end = stream.events()
        self.assertEqual((last["choices"][0]["finish_reason"], end), ("abort", DONE))
        self.assertIn(b'"finish_reason":"abort"', whole.heard())
        self.assertEqual(self.door.gauge("vllm:num_requests_running"), 0)

    def test_mode_wait_answers_when_all_have_ended(self) -> None:
        running, pausing = self.begin(1), Client(self.door).post("/pause?mode=wait", {})
        self.assertIsNone(pausing.status())
        self.door.clock.advance(1)
        self.assertEqual((running.status(), pausing.status()), (200, 200))

    def test_mode_keep_freezes_and_the_rest_follows_later(self) -> None:
        stream = self.begin(3, stream=True)
        self.door.clock.advance(1)
        self.call("/pause?mode=keep")
        stream.events()
        self.door.clock.pump([10.0, 10.0])
        self.assertEqual(stream.events(), [])
        self.call("/resume")
        self.assertEqual(stream.events(), [])
        self.door.clock.advance(1)
        self.assertEqual(len(stream.events()), 1)


class AbortTests(DoorTestCase):
    def test_all_are_aborted_where_no_id_is_given(self) -> None:
        clients = [self.begin(), self.begin()]
        self.assertEqual(self.call("/abort_requests", json={}), {"status": "aborted", "aborted": 2})
        for client in clients:
            self.assertIn(b'"finish_reason":"abort"', client.heard())

    def test_given_ids_are_aborted_and_counted_though_they_are_unknown(self) -> None:
        kept, gone = self.begin(), Client(self.door).post(CHAT, chat(5), "X-Request-Id: mine")
        answer = self.call("/abort_requests", json={"request_ids": ["chatcmpl-mine", "unknown"]})
        self.assertEqual(answer, {"status": "aborted", "aborted": 2})
        self.assertEqual((kept.status(), gone.status()), (None, 200))

    def test_a_body_must_be_an_object(self) -> None:
        self.assertEqual(self.heard("/abort_requests", data=b"").fault()[2], "Invalid JSON format")
        self.assertEqual(self.heard("/abort_requests", json=[]).fault()[2], "Request body must be a JSON object")


class LoadReportTests(DoorTestCase):
    def test_a_whole_answer_brings_the_load_where_it_is_asked_for(self) -> None:
        asked = "Endpoint-Load-Metrics-Format: TEXT"
        whole = Client(self.door).post(CHAT, chat(1), asked)
        stream = Client(self.door).post(CHAT, chat(1, stream=True), asked)
        self.door.clock.advance(1)
        self.assertIn(b"endpoint-load-metrics: TEXT named_metrics.num_requests_waiting=0.0, ", whole.heard())
        self.assertNotIn(b"endpoint-load-metrics", stream.heard())


class InsideTests(DoorTestCase):
    def test_the_prefix_cache_is_not_reset_under_a_running_request_unless_told(self) -> None:
        self.assertEqual(self.call("/reset_prefix_cache"), {"success": True})
        self.begin()
        self.assertEqual(self.call("/reset_prefix_cache"), {"success": False})
        self.assertEqual(self.call("/reset_prefix_cache?reset_running_requests=true"), {"success": True})

    def test_other_caches_have_no_answer(self) -> None:
        for path in ("/reset_mm_cache", "/reset_encoder_cache"):
            heard = self.heard(path)
            self.assertEqual((heard.status, heard.body, heard.header("content-type")), (200, b"", None))

    def test_the_world_is_as_large_as_its_parts(self) -> None:
        self.assertEqual(self.call("/get_world_size", "GET"), {"world_size": 1})
        self.door = Door("--tensor-parallel-size", "2", "--data-parallel-size", "2")
        self.assertEqual(self.call("/get_world_size", "GET"), {"world_size": 4})
        self.assertEqual(self.call("/get_world_size?include_dp=false", "GET"), {"world_size": 2})

    def test_a_remote_call_is_answered_by_each_worker(self) -> None:
        self.assertEqual(self.call("/collective_rpc", json={"method": "f"}), {"results": [None]})
        message = "Missing 'method' in request body"
        self.assertEqual(self.heard("/collective_rpc", json={}).fault(), (400, "Bad Request", message, None))

    def test_the_configuration_is_shown_as_text_or_json_without_its_keys(self) -> None:
        self.door = Door("--api-key", "secret")
        self.assertIn("max_num_seqs=5", self.call("/server_info", "GET")["vllm_config"])
        shown = self.call("/server_info?config_format=json", "GET")
        self.assertEqual(shown["vllm_config"]["max_num_seqs"], 5)
        self.assertNotIn("secret", str(shown))
        self.assertEqual(self.heard("/server_info?config_format=xml", "GET").fault()[3], "query.config_format")
