from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import zmq
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from llmdsim.eventform import MAPS
from llmdsim.events import EventSettings, Publisher
from llmdsim.replay import SLICE, Replay
from llmdsim.sim.cache import Removed, Stored
from llmdsim.test.subscriber import Client, decode
from llmdsim.zeromq import Sockets, bound

PATIENCE = 5.0  # seconds that a test waits for a message
PLACE = "ipc:///tmp/llmdsim-test-{}-{}.ipc"


def stored(number: int) -> Stored:
    """A store of one block of this number."""
    return Stored([b"k" * 24 + number.to_bytes(8, "big")], None, [1, 2, 3, 4], 4, None, None, [None])


class SocketsTestCase(TestCase):
    timeout = 30

    def setUp(self) -> None:
        from twisted.internet import reactor

        self.reactor: Any = reactor
        self.places = 0

    def place(self) -> str:
        """An ipc endpoint of its own."""
        self.places += 1
        path = PLACE.format(os.getpid(), self.places)
        self.addCleanup(self.remove, path.removeprefix("ipc://"))
        return path

    def remove(self, path: str) -> None:
        if os.path.exists(path):
            os.unlink(path)

    def client(self, kind: int, endpoint: str, bind: bool = False) -> Client:
        client = Client(kind, endpoint, bind)
        self.addCleanup(client.close)
        return client

    def publisher(self, endpoint: str, replay: str = "") -> Publisher:
        wanted = EventSettings(endpoint, "kv@pod@m", 0, MAPS, 16, 0.0, replay)
        publisher = Publisher(wanted, self.reactor, time.time, Sockets)
        publisher.startService()
        self.addCleanup(publisher.stopService)
        return publisher

    def pause(self, seconds: float = 0.005) -> Deferred[None]:
        return deferLater(self.reactor, seconds)

    async def hear(self, client: Client, then: Callable[[], object] = lambda: None) -> list[bytes]:
        """The next message, while the reactor runs; ``then`` is called until there is one."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            message = client.hear()
            if message is not None:
                return message
            then()
            await self.pause()
        raise AssertionError("nothing was heard in time")


class PublishTests(SocketsTestCase):
    async def agree(self, subscriber: Client, publisher: Publisher) -> None:
        """What is published is heard: three frames, the numbers without a gap."""
        topic, number, payload = await self.hear(subscriber, lambda: publisher.note(stored(7)))
        first = int.from_bytes(number, "big")
        self.assertEqual(topic, b"kv@pod@m")
        self.assertEqual(decode(payload)[1][0]["block_hashes"], [7])
        publisher.note(Removed([b"12345678"]))
        following = await self.hear(subscriber)
        self.assertEqual(int.from_bytes(following[1], "big"), first + 1)

    async def test_a_local_endpoint_is_bound(self) -> None:
        place = self.place()
        publisher = self.publisher(place)
        await self.agree(self.client(zmq.SUB, place), publisher)

    async def test_an_endpoint_within_the_process_can_be_heard(self) -> None:
        publisher = self.publisher("inproc://llmdsim-test")
        subscriber = self.client(zmq.SUB, "inproc://llmdsim-test")
        await self.agree(subscriber, publisher)

    async def test_another_endpoint_is_connected_to(self) -> None:
        subscriber = self.client(zmq.SUB, "tcp://127.0.0.1:*", bind=True)
        await self.agree(subscriber, self.publisher(subscriber.endpoint))

    async def test_a_subscriber_that_comes_late_or_comes_back_is_found(self) -> None:
        early = Client(zmq.SUB, "tcp://127.0.0.1:*", bind=True)
        endpoint = early.endpoint
        early.close()
        publisher = self.publisher(endpoint)
        publisher.note(stored(1))
        await self.pause()
        for _ in range(2):
            subscriber = Client(zmq.SUB, endpoint, bind=True)
            await self.hear(subscriber, lambda: publisher.note(stored(7)))
            subscriber.close()

    async def test_what_waits_at_the_end_arrives(self) -> None:
        place = self.place()
        publisher = self.publisher(place)
        subscriber = self.client(zmq.SUB, place)
        await self.hear(subscriber, lambda: publisher.note(stored(7)))
        publisher.note(stored(99))
        publisher.stopService()
        while decode((await self.hear(subscriber))[2])[1][-1]["block_hashes"] != [99]:
            pass

    async def test_a_subscriber_that_does_not_read_blocks_nobody(self) -> None:
        place = self.place()
        publisher = self.publisher(place)
        quick, slow = self.client(zmq.SUB, place), self.client(zmq.SUB, place)
        for subscriber in (quick, slow):
            await self.hear(subscriber, lambda: publisher.note(stored(0)))
        for number in range(1, 5001):
            publisher.note(stored(number))
            if number % 500 == 0:
                await self.pause(0)
        heard = {0}
        while 5000 not in heard:
            events = decode((await self.hear(quick))[2])[1]
            heard |= {number for event in events for number in event["block_hashes"]}
        self.assertEqual(heard, set(range(5001)))

    def test_a_busy_endpoint_is_an_error_and_not_the_end(self) -> None:
        other = self.client(zmq.SUB, "tcp://127.0.0.1:*", bind=True)
        busy = other.endpoint.replace("127.0.0.1", "*")
        self.assertRaises(OSError, Sockets, EventSettings(busy, "", 0, MAPS, 16, 0.0))
        publisher = self.publisher(busy)
        publisher.note(stored(1))
        self.publisher(self.place(), busy).note(stored(1))

    def test_vllms_rule_says_what_is_bound(self) -> None:
        endpoints = "tcp://*:5557", "tcp://[::]:5557", "ipc:///tmp/a", "inproc://a", "tcp://epp:5557"
        self.assertEqual([bound(endpoint) for endpoint in endpoints], [True, True, True, True, False])

    async def test_a_stuck_subscriber_misses_what_is_too_much_and_does_not_delay_the_end(self) -> None:
        place = self.place()
        wire = Sockets(EventSettings(place, "", 0, MAPS, 16, 0.0, queued=10))
        self.addCleanup(wire.close)
        stuck = self.client(zmq.SUB, place)
        await self.hear(stuck, lambda: wire.send([b"kv@", b"first", b""]))
        for _ in range(3000):
            wire.send([b"kv@", b"12345678", bytes(10_000)])
        before = time.monotonic()
        wire.close()
        self.assertLess(time.monotonic() - before, 0.1)
        heard = 0
        while stuck.hear(0.2):
            heard += 1
        self.assertLess(heard, 2500)


class ReplayTests(SocketsTestCase):
    def filled(self, count: int) -> str:
        """Where a replay of so many messages can be asked for."""
        place = self.place()
        wire = Sockets(EventSettings(self.place(), "", 0, MAPS, 16, 0.0, place))
        self.addCleanup(wire.close)
        replay = Replay(count, self.reactor, wire.reply)
        self.addCleanup(replay.stop)
        wire.listen(replay.asked)
        for number in range(count):
            replay.keep(number, [b"kv@pod@m", number.to_bytes(8, "big"), b"%1000d" % number])
        return place

    async def replayed(self, client: Client) -> list[list[bytes]]:
        """A whole replay, without its end."""
        messages: list[list[bytes]] = []
        while not messages or messages[-1] != [b"", b"", b"\xff" * 8, b""]:
            messages.append(await self.hear(client))
        return messages[:-1]

    async def test_a_client_is_sent_all_from_a_number_on(self) -> None:
        count = SLICE * 20
        dealer = self.client(zmq.DEALER, self.filled(count))
        for start in (0, count - 2, count):
            dealer.socket.send_multipart([b"", start.to_bytes(8, "big")])
            messages = await self.replayed(dealer)
            self.assertEqual([int.from_bytes(frames[2], "big") for frames in messages], [*range(start, count)])
            self.assertEqual([int(payload) for *_, payload in messages], [*range(start, count)])

    async def test_a_client_of_one_request_hears_the_first_reply(self) -> None:
        requester = self.client(zmq.REQ, self.filled(3))
        requester.socket.send(bytes(8))
        self.assertEqual((await self.hear(requester))[:2], [b"kv@pod@m", bytes(8)])

    async def test_a_client_that_reads_late_loses_nothing_and_holds_up_nobody(self) -> None:
        place = self.filled(3000)
        slow = Client(zmq.DEALER, place)
        self.addCleanup(slow.close)
        slow.socket.send_multipart([b"", bytes(8)])
        for _ in range(3):
            quick = self.client(zmq.DEALER, place)
            quick.socket.send_multipart([b"", bytes(8)])
            self.assertEqual(len(await self.replayed(quick)), 3000)
        numbers = [int.from_bytes(frames[2], "big") for frames in await self.replayed(slow)]
        self.assertEqual(numbers, [*range(3000)])

    async def test_a_client_that_leaves_early_does_no_harm(self) -> None:
        place = self.filled(3000)
        rude = Client(zmq.DEALER, place)
        rude.socket.send_multipart([b"", bytes(8)])
        await self.hear(rude)
        rude.close()
        polite = self.client(zmq.DEALER, place)
        polite.socket.send_multipart([b"", bytes(8)])
        self.assertEqual(len(await self.replayed(polite)), 3000)
