from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from llmdsim.test.doors import Client, Door, Heard, chat
from llmdsim.web.site import make_site

KEY = "sk-test"
VARY = "Access-Control-Request-Method, Access-Control-Request-Headers, Access-Control-Request-Private-Network"


class KeyTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.door = Door("--strict", "--api-key", KEY, "second")

    def get(self, path: str, **headers: str) -> tuple[int, bytes]:
        heard = self.door.ask("GET", path, headers=headers)
        return heard.status, heard.body

    def test_a_guarded_path_wants_one_of_the_keys_as_a_bearer_token(self) -> None:
        for key in (KEY, "second"):
            self.assertEqual(self.get("/v1/models", Authorization=f"Bearer {key}")[0], 200)
        self.assertEqual(self.get("/v1/models", Authorization=f"bearer {KEY}")[0], 200)

    def test_anything_else_is_unauthorized_in_a_bare_string(self) -> None:
        refusal = 401, b'{"error":"Unauthorized"}'
        self.assertEqual(self.get("/v1/models"), refusal)
        for value in ("", "Bearer", "Bearer nope", f"Basic {KEY}", KEY, f"Bearer  {KEY}", f"Bearer {KEY}\xff"):
            self.assertEqual(self.get("/v1/models", Authorization=value), refusal, value)

    def test_unknown_guarded_paths_do_not_tell_that_they_are_unknown(self) -> None:
        for path in ("/v1/zzz", "/v10", "/v2", "/inference/x", "/cohere/x", "/%761/models", "/v1/models/"):
            self.assertEqual(self.get(path), (401, b'{"error":"Unauthorized"}'), path)

    def test_other_paths_are_open(self) -> None:
        for path, status in (("/health", 200), ("/metrics", 200), ("/load", 200), ("/nowhere", 404), ("/", 404)):
            self.assertEqual(self.get(path)[0], status, path)

    def test_options_are_exempt(self) -> None:
        self.assertEqual(self.door.ask("OPTIONS", "/v1/models").status, 405)

    def test_a_hot_route_is_guarded_too(self) -> None:
        self.assertEqual(Client(self.door).post("/v1/chat/completions", chat(1)).status(), 401)
        self.assertEqual(
            Client(self.door).post("/v1/chat/completions", chat(1), f"Authorization: Bearer {KEY}").status(), 200
        )

    def test_a_refusal_has_a_request_id_but_says_nothing_of_origins(self) -> None:
        door = Door("--api-key", KEY, "--allowed-origins", "*", "--enable-request-id-headers")
        heard = door.ask("GET", "/v1/models", headers={"Origin": "http://x", "X-Request-Id": "mine"})
        self.assertEqual((heard.status, heard.header("x-request-id")), (401, "mine"))
        self.assertIsNone(heard.header("access-control-allow-origin"))

    def test_without_keys_all_is_open(self) -> None:
        self.assertEqual(Door("--strict").ask("GET", "/v1/models").status, 200)


class CorsTests(SynchronousTestCase):
    def ask(self, *flags: str, method: str = "GET", **headers: str) -> Heard:
        fields = {name.replace("_", "-"): value for name, value in {"Origin": "http://x", **headers}.items()}
        return Door("--strict", *flags).ask(method, "/version", headers=fields)

    def preflight(self, *flags: str, method: str = "POST", **headers: str) -> Heard:
        return self.ask(*flags, method="OPTIONS", Access_Control_Request_Method=method, **headers)

    def allowed(self, heard: Heard) -> dict[str, Any]:
        prefix = b"access-control-"
        found = {name.lower(): values[0] for name, values in heard.headers.getAllRawHeaders()}
        return {name[len(prefix) :].decode(): found[name].decode() for name in found if name.startswith(prefix)}

    def test_no_origin_is_allowed_by_default(self) -> None:
        heard = self.preflight()
        self.assertEqual((heard.status, heard.body), (400, b"Disallowed CORS origin"))
        self.assertEqual(heard.header("content-type"), "text/plain; charset=utf-8")
        self.assertEqual(self.allowed(heard).get("allow-origin"), None)
        self.assertEqual((self.ask().status, self.allowed(self.ask())), (200, {}))

    def test_a_star_allows_all_origins(self) -> None:
        heard = self.preflight("--allowed-origins", "*", Access_Control_Request_Headers="x-a, X-B")
        self.assertEqual((heard.status, heard.body), (200, b"OK"))
        self.assertEqual(
            self.allowed(heard),
            {
                "allow-origin": "*",
                "allow-methods": "DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT, QUERY",
                "max-age": "600",
                "allow-headers": "x-a, X-B",
            },
        )
        self.assertEqual(heard.headers.getRawHeaders("vary"), ["Origin", VARY])
        self.assertEqual(self.allowed(self.ask("--allowed-origins", "*")), {"allow-origin": "*"})

    def test_a_listed_origin_is_mirrored(self) -> None:
        flags = "--allowed-origins", '["http://x", "http://y"]'
        self.assertEqual(self.allowed(self.preflight(*flags))["allow-origin"], "http://x")
        self.assertEqual(self.allowed(self.ask(*flags)), {"allow-origin": "http://x"})
        self.assertEqual(self.allowed(self.ask(*flags, Origin="http://z")), {})
        self.assertEqual(self.preflight(*flags, Origin="http://z").body, b"Disallowed CORS origin")

    def test_with_credentials_the_origin_is_named_even_for_a_star(self) -> None:
        flags = "--allowed-origins", "*", "--allow-credentials"
        expected = {"allow-origin": "http://x", "allow-credentials": "true"}
        self.assertEqual(self.allowed(self.ask(*flags)), expected)
        self.assertEqual(self.allowed(self.preflight(*flags)).items() & expected.items(), expected.items())

    def test_all_that_is_disallowed_is_named(self) -> None:
        flags = "--allowed-methods", "GET", "--allowed-headers", "X-Mine"
        heard = self.preflight(*flags, Access_Control_Request_Headers="x-mine, x-other")
        self.assertEqual(heard.body, b"Disallowed CORS origin, method, headers")
        heard = self.preflight(
            *flags, "--allowed-origins", "*", method="GET", Access_Control_Request_Headers="x-mine, accept"
        )
        self.assertEqual((heard.status, heard.body), (200, b"OK"))
        self.assertEqual(
            self.allowed(heard)["allow-headers"], "Accept, Accept-Language, Content-Language, Content-Type, X-Mine"
        )

    def test_a_private_network_is_never_allowed(self) -> None:
        heard = self.preflight("--allowed-origins", "*", Access_Control_Request_Private_Network="true")
        self.assertEqual((heard.status, heard.body), (400, b"Disallowed CORS private-network"))

    def test_a_404_has_the_headers_too(self) -> None:
        heard = Door("--allowed-origins", "*").ask("GET", "/nowhere", headers={"Origin": "http://x"})
        self.assertEqual((heard.status, self.allowed(heard)), (404, {"allow-origin": "*"}))

    def test_a_stream_has_the_headers_too(self) -> None:
        client = Client(Door("--allowed-origins", "*"))
        client.post("/v1/chat/completions", chat(1, stream=True), "Origin: http://x")
        self.assertIn(b"access-control-allow-origin: *\r\n", client.heard().lower())

    def test_options_that_are_no_preflight_find_no_route(self) -> None:
        self.assertEqual(self.ask("--allowed-origins", "*", method="OPTIONS").status, 405)


class RootPathTests(SynchronousTestCase):
    def status(self, path: str, *headers: str) -> int | None:
        door = Door("--strict", "--api-key", KEY)
        door.site = make_site(door.app, clock=door.clock, max_body=1 << 20, root_path="/sim/")
        return Client(door).post(path, chat(1), *headers).status()

    def test_it_may_be_there_and_may_be_left_out(self) -> None:
        for path in ("/sim/v1/chat/completions", "/v1/chat/completions"):
            self.assertEqual(self.status(path, f"Authorization: Bearer {KEY}"), 200, path)
        self.assertEqual(self.status("/simv1/chat/completions"), 404)

    def test_what_is_under_it_is_guarded(self) -> None:
        self.assertEqual(self.status("/sim/v1/chat/completions"), 401)
