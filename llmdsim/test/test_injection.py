from __future__ import annotations

from collections import Counter
from random import Random
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from llmdsim.config import Config
from llmdsim.config.checks import FAILURES
from llmdsim.faults import Fault
from llmdsim.sim.injection import Injection
from llmdsim.test.doors import Client, Door, chat, text
from llmdsim.test.support import Ear, make_rank, request, serve

ALWAYS = "--failure-injection-rate", "100", "--failure-types"
OVERLOADED = "The server is overloaded or not ready yet."
GENERATING: tuple[tuple[str, dict[str, Any]], ...] = (
    ("/v1/chat/completions", chat(2)),
    ("/v1/completions", text(2)),
    ("/v1/responses", {"model": "m", "input": "hi"}),
    ("/v1/messages", {"model": "m", "max_tokens": 2, "messages": [{"role": "user", "content": "hi"}]}),
    ("/inference/v1/generate", {"token_ids": [1, 2], "sampling_params": {"max_tokens": 2}}),
)


def strikes(times: int, percent: int, *types: str, seed: int = 1) -> list[Fault | None]:
    """What so many requests meet."""
    config = Config(model="m", failure_injection_rate=percent, failure_types=types)
    injection = Injection(config, Random(seed))
    found: list[Fault | None] = []
    for _ in range(times):
        try:
            injection.strike()
        except Fault as fault:
            found.append(fault)
        else:
            found.append(None)
    return found


class DrawTests(SynchronousTestCase):
    def test_a_rate_of_0_spares_everyone_and_100_no_one(self) -> None:
        self.assertEqual(strikes(200, 0), [None] * 200)
        self.assertNotIn(None, strikes(200, 100))

    def test_the_rate_is_the_percentage_of_requests_that_fail(self) -> None:
        self.assertIn(4000 - strikes(4000, 30).count(None), range(1100, 1300))

    def test_without_types_every_type_is_as_likely(self) -> None:
        messages = Counter(fault.message for fault in strikes(6000, 100) if fault is not None)
        self.assertEqual(len(messages), len(FAILURES))
        for count in messages.values():
            self.assertIn(count, range(880, 1120))

    def test_only_listed_types_occur(self) -> None:
        found = strikes(200, 100, "server_error", "invalid_api_key")
        self.assertEqual({fault.kind.status for fault in found if fault is not None}, {401, 503})

    def test_the_same_seed_fails_the_same_requests(self) -> None:
        def outcomes(seed: int) -> list[str | None]:
            return [None if fault is None else fault.message for fault in strikes(50, 50, seed=seed)]

        self.assertEqual(outcomes(7), outcomes(7))
        self.assertNotEqual(outcomes(7), outcomes(8))

    def test_without_failures_chance_is_not_asked(self) -> None:
        rng = Random(1)
        Injection(Config(model="m"), rng).strike()
        self.assertEqual(rng.random(), Random(1).random())


class RankTests(SynchronousTestCase):
    def test_a_request_that_fails_has_not_begun(self) -> None:
        rank, clock = make_rank(failure_injection_rate=100)
        ear = Ear(clock)
        self.failureResultOf(serve(rank, request(), ear), Fault)
        self.assertEqual((ear.notes, rank.open, rank.scheduler.running), ([], 0, 0))

    def test_a_rank_that_stops_says_so_rather_than_fail_on_purpose(self) -> None:
        rank, clock = make_rank(failure_injection_rate=100, failure_types=("rate_limit",))
        rank.drain(1.0)
        fault = self.failureResultOf(serve(rank, request(), Ear(clock)), Fault).value
        self.assertEqual(fault.message, "server is shutting down")


class WireTests(SynchronousTestCase):
    def fault(self, kind: str) -> tuple[int, str, str, str | None]:
        return Door(*ALWAYS, kind, "--served-model-name", "shown").post("/v1/completions", {"prompt": "hi"}).fault()

    def test_each_type_has_a_status_a_text_and_a_param(self) -> None:
        limit = "Rate limit reached for m in organization org-xxx on requests per min (RPM): Limit 3, Used 3, "
        length = "This model's maximum context length is 4096 tokens. However, your messages resulted in 4500 tokens."
        missing = "Invalid request: missing required parameter 'model'."
        expected = {
            "rate_limit": (429, "RateLimitError", f"{limit}Requested 1.", None),
            "invalid_api_key": (401, "AuthenticationError", "Incorrect API key provided.", None),
            "context_length": (400, "BadRequestError", length, "messages"),
            "server_error": (503, "InternalServerError", OVERLOADED, None),
            "invalid_request": (400, "BadRequestError", missing, "model"),
            "model_not_found": (404, "NotFoundError", "The model 'm-nonexistent' does not exist", "model"),
        }
        self.assertEqual({kind: self.fault(kind) for kind in FAILURES}, expected)

    def test_a_rate_limit_tells_when_to_come_again(self) -> None:
        heard = Door(*ALWAYS, "rate_limit").post("/v1/completions", text(1))
        names = "retry-after", "x-ratelimit-limit-requests", "x-ratelimit-remaining-requests"
        self.assertEqual([heard.header(name) for name in names], ["1", "3", "0"])

    def test_every_generating_route_fails_streaming_or_not(self) -> None:
        door = Door(*ALWAYS, "server_error")
        for path, body in GENERATING:
            for stream in (False, True):
                heard = Client(door).post(path, {**body, "stream": stream}).heard()
                self.assertIn(b" 503 ", heard.partition(b"\r\n")[0], path)
                self.assertIn(OVERLOADED.encode(), heard, path)

    def test_messages_fail_in_their_own_envelope(self) -> None:
        path, body = GENERATING[3]
        error = {"type": "overloaded_error", "message": OVERLOADED}
        self.assertEqual(Door(*ALWAYS, "server_error").post(path, body).json(), {"type": "error", "error": error})

    def test_what_does_not_generate_never_fails(self) -> None:
        door = Door(*ALWAYS, "server_error")
        asked = {"/v1/embeddings": {"input": "hi"}, "/tokenize": {"prompt": "hi"}, "/v1/completions/render": text(1)}
        self.assertEqual([door.post(path, asked[path]).status for path in asked], [200, 200, 200])
