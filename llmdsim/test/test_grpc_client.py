"""The door as grpcio meets it, over TCP; HTTP beside it on the same port."""

from __future__ import annotations

import threading
import time
import urllib.request
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from llmdsim.config import load
from llmdsim.dataset import Presets
from llmdsim.grpc.sniff import GrpcFactory
from llmdsim.sim.rank import Rank
from llmdsim.simulated import Simulated
from llmdsim.test.support import free
from llmdsim.web.site import make_site
from llmdsim.web.transport import Endpoint
from llmdsim.web.tree import make_app

try:
    import grpc

    from llmdsim.grpc import vllm_engine_pb2 as pb
except ImportError:
    skip = "needs the extra grpc, and grpcio"

BOUND = 20  # seconds that any of this may take


def question(tokens: int, stream: bool = True) -> Any:
    params = pb.SamplingParams(max_tokens=tokens, ignore_eos=True)
    return pb.GenerateRequest(text="hello", stream=stream, sampling_params=params)


class Stub:
    """The methods of a server, for a thread of the client's."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.channel = grpc.insecure_channel(f"127.0.0.1:{port}")

    def ask(self, name: str, **fields: Any) -> Any:
        """The answer of a method with one."""
        asked, kind = getattr(pb, f"{name}Request"), getattr(pb, f"{name}Response")
        path = f"/vllm.grpc.engine.VllmEngine/{name}"
        method = self.channel.unary_unary(path, asked.SerializeToString, kind.FromString)
        return method(asked(**fields), timeout=BOUND)

    def generate(self, asked: Any, **options: Any) -> Any:
        """The answers of Generate, as they come."""
        path = "/vllm.grpc.engine.VllmEngine/Generate"
        serialize, parse = pb.GenerateRequest.SerializeToString, pb.GenerateResponse.FromString
        return self.channel.unary_stream(path, serialize, parse)(asked, **{"timeout": BOUND, **options})


class ClientTests(TestCase):
    timeout = 3 * BOUND

    def serve(self, *words: str) -> None:
        from twisted.internet import reactor

        tokenizer = Simulated()
        config = load(["--model", "m", "--seed", "1", *words], {}).ranks()[0]
        self.rank = Rank(config, reactor, time.time, tokenizer, Presets(tokenizer.encode), maybeDeferred)
        site = make_site(make_app(self.rank), clock=reactor, max_body=1 << 24)
        opened: list[Any] = []
        Endpoint(reactor, "127.0.0.1", 0).listen(GrpcFactory(site, self.rank)).addCallback(opened.append)
        self.addCleanup(opened[0].stopListening)
        self.port = opened[0].getHost().port

    def client(self, work: Callable[[Any], Any]) -> Deferred[Any]:
        """Let a client work in a thread."""

        def run() -> Any:
            stub = Stub(self.port)
            try:
                return work(stub)
            finally:
                stub.channel.close()

        return deferToThread(run)

    async def test_a_stream_and_a_whole_answer(self) -> None:
        self.serve("--inter-token-latency", "1ms")
        said = await self.client(lambda stub: list(stub.generate(question(50))))
        self.assertEqual([one.WhichOneof("response") for one in said], ["chunk"] * 50 + ["complete"])
        (whole,) = await self.client(lambda stub: list(stub.generate(question(50, stream=False))))
        self.assertEqual(whole.complete.completion_tokens, 50)

    async def test_http_is_on_the_same_port(self) -> None:
        self.serve()

        def both(stub: Any) -> Any:
            with urllib.request.urlopen(f"http://127.0.0.1:{stub.port}/health", timeout=BOUND) as answer:
                return answer.status, stub.ask("HealthCheck").healthy

        self.assertEqual(await self.client(both), (200, True))

    async def test_a_refusal_is_a_status(self) -> None:
        self.serve("--max-model-len", "100")

        def refused(stub: Any) -> Any:
            try:
                return list(stub.generate(question(200)))
            except grpc.RpcError as error:
                return error.code(), error.details().partition(" cannot")[0]

        self.assertEqual(await self.client(refused), (grpc.StatusCode.INVALID_ARGUMENT, "max_tokens=200"))

    async def test_who_cancels_in_mid_stream_frees_the_seat(self) -> None:
        self.serve("--inter-token-latency", "20ms")

        def cancelled(stub: Any) -> Any:
            answers = stub.generate(question(900))
            next(answers)
            before = self.rank.scheduler.running
            answers.cancel()
            return before, stub.ask("GetServerInfo").active_requests

        self.assertEqual(await self.client(cancelled), (1, 0))
        self.assertTrue(free(self.rank))

    async def test_a_deadline_is_kept(self) -> None:
        self.serve("--time-to-first-token", "60s")

        def late(stub: Any) -> Any:
            try:
                return list(stub.generate(question(1), timeout=0.2))
            except grpc.RpcError as error:
                return error.code(), stub.ask("GetServerInfo").active_requests

        self.assertEqual(await self.client(late), (grpc.StatusCode.DEADLINE_EXCEEDED, 0))

    async def test_a_long_prompt_and_a_reader_who_sleeps_first(self) -> None:
        self.serve("--max-model-len", "1000000")
        asked = question(30_000)
        asked.tokenized.input_ids.extend(range(300_000))
        free_again = threading.Event()

        def sleepy(stub: Any) -> int:
            answers = stub.generate(asked)
            deadline = time.monotonic() + BOUND
            next(answers)
            while not free(self.rank) and time.monotonic() < deadline:
                time.sleep(0.01)  # the server speaks on, whoever reads
            free_again.set()
            return sum(1 for _ in answers)

        self.assertEqual(await self.client(sleepy), 30_000)
        self.assertTrue(free_again.is_set())

    async def test_many_calls_share_a_connection(self) -> None:
        self.serve("--inter-token-latency", "1ms", "--max-num-seqs", "500")

        def many(stub: Any) -> Any:
            calls = [stub.generate(question(20)) for _ in range(300)]
            return {len(list(call)) for call in calls}

        self.assertEqual(await self.client(many), {21})
