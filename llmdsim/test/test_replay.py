from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from llmdsim.replay import CLIENTS, PATIENCE, RETRY, SLICE, Replay

END = [b"", b"", b"\xff" * 8, b""]


def eight(number: int) -> bytes:
    return number.to_bytes(8, "big")


class ReplayTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.heard: dict[bytes, list[list[bytes]]] = {}
        self.deaf: set[bytes] = set()
        self.gone: set[bytes] = set()

    def replay(self, published: int, size: int = 100) -> Replay:
        replay = Replay(size, self.clock, self.reply)
        for number in range(published):
            replay.keep(number, [b"topic", eight(number), b"batch"])
        return replay

    def reply(self, frames: list[bytes]) -> bool:
        identity, *rest = frames
        if identity in self.gone:
            raise ConnectionError
        if identity not in self.deaf:
            self.heard.setdefault(identity, []).append(rest)
        return identity not in self.deaf

    def numbers(self, identity: bytes) -> list[int]:
        """The numbers that a client heard; -1 is the end."""
        return [int.from_bytes(frames[2], "big", signed=True) for frames in self.heard.get(identity, [])]

    def test_all_kept_from_a_number_on_are_sent_and_then_the_end(self) -> None:
        self.replay(5).asked([b"a", b"", eight(3)])
        self.clock.advance(0)
        expected = [[b"", b"topic", eight(3), b"batch"], [b"", b"topic", eight(4), b"batch"], END]
        self.assertEqual(self.heard, {b"a": expected})

    def test_the_oldest_are_forgotten(self) -> None:
        self.replay(5, size=2).asked([b"a", b"", eight(0)])
        self.clock.advance(0)
        self.assertEqual(self.numbers(b"a"), [3, 4, -1])

    def test_who_asks_for_what_is_not_there_yet_hears_the_end(self) -> None:
        self.replay(5).asked([b"a", b"", eight(5)])
        self.clock.advance(0)
        self.assertEqual(self.heard, {b"a": [END]})

    def test_the_empty_frame_of_a_request_may_be_missing(self) -> None:
        self.replay(1).asked([b"a", eight(0)])
        self.clock.advance(0)
        self.assertEqual(self.numbers(b"a"), [0, -1])

    def test_what_is_no_request_is_ignored(self) -> None:
        replay = self.replay(1)
        for frames in ([b"a"], [b"a", b""], [b"a", b"", b"short"], [b"a", b"x", eight(0)], [b"a", b"", b"", eight(0)]):
            replay.asked(frames)
        self.clock.advance(0)
        self.assertEqual(self.heard, {})

    def test_others_have_their_turn_during_a_long_replay(self) -> None:
        self.replay(SLICE + 1).asked([b"a", b"", eight(0)])
        heard: list[int] = []
        self.clock.callLater(0, lambda: heard.extend(self.numbers(b"a")))
        self.clock.advance(0)
        self.assertEqual(heard, [*range(SLICE)])
        self.assertEqual(self.numbers(b"a"), [*range(SLICE + 1), -1])

    def test_a_replay_ends_with_what_was_kept_when_it_began(self) -> None:
        replay = self.replay(2)
        replay.asked([b"a", b"", eight(0)])
        replay.keep(2, [b"topic", eight(2), b"batch"])
        self.clock.advance(0)
        self.assertEqual(self.numbers(b"a"), [0, 1, -1])

    def test_a_client_that_asks_twice_is_answered_twice_in_order(self) -> None:
        replay = self.replay(3)
        replay.asked([b"a", b"", eight(0)])
        replay.asked([b"a", b"", eight(2)])
        self.clock.advance(0)
        self.assertEqual(self.numbers(b"a"), [0, 1, 2, -1, 2, -1])

    def test_a_client_that_only_asks_does_not_pile_up_answers(self) -> None:
        replay = self.replay(10, size=10)
        self.deaf = {b"a"}
        for _ in range(100):
            replay.asked([b"a", b"", eight(0)])
        self.deaf = set()
        self.clock.advance(0)
        self.assertEqual(self.numbers(b"a"), [*range(10), -1] * 2)

    def test_a_client_that_does_not_read_holds_up_nobody_and_loses_nothing(self) -> None:
        replay = self.replay(3)
        self.deaf = {b"slow"}
        replay.asked([b"slow", b"", eight(0)])
        replay.asked([b"quick", b"", eight(0)])
        self.clock.advance(0)
        self.assertEqual(self.numbers(b"quick"), [0, 1, 2, -1])
        self.deaf = set()
        self.clock.advance(RETRY)
        self.assertEqual(self.numbers(b"slow"), [0, 1, 2, -1])

    def test_a_client_that_never_reads_is_given_up(self) -> None:
        self.deaf = {b"a"}
        self.replay(3).asked([b"a", b"", eight(0)])
        self.clock.pump([RETRY] * int(PATIENCE / RETRY + 3))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_client_that_left_is_forgotten(self) -> None:
        self.gone = {b"a"}
        self.replay(3).asked([b"a", b"", eight(0)])
        self.clock.advance(0)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_so_many_are_served_at_a_time_and_then_others(self) -> None:
        replay = self.replay(1)
        for number in range(CLIENTS + 1):
            replay.asked([eight(number), b"", eight(0)])
        self.clock.advance(0)
        self.assertEqual(len(self.heard), CLIENTS)
        replay.asked([b"late", b"", eight(0)])
        self.clock.advance(0)
        self.assertEqual(self.numbers(b"late"), [0, -1])

    def test_nothing_is_sent_once_stopped(self) -> None:
        replay = self.replay(1)
        replay.asked([b"a", b"", eight(0)])
        replay.stop()
        self.assertEqual((self.clock.getDelayedCalls(), self.heard), ([], {}))
