from __future__ import annotations

import gc
import weakref
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

from llmdsim.faults import NOT_FOUND, Fault

try:
    from llmdsim.grpc import status
    from llmdsim.grpc.health_pb2 import HealthCheckRequest as Text
    from llmdsim.grpc.messages import framed
    from llmdsim.grpc.methods import each, one, reply
    from llmdsim.test.calls import Caller, Line
except ImportError:
    skip = "needs the extra grpc"

LIMIT = 1000


class House:
    """A few methods, and what happened in them."""

    def __init__(self) -> None:
        self.seen: list[Any] = []
        self.calls: list[weakref.ref[Any]] = []
        self.line = Line(
            {
                "/echo": self.noted(one(Text, self.echo)),
                "/wait": self.noted(one(Text, self.wait)),
                "/fail": one(Text, self.fail),
                "/each": each(Text, lambda asked: Text(service=asked.service.upper())),
            },
            LIMIT,
        )
        self.caller = Caller(self.line.connection)

    def noted(self, method: Any) -> Any:
        def begin(call: Any) -> Any:
            listener = method(call)
            self.calls.append(weakref.ref(listener))
            return listener

        return begin

    async def echo(self, call: Any, asked: Any) -> None:
        self.seen.append(len(asked.service))
        reply(call, asked)

    async def wait(self, call: Any, asked: Any) -> None:
        try:
            await Deferred()
        except CancelledError:
            self.seen.append("cancelled")
            raise

    async def fail(self, call: Any, asked: Any) -> None:
        if asked.service == "bug":
            raise ZeroDivisionError
        raise Fault(NOT_FOUND, asked.service)

    def ask(self, path: str, *messages: Any, **options: Any) -> Any:
        """What is heard of a call."""
        return self.caller.heard(self.caller.call(path, *messages, **options))


class AnswerTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.house = House()
        self.ask, self.caller = self.house.ask, self.house.caller

    def test_a_question_is_answered_with_head_message_and_trailers(self) -> None:
        heard = self.ask("/echo", Text(service="hi"))
        self.assertEqual(heard.messages(), [Text(service="hi").SerializeToString()])
        self.assertEqual(heard.head[":status"], "200")
        self.assertEqual(heard.head["content-type"], "application/grpc")
        self.assertEqual((heard.status, heard.text, heard.ended, heard.reset), (status.OK, None, True, None))

    def test_a_message_may_arrive_in_pieces(self) -> None:
        id = self.caller.call("/echo", end=False)
        for byte in framed(Text(service="hi")):
            self.caller.send(id, bytes([byte]))
        self.assertEqual(self.caller.heard(id).data, b"")
        self.caller.send(id, b"", end=True)
        self.assertEqual(self.caller.heard(id).data, framed(Text(service="hi")))

    def test_each_message_of_a_dialogue_is_answered_as_it_comes(self) -> None:
        id = self.caller.call("/each", Text(service="a"), end=False)
        self.assertEqual(self.caller.heard(id).data, framed(Text(service="A")))
        self.caller.send(id, framed(Text(service="b")) + framed(Text(service="c")))
        self.assertEqual(len(self.caller.heard(id).messages()), 3)
        self.caller.send(id, b"", end=True)
        self.assertEqual(self.caller.heard(id).status, status.OK)

    def test_calls_of_one_connection_do_not_mix(self) -> None:
        ids = [self.caller.call("/echo", end=False) for _ in range(3)]
        for id in reversed(ids):
            self.caller.send(id, framed(Text(service=str(id))), end=True)
        self.assertEqual([self.caller.heard(id).data for id in ids], [framed(Text(service=str(id))) for id in ids])

    def test_a_fault_keeps_its_message_and_has_a_code_by_its_status(self) -> None:
        heard = self.ask("/fail", Text(service="50 % of é\n"))
        self.assertEqual((heard.status, heard.text, heard.data), (status.NOT_FOUND, "50 %25 of %C3%A9%0A", b""))
        self.assertEqual(heard.head[":status"], "200")

    def test_a_bug_is_logged_and_tells_nothing(self) -> None:
        heard = self.ask("/fail", Text(service="bug"))
        self.assertEqual((heard.status, heard.text), (status.INTERNAL, "Internal server error"))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


class RefusalTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.house = House()
        self.ask = self.house.ask

    def refused(self, *messages: bytes) -> int | None:
        return self.ask("/echo", *messages).status

    def test_an_unknown_method_is_unimplemented(self) -> None:
        self.assertEqual(self.ask("/nope", Text()).status, status.UNIMPLEMENTED)

    def test_a_client_that_is_refused_before_it_has_ended_is_told_to_stop(self) -> None:
        heard = self.ask("/nope", end=False)
        self.assertEqual((heard.status, heard.ended, heard.reset), (status.UNIMPLEMENTED, True, 0))

    def test_a_request_that_is_not_of_grpc_is_an_unsupported_media_type(self) -> None:
        heard = self.ask("/echo", Text(), headers={"content-type": "application/json"})
        self.assertEqual((heard.head, heard.ended), ({":status": "415"}, True))

    def test_compression_is_unimplemented(self) -> None:
        self.assertEqual(self.refused(b"\1" + framed(Text(service="hi"))[1:]), status.UNIMPLEMENTED)

    def test_a_message_over_the_limit_is_refused_at_its_length(self) -> None:
        self.assertEqual(self.refused(framed(Text(service="x" * (LIMIT - 3)))), status.OK)
        heard = self.ask("/echo", b"\0" + (LIMIT + 1).to_bytes(4, "big"), end=False)
        self.assertEqual(heard.status, status.RESOURCE_EXHAUSTED)
        self.assertEqual(heard.text, "Received message larger than max (1001 vs. 1000)")

    def test_a_question_is_one_whole_message(self) -> None:
        whole = framed(Text(service="hi"))
        wrong = (), (whole, whole), (whole, whole[:-1]), (whole[:-1],), (whole[:-2] + b"\xff\xff",)
        self.assertEqual([self.refused(*messages) for messages in wrong], [status.INTERNAL] * 5)
        self.assertEqual(self.house.seen, [])


class CancelTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.house = House()
        self.caller, self.clock = self.house.caller, self.house.line.clock

    def wait(self, timeout: str | None = None) -> int:
        headers = {} if timeout is None else {"grpc-timeout": timeout}
        return self.caller.call("/wait", Text(), headers=headers)

    def test_a_reset_cancels_the_work_in_the_same_turn(self) -> None:
        other, id = self.wait(), self.wait()
        self.caller.cancel(id)
        self.assertEqual(self.house.seen, ["cancelled"])
        self.assertIsNone(self.caller.heard(other).status)

    def test_a_lost_connection_cancels_all_work(self) -> None:
        self.wait(), self.wait()
        self.caller.leave()
        self.assertEqual(self.house.seen, ["cancelled"] * 2)
        self.assertEqual(self.house.line.closed, [self.house.line.connection])

    def test_a_client_that_says_goodbye_is_let_go(self) -> None:
        self.wait()
        self.caller.h2.close_connection()
        self.caller.tell()
        self.assertEqual(self.house.seen, ["cancelled"])
        self.assertTrue(self.caller.transport.disconnecting)

    def test_a_call_that_is_opened_and_reset_in_one_breath_does_no_harm(self) -> None:
        tell, self.caller.tell = self.caller.tell, lambda: None  # type: ignore[method-assign]
        self.caller.cancel(self.wait())
        self.caller.tell = tell  # type: ignore[method-assign]
        heard = self.house.ask("/echo", Text(service="hi"))
        self.assertEqual(heard.status, status.OK)
        self.assertNotIn(None, self.house.seen)

    def test_a_deadline_ends_a_call_and_its_work(self) -> None:
        id = self.wait("1500m")
        self.clock.advance(1.4)
        self.assertIsNone(self.caller.heard(id).status)
        self.clock.advance(0.2)
        self.assertEqual(self.caller.heard(id).status, status.DEADLINE_EXCEEDED)
        self.assertEqual(self.house.seen, ["cancelled"])

    def test_a_call_that_is_over_leaves_no_timer(self) -> None:
        self.caller.call("/echo", Text(), headers={"grpc-timeout": "1H"})
        self.caller.cancel(self.wait("1H"))
        self.wait("1H")
        self.caller.leave()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_call_that_is_over_is_forgotten(self) -> None:
        self.house.ask("/echo", Text())
        self.caller.cancel(self.wait())
        gc.collect()
        self.assertEqual([call() for call in self.house.calls], [None, None])

    def test_a_deadline_that_cannot_be_read_is_refused(self) -> None:
        for timeout in "1", "S", "-1S", "1s", "123456789S":
            self.assertEqual(self.caller.heard(self.wait(timeout)).status, status.INTERNAL)
