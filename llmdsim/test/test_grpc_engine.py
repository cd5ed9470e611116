from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from llmdsim.test.doors import Door
from llmdsim.test.support import WALL, a_plan, free

try:
    from llmdsim.grpc import status
    from llmdsim.grpc import vllm_engine_pb2 as pb
    from llmdsim.grpc.generation import Chunks
    from llmdsim.grpc.messages import framed
    from llmdsim.test.calls import ENGINE, Caller, engine
except ImportError:
    skip = "needs the extra grpc"


def sampling(tokens: int | None, **fields: Any) -> Any:
    return pb.SamplingParams(max_tokens=tokens, **{"ignore_eos": True, **fields})


def question(tokens: int | None = 3, stream: bool = True, **fields: Any) -> Any:
    given = {"text": "hi there"} if "tokenized" not in fields else {}
    return pb.GenerateRequest(**{**given, "sampling_params": sampling(tokens), "stream": stream, **fields})


def tokenized(*ids: int) -> Any:
    return pb.TokenizedInput(input_ids=ids)


class Asked:
    """One call of Generate and what is heard of it."""

    def __init__(self, caller: Any, asked: Any) -> None:
        self.caller, self.id = caller, caller.call(ENGINE + "Generate", asked)

    @property
    def heard(self) -> Any:
        return self.caller.heard(self.id)

    @property
    def said(self) -> list[Any]:
        return [pb.GenerateResponse.FromString(data) for data in self.heard.messages()]

    @property
    def fault(self) -> tuple[int, str]:
        heard = self.heard
        return heard.status, heard.text


class GenerateTests(SynchronousTestCase):
    def ask(self, asked: Any, *words: str) -> list[Any]:
        call = Asked(engine(Door(*words)), asked)
        self.assertEqual(call.heard.status, status.OK)
        return call.said

    def test_a_stream_has_a_chunk_for_each_token_and_then_the_reason(self) -> None:
        *chunks, last = self.ask(question(4))
        counts = {"prompt_tokens": 2, "completion_tokens": 1}
        expected = [
            pb.GenerateResponse(chunk=pb.GenerateStreamChunk(token_ids=one.chunk.token_ids, **counts)) for one in chunks
        ]
        self.assertEqual((chunks, [len(one.chunk.token_ids) for one in chunks]), (expected, [1] * 4))
        self.assertEqual(
            last, pb.GenerateResponse(complete=pb.GenerateComplete(finish_reason="length", prompt_tokens=2))
        )

    def test_a_whole_answer_is_one_message(self) -> None:
        (one,) = self.ask(question(4, stream=False))
        complete = one.complete
        self.assertEqual(len(complete.output_ids), 4)
        self.assertEqual((complete.finish_reason, complete.prompt_tokens, complete.completion_tokens), ("length", 2, 4))

    def test_both_ways_say_the_same(self) -> None:
        chunks = self.ask(question(20))[:-1]
        (whole,) = self.ask(question(20, stream=False))
        self.assertEqual([one.chunk.token_ids[0] for one in chunks], list(whole.complete.output_ids))

    def test_token_ids_are_a_prompt_too(self) -> None:
        ids = (7, 2**32 - 1, 0)
        (one,) = self.ask(question(9, False, tokenized=tokenized(*ids), sampling_params=sampling(3)), "--mode", "echo")
        self.assertEqual((tuple(one.complete.output_ids), one.complete.prompt_tokens), (ids, 3))

    def test_an_answer_without_a_limit_ends_by_itself(self) -> None:
        (one,) = self.ask(pb.GenerateRequest(text="again"), "--mode", "echo")
        self.assertEqual((one.complete.finish_reason, one.complete.completion_tokens), ("stop", 2))

    def test_the_base_model_answers_whatever_it_is_called(self) -> None:
        self.assertEqual(len(self.ask(question(2), "--served-model-name", "other")), 3)

    def test_a_stop_token_stops(self) -> None:
        params = sampling(5, stop_token_ids=[8])
        said = self.ask(question(tokenized=tokenized(7, 8, 9), sampling_params=params), "--mode", "echo")
        self.assertEqual([list(one.chunk.token_ids) for one in said[:-1]], [[7], [8]])
        self.assertEqual(said[-1].complete.finish_reason, "stop")

    def test_a_token_s_bytes_are_those_of_protobuf(self) -> None:
        edges = [0, 1, *(edge for bits in (7, 14, 21, 28) for edge in (2**bits - 1, 2**bits)), 2**32 - 1]
        call = Asked(
            engine(Door("--mode", "echo")), question(tokenized=tokenized(*edges), sampling_params=sampling(11))
        )
        chunks = [pb.GenerateStreamChunk(token_ids=[id], prompt_tokens=11, completion_tokens=1) for id in edges]
        expected = b"".join(framed(pb.GenerateResponse(chunk=chunk)) for chunk in chunks)
        self.assertTrue(call.heard.data.startswith(expected))
        self.assertEqual(call.heard.data, expected + framed(call.said[-1]))


class RefusalTests(SynchronousTestCase):
    def refused(self, asked: Any, *words: str) -> tuple[int, str]:
        return Asked(engine(Door(*words)), asked).fault

    def test_an_empty_prompt_is_refused(self) -> None:
        for asked in question(text=""), question(tokenized=tokenized()), pb.GenerateRequest():
            self.assertEqual(self.refused(asked), (status.INVALID_ARGUMENT, "The decoder prompt cannot be empty"))

    def test_sampling_is_checked_as_in_a_body(self) -> None:
        wrong: dict[str, Any] = {"max_tokens": 0, "temperature": -1.0, "top_p": 2.0, "n": 10**6}
        for field, value in wrong.items():
            code, message = self.refused(question(sampling_params=pb.SamplingParams(**{field: value})))
            self.assertEqual((code, message.split()[0]), (status.INVALID_ARGUMENT, field))

    def test_a_zero_that_need_not_be_given_is_no_value(self) -> None:
        params = pb.SamplingParams(max_tokens=1, top_p=0.0, repetition_penalty=0.0, n=0)
        self.assertEqual(Asked(engine(Door()), question(sampling_params=params)).heard.status, status.OK)

    def test_the_context_window_is_kept(self) -> None:
        code, message = self.refused(question(2000), "--max-model-len", "1000")
        self.assertEqual(code, status.INVALID_ARGUMENT)
        self.assertTrue(message.startswith("max_tokens=2000 cannot be greater than max_model_len=1000."))

    def test_a_full_queue_is_an_exhausted_resource(self) -> None:
        caller = engine(Door("--max-num-seqs", "1", "--max-waiting-queue-length", "0", "--time-to-first-token", "1s"))
        Asked(caller, question())
        expected = status.RESOURCE_EXHAUSTED, "Failed to enqueue request, waiting requests queue is full"
        self.assertEqual(Asked(caller, question()).fault, expected)

    def test_a_server_that_shuts_down_is_unavailable(self) -> None:
        door = Door()
        caller = engine(door)
        door.rank.drain(1)
        self.assertEqual(Asked(caller, question()).fault, (status.UNAVAILABLE, "server is shutting down"))
        id = caller.call(ENGINE + "HealthCheck", pb.HealthCheckRequest())
        (health,) = caller.heard(id).messages()
        self.assertFalse(pb.HealthCheckResponse.FromString(health).healthy)


class LifeTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.door = Door("--time-to-first-token", "1s", "--inter-token-latency", "1s", "--max-num-seqs", "1")
        self.caller = engine(self.door)

    def pass_time(self, *seconds: float) -> None:
        for each in seconds:
            self.door.clock.advance(each)

    def test_tokens_come_at_their_times(self) -> None:
        call = Asked(self.caller, question(3))
        counts = []
        for _ in range(4):
            counts.append(len(call.said))
            self.pass_time(1)
        self.assertEqual(counts, [0, 1, 2, 4])

    def test_late_tokens_share_one_frame(self) -> None:
        call = Asked(self.caller, question(9))
        self.pass_time(1, 7)
        self.assertEqual((len(call.said), len(call.heard.frames)), (8, 2))

    def test_a_reset_frees_the_seat_in_the_same_turn(self) -> None:
        running, waiting = Asked(self.caller, question()), Asked(self.caller, question())
        self.pass_time(1)
        self.caller.cancel(waiting.id)
        self.assertEqual(self.door.rank.scheduler.waiting, 0)
        self.caller.cancel(running.id)
        self.assertTrue(free(self.door.rank))
        self.assertEqual(self.door.clock.getDelayedCalls(), [])

    def test_a_lost_connection_frees_all_seats(self) -> None:
        Asked(self.caller, question()), Asked(self.caller, question())
        self.caller.leave()
        self.assertTrue(free(self.door.rank))

    def test_a_deadline_frees_the_seat(self) -> None:
        self.caller.call(ENGINE + "Generate", question(9), headers={"grpc-timeout": "2S"})
        self.pass_time(1, 1)
        self.assertTrue(free(self.door.rank))

    def test_an_aborted_request_ends_with_what_it_has_said(self) -> None:
        calls = [Asked(self.caller, question(9, request_id=id)) for id in ("speaking", "waiting")]
        self.pass_time(1, 1)
        id = self.caller.call(ENGINE + "Abort", pb.AbortRequest(request_ids=["speaking", "waiting", "unknown"]))
        self.assertEqual(self.caller.heard(id).status, status.OK)
        self.assertEqual([len(call.said) for call in calls], [3, 1])
        self.assertEqual([call.said[-1].complete.finish_reason for call in calls], ["abort"] * 2)
        self.assertTrue(free(self.door.rank))

    def test_a_slow_reader_holds_up_nobody_and_hears_all(self) -> None:
        caller: Caller = engine(self.door, window=100)
        call = Asked(caller, question(200))
        self.pass_time(1, *[1.0] * 200)
        self.assertEqual(len(call.heard.data), 100)
        self.assertTrue(free(self.door.rank))
        for _ in range(200):
            caller.listen(50, call.id)
            if call.heard.status is not None:
                break
        self.assertEqual((call.heard.status, len(call.said)), (status.OK, 201))
        self.assertEqual(call.said[-1].complete.finish_reason, "length")


class Narrow:
    """A call with so much room, and what is said in it."""

    def __init__(self, room: int) -> None:
        self.room, self.blocked = room, False
        self.said = b""

    def open(self, resume: Any) -> None:
        pass

    def send(self, data: bytes) -> None:
        self.said += data
        self.room -= len(data)
        self.blocked = self.room < 0


class RoomTests(SynchronousTestCase):
    def test_without_room_tokens_are_counted_and_not_spelled(self) -> None:
        call: Any = Narrow(0)
        chunks, plan = Chunks(call), a_plan(5000)
        chunks.begin(plan)
        sizes = []
        for i in range(5000):
            chunks.tokens(plan, i, i + 1)
            sizes.append(len(call.said))
        self.assertEqual(set(sizes), {len(framed(pb.GenerateResponse(chunk=chunk(0))))})
        call.room, call.blocked = 1000, False
        chunks.resume()
        self.assertLess(len(call.said), 2000)


def chunk(id: int) -> Any:
    return pb.GenerateStreamChunk(token_ids=[id], prompt_tokens=1, completion_tokens=1)


class InfoTests(SynchronousTestCase):
    def ask(self, name: str, asked: Any, kind: Any, *words: str) -> Any:
        self.door = Door(*words)
        caller = engine(self.door)
        self.door.clock.advance(5)
        heard = caller.heard(caller.call(ENGINE + name, asked))
        return kind.FromString(heard.messages()[0]) if heard.status == status.OK else (heard.status, heard.text)

    def test_the_server_is_well(self) -> None:
        health = self.ask("HealthCheck", pb.HealthCheckRequest(), pb.HealthCheckResponse)
        self.assertEqual((health.healthy, health.message), (True, "Health"))

    def test_the_model_is_the_one_that_is_loaded(self) -> None:
        words = "--served-model-name", "other", "--max-model-len", "77"
        info = self.ask("GetModelInfo", pb.GetModelInfoRequest(), pb.GetModelInfoResponse, *words)
        self.assertEqual(info, pb.GetModelInfoResponse(model_path="m", is_generation=True, max_context_length=77))

    def test_the_server_tells_its_load_and_its_age(self) -> None:
        info = self.ask("GetServerInfo", pb.GetServerInfoRequest(), pb.GetServerInfoResponse)
        expected: dict[str, Any] = {"last_receive_timestamp": WALL + 5, "uptime_seconds": 5, "server_type": "vllm-grpc"}
        self.assertEqual(info, pb.GetServerInfoResponse(**expected))

    def test_a_vector_is_that_of_the_embeddings_route(self) -> None:
        said = self.ask("Embed", pb.EmbedRequest(tokenized=tokenized(5, 6, 7)), pb.EmbedResponse)
        body = self.door.post("/v1/embeddings", {"model": "m", "input": [5, 6, 7]}).json()
        vector = body["data"][0]["embedding"]
        self.assertEqual(list(said.embedding), vector)
        self.assertEqual((said.prompt_tokens, said.embedding_dim), (3, len(vector)))

    def test_an_empty_sequence_has_no_vector(self) -> None:
        refused = self.ask("Embed", pb.EmbedRequest(), pb.EmbedResponse)
        self.assertEqual(refused, (status.INVALID_ARGUMENT, "The decoder prompt cannot be empty"))
