"""What a client has no room for waits, and what a server reads makes room again."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

try:
    from h2.settings import SettingCodes

    from llmdsim.grpc import status
    from llmdsim.grpc.connection import MOST_UNREAD
    from llmdsim.grpc.health_pb2 import HealthCheckRequest as Text
    from llmdsim.grpc.messages import framed
    from llmdsim.grpc.methods import each, one, reply
    from llmdsim.grpc.status import OK, Status
    from llmdsim.test.calls import Caller, Line
except ImportError:
    skip = "needs the extra grpc"

SIZE = 100  # bytes of a part of an answer


class Speaker:
    """A method that says ``parts`` parts as there is room for them, and then ends."""

    def __init__(self, parts: int) -> None:
        self.left = parts
        self.said = 0
        self.cancelled = False
        self.line = Line({"/speak": one(Text, self.speak), "/each": each(Text, self.again)}, 1 << 23)
        self.caller: Any = None

    def again(self, asked: Any) -> Any:
        return Text(service=asked.service * 2)

    async def speak(self, call: Any, asked: Any) -> None:
        self.call = call
        call.open(self.resume)
        self.resume()
        try:
            await Deferred()
        except CancelledError:
            self.cancelled = True
            raise

    def resume(self) -> None:
        while self.left and not self.call.blocked:
            self.left -= 1
            self.said += SIZE
            self.call.send(b"x" * SIZE)
        if not self.left:
            self.call.finish(Status(OK))

    def start(self, **options: Any) -> int:
        self.caller = Caller(self.line.connection, **options)
        return int(self.caller.call("/speak", Text()))

    def heard(self, id: int) -> tuple[int, int | None]:
        heard = self.caller.heard(id)
        return len(heard.data), heard.status


class WindowTests(SynchronousTestCase):
    def test_a_call_says_no_more_than_its_own_window(self) -> None:
        speaker = Speaker(10)
        id = speaker.start(window=250)
        self.assertEqual(speaker.heard(id), (250, None))
        self.assertEqual(speaker.said, 300)
        speaker.caller.listen(1, id)
        self.assertEqual((speaker.heard(id), speaker.said), ((251, None), 300))
        speaker.caller.listen(1000, id)
        self.assertEqual(speaker.heard(id), (1000, OK))

    def test_a_window_of_one_byte_still_moves(self) -> None:
        speaker = Speaker(1)
        id = speaker.start(window=1)
        for _ in range(SIZE - 1):
            self.assertIsNone(speaker.heard(id)[1])
            speaker.caller.listen(1, id)
        self.assertEqual(speaker.heard(id), (SIZE, OK))

    def test_calls_share_the_window_of_their_connection(self) -> None:
        speaker = Speaker(1000)
        id = speaker.start(shared=0)
        self.assertEqual(speaker.heard(id), ((1 << 16) - 1, None))
        speaker.caller.listen(1 << 20)
        self.assertEqual(speaker.heard(id), (1000 * SIZE, OK))

    def test_a_wider_setting_makes_room(self) -> None:
        speaker = Speaker(10)
        id = speaker.start(window=100)
        self.assertEqual(speaker.heard(id), (100, None))
        speaker.caller.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 5000})
        speaker.caller.tell()
        self.assertEqual(speaker.heard(id), (1000, OK))

    def test_the_end_waits_for_what_is_before_it(self) -> None:
        speaker = Speaker(1)
        id = speaker.start(window=99)
        self.assertEqual(speaker.heard(id), (99, None))
        speaker.caller.listen(1, id)
        self.assertEqual(speaker.heard(id), (100, OK))

    def test_a_frame_is_never_larger_than_the_client_allows(self) -> None:
        line = Line({"/echo": one(Text, echo)}, 1 << 23)
        caller = Caller(line.connection)
        id = caller.call("/echo", end=False)
        caller.send(id, framed(Text(service="x" * 100_000)), end=True)
        heard = caller.heard(id)
        self.assertEqual((len(heard.messages()[0]), max(heard.frames), heard.status), (100_004, 1 << 14, OK))

    def test_a_full_socket_holds_every_call_back(self) -> None:
        speaker = Speaker(10)
        id = speaker.start(window=100)
        speaker.line.connection.pauseProducing()
        speaker.caller.listen(10_000, id)
        self.assertEqual((speaker.heard(id), speaker.said), ((100, None), 200))
        speaker.line.connection.resumeProducing()
        self.assertEqual(speaker.heard(id), (1000, OK))

    def test_a_deadline_breaks_off_what_is_not_read(self) -> None:
        speaker = Speaker(10)
        speaker.caller = Caller(speaker.line.connection, window=50)
        id = speaker.caller.call("/speak", Text(), headers={"grpc-timeout": "1S"})
        speaker.line.clock.advance(2)
        heard = speaker.caller.heard(id)
        self.assertEqual((heard.status, heard.reset, speaker.cancelled), (None, 8, True))

    def test_a_blocked_call_that_is_reset_is_forgotten(self) -> None:
        speaker = Speaker(10)
        id = speaker.start(window=50)
        speaker.caller.cancel(id)
        speaker.caller.listen(1000)
        self.assertEqual((speaker.said, speaker.cancelled), (100, True))

    def test_who_asks_on_and_on_has_to_listen(self) -> None:
        speaker = Speaker(0)
        speaker.caller = Caller(speaker.line.connection, window=50)
        id = speaker.caller.call("/each", Text(service="x" * 50), Text(service="y"), end=False)
        self.assertEqual(len(speaker.caller.heard(id).data), 50)
        speaker.caller.listen(1000, id)
        self.assertEqual(speaker.caller.heard(id).status, status.RESOURCE_EXHAUSTED)


class PeerTests(SynchronousTestCase):
    def test_what_is_read_makes_room_for_more(self) -> None:
        caller = Caller(Line({"/echo": one(Text, echo)}, 1 << 23).connection)
        ids = [caller.call("/echo", end=False) for _ in range(2)]
        for id in ids:
            caller.send(id, framed(Text(service="x" * (5 << 20))), end=True)
        self.assertEqual([caller.heard(id).status for id in ids], [OK, OK])

    def test_a_ping_is_answered(self) -> None:
        caller = Caller(Line({}).connection)
        caller.heard(1)
        caller.h2.ping(b"12345678")
        caller.tell()
        self.assertIn(b"12345678", caller.transport.value())

    def test_who_pings_on_and_on_and_does_not_read_is_cut_off(self) -> None:
        line = Line({})
        caller = Caller(line.connection)
        line.connection.pauseProducing()
        for _ in range(MOST_UNREAD // 17 - 9):
            caller.h2.ping(b"12345678")
        caller.tell()
        self.assertFalse(caller.transport.disconnected)
        for _ in range(20):
            caller.h2.ping(b"12345678")
        caller.tell()
        self.assertTrue(caller.transport.disconnected)

    def test_nonsense_is_answered_with_goodbye(self) -> None:
        speaker = Speaker(10)
        id = speaker.start(window=50)
        speaker.heard(id)
        speaker.line.connection.dataReceived(b"\0\0\1\6\0\0\0\0\0x")
        self.assertTrue(speaker.caller.transport.disconnecting)
        self.assertTrue(speaker.cancelled)
        speaker.caller.heard(id)
        self.assertEqual(speaker.caller.gone, 6)

    def test_a_server_that_leaves_says_so(self) -> None:
        line = Line({})
        caller = Caller(line.connection)
        line.connection.leave()
        caller.heard(1)
        self.assertEqual((caller.gone, caller.transport.disconnecting), (0, True))


async def echo(call: Any, asked: Any) -> None:
    reply(call, asked)
