from __future__ import annotations

import json
from uuid import UUID

from twisted.trial.unittest import SynchronousTestCase

from llmdsim.test.doors import Door

POD = {"POD_IP": "10.0.0.7"}


class EventSourceTests(SynchronousTestCase):
    def sources(self, *flags: str) -> dict[str, dict[str, object]]:
        sources: dict[str, dict[str, object]] = Door(*flags, environ=POD).ask("GET", "/kv_event_sources").json()
        return sources

    def test_without_events_there_is_no_source(self) -> None:
        self.assertEqual(self.sources("--strict"), {})
        self.assertEqual(self.sources("--kv-events-config", '{"enable_kv_cache_events":false}'), {})

    def test_vllms_flag_is_shown_with_its_defaults(self) -> None:
        given = {"enable_kv_cache_events": True, "topic": "kv@pod@m", "hwm": 7}
        found = self.sources("--strict", "--kv-events-config", json.dumps(given))
        expected = {
            "enable_kv_cache_events": True,
            "publisher": "zmq",
            "endpoint": "tcp://*:5557",
            "replay_endpoint": None,
            "buffer_steps": 10000,
            "hwm": 7,
            "max_queue_size": 100000,
            "topic": "kv@pod@m",
        }
        self.assertEqual(found, {"0": expected})
        self.assertEqual(list(found["0"]), list(expected))

    def test_the_simulators_own_flags_are_shown_in_the_same_form(self) -> None:
        (source,) = self.sources("--enable-kvcache").values()
        self.assertEqual(source["endpoint"], "tcp://127.0.0.1:5557")
        self.assertEqual(source["topic"], "kv@10.0.0.7:8000@m")

    def test_an_empty_endpoint_is_no_source(self) -> None:
        self.assertEqual(self.sources("--enable-kvcache", "--zmq-endpoint", ""), {})


class EngineTests(SynchronousTestCase):
    def test_each_rank_has_a_name_that_stays(self) -> None:
        door = Door("--data-parallel-size", "2")
        names = door.ask("GET", "/query").json()
        self.assertEqual(list(names), ["0", "1"])
        self.assertEqual(len({UUID(name["engine_id"]) for name in names.values()}), 2)
        self.assertEqual(door.ask("GET", "/query").json(), names)

    def test_a_strict_server_has_no_query(self) -> None:
        self.assertEqual(Door("--strict").ask("GET", "/query").status, 404)


class ScalingTests(SynchronousTestCase):
    def scale(self, body: object) -> tuple[int, str, str, str | None]:
        return Door("--strict").post("/scale_elastic_ep", body).fault()

    def test_a_size_is_required_and_positive(self) -> None:
        for body, message in (
            ({}, "new_data_parallel_size is required"),
            ({"new_data_parallel_size": "2"}, "new_data_parallel_size must be a positive integer"),
            ({"new_data_parallel_size": 1, "drain_timeout": 0}, "drain_timeout must be a positive integer"),
        ):
            self.assertEqual(self.scale(body), (400, "Bad Request", message, None))

    def test_only_the_size_it_has_can_be_had(self) -> None:
        message = "Elastic EP scaling requires enable_elastic_ep=True."
        self.assertEqual(self.scale({"new_data_parallel_size": 2}), (400, "Bad Request", message, None))
        heard = Door().post("/scale_elastic_ep", {"new_data_parallel_size": 1})
        self.assertEqual(heard.json(), {"message": "Scaled to 1 data parallel engines"})

    def test_it_is_never_scaling(self) -> None:
        self.assertFalse(Door("--strict").ask("POST", "/is_scaling_elastic_ep").json()["is_scaling_elastic_ep"])
