from __future__ import annotations

import sys
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from twisted.application.service import IService, IServiceMaker, MultiService
from twisted.internet.error import CannotListenError
from twisted.internet.testing import MemoryReactorClock
from twisted.plugin import getPlugins
from twisted.trial.unittest import SynchronousTestCase

from llmdsim.tap import Options, Port, Reader, Threads, makeService
from llmdsim.test.doors import Client, chat, text
from llmdsim.test.recordings import answers, write


def parsed(*words: str) -> Options:
    options = Options()
    options.parseOptions(list(words))
    return options


class TapTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.errors = StringIO()
        self.patch(sys, "__stderr__", self.errors)

    def make(self, *words: str) -> tuple[MultiService, MemoryReactorClock]:
        """A started service of model ``m`` on a reactor in memory."""
        reactor = MemoryReactorClock()
        service = makeService(parsed("--model", "m", *words), reactor)
        service.privilegedStartService()
        service.startService()
        self.addCleanup(self.stop, service, reactor)
        return service, reactor

    def stop(self, service: MultiService, reactor: MemoryReactorClock) -> None:
        if service.running:
            stopped: Any = service.stopService()
            reactor.advance(60)
            self.successResultOf(stopped)

    def client(self, reactor: MemoryReactorClock, place: int = 0) -> Client:
        """A connection to one of the listening ports."""
        door: Any = SimpleNamespace(site=reactor.tcpServers[place][1])
        return Client(door)

    def gives_up(self, status: int, *words: str) -> str:
        """The one line that is said before a start-up ends with this status."""
        with self.assertRaises(SystemExit) as ended:
            self.make(*words)
        self.assertEqual(ended.exception.code, status)
        said = self.errors.getvalue()
        self.assertEqual(said.count("\n"), 1, said)
        return said


class OptionsTests(TapTestCase):
    def test_the_words_after_twistd_llmdsim_become_a_configuration(self) -> None:
        config = parsed("serve", "some/model", "--served-model-name", "a", "b", "--port=8123").config
        self.assertEqual((config.model, config.served_model_name, config.port), ("some/model", ("a", "b"), 8123))

    def test_a_wrong_word_is_one_line_and_status_2(self) -> None:
        said = self.gives_up(2, "--max-num-seqs", "many")
        self.assertTrue(said.startswith('llmdsim: invalid argument "many" for "--max-num-seqs" flag'), said)
        self.errors.truncate(0)
        self.gives_up(2, "--no-such-flag")

    def test_help_and_version_are_said_on_standard_output_with_status_0(self) -> None:
        for word, answer in (("--help", "--time-to-first-token"), ("--version", "0.")):
            out = StringIO()
            self.patch(sys, "stdout", out)
            with self.assertRaises(SystemExit) as ended:
                parsed(word)
            self.assertEqual(ended.exception.code, 0)
            self.assertIn(answer, out.getvalue())

    def test_a_model_must_be_named(self) -> None:
        with self.assertRaises(SystemExit) as ended:
            parsed()
        self.assertEqual(ended.exception.code, 2)


class ServiceTests(TapTestCase):
    def test_twistd_finds_the_plugin(self) -> None:
        found: list[Any] = list(getPlugins(IServiceMaker))
        (maker,) = [maker for maker in found if maker.tapname == "llmdsim"]
        self.assertEqual(maker.module, "llmdsim.tap")
        service = maker.makeService(parsed("--model", "m"), MemoryReactorClock())
        self.assertTrue(IService.providedBy(service))

    def test_nothing_listens_before_the_service_starts(self) -> None:
        reactor = MemoryReactorClock()
        makeService(parsed("--model", "m"), reactor)
        self.assertEqual((reactor.tcpServers, reactor.getDelayedCalls()), ([], []))

    def test_a_service_listens_on_its_host_and_port_and_answers(self) -> None:
        _, reactor = self.make("--host", "10.0.0.7", "--port", "8123")
        ((port, _, _, host),) = reactor.tcpServers
        self.assertEqual((port, host), (8123, "10.0.0.7"))
        self.assertEqual(self.client(reactor).post("/v1/chat/completions", chat(3)).status(), 200)

    def test_ranks_listen_on_consecutive_ports_and_count_apart(self) -> None:
        service, reactor = self.make("--data-parallel-size", "2", "--port", "8123")
        self.assertEqual([server[0] for server in reactor.tcpServers], [8123, 8124])
        self.assertEqual([part.name for part in service][2:], ["rank 0", "rank 1"])
        self.client(reactor, 1).post("/v1/completions", text(3))
        counts = []
        for place in range(2):
            client = self.client(reactor, place)
            client.channel.dataReceived(b"GET /metrics HTTP/1.1\r\n\r\n")
            engine = f'vllm:generation_tokens_total{{engine="{place}",model_name="m"}} '.encode()
            counts.append(client.heard().partition(engine)[2].partition(b"\n")[0])
        self.assertEqual(counts, [b"0.0", b"3.0"])

    def test_one_rank_of_many_keeps_the_port_and_has_its_number(self) -> None:
        service, reactor = self.make("--data-parallel-size", "4", "--data-parallel-rank", "2", "--port", "8123")
        self.assertEqual([server[0] for server in reactor.tcpServers], [8123])
        self.assertEqual(service.getServiceNamed("rank 2").name, "rank 2")

    def test_a_busy_port_is_one_line_and_status_1(self) -> None:
        reactor: Any = MemoryReactorClock()

        def busy(port: int, *args: Any) -> None:
            raise CannotListenError("", port, OSError(98, "Address already in use"))

        reactor.listenTCP = busy
        service = makeService(parsed("--model", "m", "--port", "8123"), reactor)
        with self.assertRaises(SystemExit) as ended:
            service.privilegedStartService()
        said = "llmdsim: rank 0: port 8123: [Errno 98] Address already in use\n"
        self.assertEqual((ended.exception.code, self.errors.getvalue()), (1, said))

    def test_a_tokenizer_that_cannot_be_loaded_is_one_line_and_status_1(self) -> None:
        said = self.gives_up(1, "--tokenizer", self.mktemp())
        self.assertTrue(said.startswith("llmdsim: tokenizer "), said)

    def test_a_chat_template_that_cannot_be_read_is_one_line_and_status_1(self) -> None:
        self.gives_up(1, "--chat-template", "/no/such/file.jinja")

    def test_a_dataset_that_cannot_be_had_is_one_line_and_status_1(self) -> None:
        said = self.gives_up(1, "--dataset-path", "/no/such/file")
        self.assertEqual(said, "llmdsim: database file does not exist: /no/such/file\n")

    def test_a_dataset_answers_and_is_closed_at_the_end(self) -> None:
        path = write(Path(self.mktemp()), answers(("hi", "there")))
        service, reactor = self.make("--dataset-path", str(path), "--dataset-in-memory")
        answer = self.client(reactor).post("/v1/completions", text(9, prompt="hi", ignore_eos=False)).heard()
        self.assertIn(b'"text":"there"', answer)
        closed: list[str] = []
        (reader,) = [part for part in service if isinstance(part, Reader)]
        reader.closing.append(lambda: closed.append("closed"))
        self.stop(service, reactor)
        self.assertEqual(closed, ["closed"])

    def test_the_same_seed_gives_the_same_answers(self) -> None:
        first, second, other = (self.answers("--seed", seed) for seed in ("7", "7", "8"))
        self.assertEqual(first, second)
        self.assertNotEqual(first, other)

    def answers(self, *words: str) -> list[Any]:
        _, reactor = self.make(*words)
        client = self.client(reactor)
        found = []
        for body in (chat(20, ignore_eos=False), chat(20, ignore_eos=False, n=2)):
            (event,) = [client.post("/v1/chat/completions", body).heard().partition(b"\r\n\r\n")[2]]
            head, _, tail = event.partition(b'"created":')
            found.append((head, tail.partition(b",")[2]))
        return found


class StopTests(TapTestCase):
    def listening(self, service: MultiService) -> bool:
        (port,) = [part for part in service.getServiceNamed("rank 0") if isinstance(part, Port)]
        return bool(port.running)

    def test_stopping_waits_for_open_requests_and_refuses_new_ones_meanwhile(self) -> None:
        service, reactor = self.make("--time-to-first-token", "5s")
        stream = self.client(reactor).post("/v1/chat/completions", chat(1, stream=True))
        stopped: Any = service.stopService()
        reactor.advance(1)
        self.assertNoResult(stopped)
        self.assertTrue(self.listening(service))
        self.assertEqual(self.client(reactor).post("/v1/completions", text(1)).status(), 503)
        reactor.advance(4)
        self.assertTrue(stream.heard().endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n"))
        self.successResultOf(stopped)
        self.assertFalse(self.listening(service))

    def test_threads_work_until_the_last_request_has_ended(self) -> None:
        service, reactor = self.make("--time-to-first-token", "5s")
        self.client(reactor).post("/v1/chat/completions", chat(1))
        stopped: Any = service.stopService()
        threads = [part for part in service if isinstance(part, Threads)]
        self.assertEqual([bool(part.running) for part in threads], [True, True])
        reactor.advance(5)
        self.successResultOf(stopped)
        self.assertEqual([bool(part.running) for part in threads], [False, False])

    def test_stopping_gives_up_after_the_shutdown_timeout(self) -> None:
        service, reactor = self.make("--time-to-first-token", "500s", "--shutdown-timeout", "3")
        self.client(reactor).post("/v1/chat/completions", chat(1))
        stopped: Any = service.stopService()
        reactor.advance(2.9)
        self.assertNoResult(stopped)
        reactor.advance(0.1)
        self.successResultOf(stopped)

    def test_an_idle_service_stops_at_once_and_leaves_no_timer(self) -> None:
        service, reactor = self.make()
        self.client(reactor).leave()
        stopped: Any = service.stopService()
        self.successResultOf(stopped)
        self.assertEqual(reactor.getDelayedCalls(), [])

    def test_the_reactors_lateness_is_measured(self) -> None:
        _, reactor = self.make()
        reactor.pump([0.1, 0.4])
        client = self.client(reactor)
        client.channel.dataReceived(b"GET /metrics HTTP/1.1\r\n\r\n")
        self.assertRegex(client.heard().decode(), r"(?m)^llmdsim:reactor_lag_seconds\w*(\{.*\})? 0\.3\d*$")
