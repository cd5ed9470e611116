"""Which source a configuration has, and that a server can wait for one."""

from __future__ import annotations

import http.client
import json
import signal
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

from llmdsim.config import Config
from llmdsim.dataset import Echo, Presets
from llmdsim.faults import INTERNAL, Fault
from llmdsim.sim.author import Draft, Source
from llmdsim.sim.request import Form, Model, Stops
from llmdsim.simulated import Simulated
from llmdsim.source import SHORTEST, choose_source
from llmdsim.sqlite import Recorded
from llmdsim.test.doors import BOUND, Door
from llmdsim.test.doors import serve as daemon
from llmdsim.test.fileserver import serving
from llmdsim.test.recordings import ENCODE, answers, write
from llmdsim.test.support import Ear, adapter, free, metric, request, serve


class SourceCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.said: list[str] = []
        self.warned: list[str] = []
        self.threaded: list[Any] = []

    def run_later(self, function: Callable[..., Draft], *arguments: Any) -> Deferred[Draft]:
        answer: Deferred[Draft] = Deferred()
        self.threaded.append(lambda: answer.callback(function(*arguments)))
        return answer

    def source(self, **flags: Any) -> Source:
        return choose_source(
            Config(model="m", **flags),
            Simulated(),
            run=self.run_later,
            at_end=self.addCleanup,
            log=self.said.append,
            warn=self.warned.append,
        )

    def file(self, *pairs: tuple[str, str]) -> Path:
        return write(Path(self.mktemp()), answers(*pairs))

    def draft(self, source: Source, prompt: str = "hi", model: Model | None = None) -> str:
        asked = request(100, ignore_eos=False, model=model or Model("m"))
        draft = source.draft(asked, prompt, ENCODE(prompt), 100, Random(1))
        assert isinstance(draft, Draft)
        return "".join(draft.tokens.texts)


class ChoiceTests(SourceCase):
    def test_without_a_dataset_there_are_echo_and_presets(self) -> None:
        self.assertIsInstance(self.source(mode="echo"), Echo)
        self.assertIs(type(self.source()), Presets)

    def test_the_answers_of_a_strict_server_are_not_short(self) -> None:
        source = self.source(strict=True)
        for seed in range(40):
            draft: Any = source.draft(request(SHORTEST, ignore_eos=False), "hi", ENCODE("hi"), SHORTEST, Random(seed))
            self.assertEqual(len(draft.tokens.ids), SHORTEST)

    def test_an_encoder_has_no_use_for_a_dataset(self) -> None:
        source = self.source(mm_encoder_only=True, dataset_path="/no/such/file", dataset_url="http://127.0.0.1:1/")
        self.assertIs(type(source), Presets)

    def test_a_dataset_answers_from_memory_at_once(self) -> None:
        path = self.file(("hi", "there"))
        self.assertEqual(self.draft(self.source(dataset_path=str(path), dataset_in_memory=True)), "there")
        self.assertEqual(self.said, [f"Dataset: {path}, 1 rows, in memory"])

    def test_a_dataset_in_its_file_answers_from_the_thread(self) -> None:
        source = self.source(dataset_path=str(self.file(("hi", "there"))))
        draft: Any = source.draft(request(ignore_eos=False), "hi", ENCODE("hi"), 9, Random(1))
        self.assertNoResult(draft)
        (answer,) = self.threaded
        answer()
        self.assertEqual(self.successResultOf(draft).tokens.texts, ["there"])

    def test_the_table_may_have_another_name(self) -> None:
        path = write(Path(self.mktemp()), answers(("hi", "there")), table="other")
        flags = {"dataset_path": str(path), "dataset_in_memory": True}
        self.assertEqual(self.draft(self.source(dataset_table_name="other", **flags)), "there")
        with self.assertRaises(ValueError):
            self.source(**flags)

    def test_a_file_that_somebody_writes_is_replaced_by_presets_with_a_warning(self) -> None:
        path = self.file(("hi", "there"))
        with closing(sqlite3.connect(path, isolation_level=None)) as writer:
            writer.execute("BEGIN EXCLUSIVE")
            self.assertIs(type(self.source(dataset_path=str(path))), Presets)
        self.assertRegex("".join(self.warned), "^Dataset: database is locked .*preset sentences are used instead$")

    def test_a_file_that_is_none_ends_the_start(self) -> None:
        with self.assertRaisesRegex(ValueError, "^database file does not exist: /no/such/file$"):
            self.source(dataset_path="/no/such/file")

    def test_a_dataset_is_downloaded_where_it_is_not_there_yet(self) -> None:
        server = serving(self, self.file(("hi", "there")).read_bytes())
        path = Path(self.mktemp(), "a=b.sqlite3")
        flags = {"dataset_path": str(path), "dataset_url": server.url(), "dataset_in_memory": True}
        for _ in range(2):
            self.assertEqual(self.draft(self.source(**flags)), "there")
        self.assertEqual(len(server.asked), 1)
        path.unlink()
        server.act = lambda handler: handler.say(503)
        with self.assertRaisesRegex(ValueError, "^dataset download bad status: 503 Service Unavailable$"):
            self.source(**flags)


class ModelTests(SourceCase):
    def source_of(self, value: str, **flags: Any) -> Source:
        return self.source(dataset_path=value, dataset_in_memory=True, **flags)

    def test_models_may_have_their_own_datasets(self) -> None:
        one, two = self.file(("hi", "one")), self.file(("hi", "two"))
        source = self.source_of(f"alias={one},lora={two}", served_model_name=("shown", "alias"))
        self.assertEqual(self.draft(source, model=Model("shown")), "one")
        self.assertEqual(self.draft(source, model=adapter("lora")), "two")
        self.assertNotIn(self.draft(source, model=adapter("other")), ("one", "two"))
        self.assertFalse(source.filler)
        self.assertEqual(len(source.compose(7, Random(1)).ids), 7)

    def test_a_path_with_an_equals_sign_is_a_path_where_it_exists(self) -> None:
        path = Path(self.mktemp() + "=1.sqlite3")
        self.file(("hi", "there")).replace(path)
        self.assertIsInstance(self.source_of(str(path)), Recorded)


class Slow(Presets):
    """A source that answers when it is told to."""

    def __init__(self) -> None:
        super().__init__(ENCODE)
        self.asked: list[Deferred[Draft]] = []

    def draft(self, *args: Any, **options: Any) -> Any:
        """Later."""
        self.asked.append(Deferred())
        return self.asked[-1]


class WaitingTests(SynchronousTestCase):
    """A rank whose source gives Deferreds."""

    def setUp(self) -> None:
        self.source = Slow()
        self.door = Door(source=self.source)
        self.rank = self.door.rank
        self.ear = Ear(self.door.clock)

    def served(self, **fields: Any) -> Deferred[None]:
        return serve(self.rank, request(9, ignore_eos=False, **fields), self.ear)

    def answer(self, place: int, text: str) -> None:
        self.source.asked[place].callback(Draft(ENCODE(text), complete=True))

    def test_a_request_waits_for_its_source(self) -> None:
        served = self.served()
        self.door.clock.advance(5)
        self.assertEqual(self.ear.heard, [])
        self.answer(0, "late but good")
        self.door.clock.advance(0)
        self.successResultOf(served)
        self.assertEqual(self.ear.text, "late but good")

    def test_the_first_of_several_choices_does_not_wait_for_a_seat_without_the_others(self) -> None:
        served = self.served(n=2)
        self.answer(0, "one")
        self.assertEqual(self.ear.heard, [])
        self.answer(1, "two")
        self.door.clock.advance(0)
        self.successResultOf(served)
        self.assertEqual(["".join(self.ear.plans[index].texts) for index in (0, 1)], ["one", "two"])

    def test_requests_do_not_wait_for_each_other(self) -> None:
        slow, quick = self.served(), self.served(stops=Stops())
        self.answer(1, "quick")
        self.door.clock.advance(0)
        self.successResultOf(quick)
        self.assertNoResult(slow)
        slow.cancel()
        self.failureResultOf(slow, CancelledError)

    def test_who_leaves_meanwhile_leaves_nothing_behind(self) -> None:
        served = self.served()
        served.cancel()
        self.failureResultOf(served, CancelledError)
        self.answer(0, "to nobody")
        self.assertTrue(free(self.rank))
        self.assertEqual(self.ear.heard, [])

    def test_a_fault_of_the_source_is_that_requests_and_is_counted(self) -> None:
        served = self.served()
        self.source.asked[0].errback(Fault(INTERNAL, "Dataset row 1 is broken: ..."))
        self.assertEqual(self.failureResultOf(served, Fault).value.kind, INTERNAL)
        self.assertTrue(free(self.rank))
        self.assertEqual(metric(self.rank, "llmdsim:dataset_errors_total"), 1)

    def test_thinking_comes_before_what_was_waited_for(self) -> None:
        served = serve(self.rank, request(99, ignore_eos=False, form=Form(thinking=True)), self.ear)
        self.source.filler = False
        self.answer(0, "so")
        self.door.clock.advance(0)
        self.successResultOf(served)
        self.assertTrue(self.ear.text.endswith("</think>\n\nso"))


class DoorTests(SynchronousTestCase):
    def test_a_broken_row_is_a_500_and_the_next_request_is_served(self) -> None:
        rows: list[Any] = [*answers(("bad", "x"), ("good", "fine"))]
        rows[0] = (rows[0][0], b"{", 1)
        path = write(Path(self.mktemp()), rows)
        tokenizer = Simulated()
        said: list[str] = []
        source = choose_source(
            Config(model="m", dataset_path=str(path), dataset_in_memory=True),
            tokenizer,
            run=self.fail,
            at_end=self.addCleanup,
            log=said.append,
            warn=self.fail,
        )
        door = Door(source=source, tokenizer=tokenizer)
        status, kind, message, _ = door.post("/v1/completions", {"model": "m", "prompt": "bad"}).fault()
        self.assertEqual((status, kind), (500, "InternalServerError"))
        self.assertTrue(message.startswith("Dataset row 1 is broken: "), message)
        answer = door.post("/v1/completions", {"model": "m", "prompt": "good"}).json()
        self.assertEqual((answer["choices"][0]["text"], answer["choices"][0]["finish_reason"]), ("fine", "stop"))
        self.assertEqual(metric(door.rank, "llmdsim:dataset_errors_total"), 1)


class DaemonTests(SynchronousTestCase):
    def test_a_daemon_answers_from_its_file_through_its_thread(self) -> None:
        path = write(Path(self.mktemp()), answers(*((f"question {i}", f"answer {i}") for i in range(50))))
        process, port = daemon("--dataset-path", str(path))
        self.addCleanup(process.communicate)
        self.addCleanup(process.kill)
        for i in range(50):
            self.assertEqual(self.answer(port, f"question {i}"), f"answer {i}")
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=BOUND)
        self.assertEqual(process.returncode, -signal.SIGTERM)

    def answer(self, port: int, prompt: str) -> str:
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=BOUND)) as connection:
            body = json.dumps({"model": "m", "prompt": prompt})
            connection.request("POST", "/v1/completions", body, {"Content-Type": "application/json"})
            text: str = json.loads(connection.getresponse().read())["choices"][0]["text"]
            return text
