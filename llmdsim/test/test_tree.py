from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from llmdsim.test.doors import Client, Door, chat, text
from llmdsim.web import tree

GENERATING = ("/v1/chat/completions", "/v1/completions")
GETS = ("/health", "/health/ready", "/load", "/metrics", "/ping", "/ready", "/v1/models", "/version", "/openapi.json")
POSTS = ("/detokenize", "/tokenize", "/v1/load_lora_adapter", "/v1/unload_lora_adapter", *GENERATING)


class TreeTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.door = Door()

    def test_every_room_has_its_routes_in_the_app(self) -> None:
        self.assertLessEqual({*GETS, *POSTS}, set(self.door.app.paths()))

    def test_the_wrong_method_of_each_route_is_405_and_names_the_right_one(self) -> None:
        for method, wrong, paths in (("GET", "DELETE", GETS), ("POST", "GET", POSTS)):
            for path in paths:
                heard = self.door.ask(wrong, path)
                self.assertEqual((heard.status, heard.body), (405, b'{"detail":"Method Not Allowed"}'), path)
                self.assertIn(method, heard.header("allow") or "", path)

    def test_generating_routes_are_found_without_klein(self) -> None:
        self.assertLessEqual({(b"POST", path.encode()) for path in GENERATING}, set(self.door.app.table))

    def test_the_table_and_klein_generate_the_same(self) -> None:
        for body in (chat(3, seed=1, request_id="r"), chat(3, seed=1, request_id="r", stream=True)):
            hot = Client(self.door).post(GENERATING[0], body).heard().partition(b"\r\n\r\n")[2]
            self.door.site.table = {}
            self.assertEqual(Client(self.door).post(GENERATING[0], body).heard().partition(b"\r\n\r\n")[2], hot)
            self.assertIn(b"chatcmpl-r", hot)

    def test_a_client_that_leaves_a_route_found_by_klein_frees_its_seat_too(self) -> None:
        door = Door("--time-to-first-token", "1s")
        door.site.table = {}
        client = Client(door).post(GENERATING[1], text(1))
        self.assertEqual(door.rank.scheduler.running, 1)
        client.leave()
        self.assertEqual((door.rank.scheduler.running, door.rank.open), (0, 0))

    def test_the_apps_of_two_ranks_share_no_route_and_no_count(self) -> None:
        other: Any = tree.make_app(Door().rank)
        self.assertIsNot(other.url_map, self.door.app.url_map)
        self.door.post(GENERATING[1], text(1))
        counted = b'http_requests_total{handler="/v1/completions"'
        self.assertIn(counted, self.door.ask("GET", "/metrics").body)
        self.assertNotIn(counted, Door().ask("GET", "/metrics").body)
