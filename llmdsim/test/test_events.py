from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from llmdsim.config import Config, ConfigError
from llmdsim.eventform import ARRAYS, MAPS
from llmdsim.events import INTERVAL, LARGEST, EventSettings, Publisher, settings
from llmdsim.sim.cache import Cleared, Event, Removed, Stored
from llmdsim.test.subscriber import decode

WALL = 1_700_000_000.5
REMOVED = Removed((b"12345678",))


def stored(number: int = 1, blocks: int = 1) -> Stored:
    """A store of so many blocks; the first has this number."""
    keys = [b"k" * 24 + (number + block).to_bytes(8, "big") for block in range(blocks)]
    return Stored(keys, None, list(range(1000, 1000 + 4 * blocks)), 4, None, None, [None] * blocks)


def vllms(**given: Any) -> EventSettings | None:
    """What is made of --kv-events-config."""
    return settings(Config(model="m", kv_events_config={"enable_kv_cache_events": True, **given}))


def older(**flags: Any) -> EventSettings | None:
    """What is made of the older simulator's flags."""
    return settings(Config(**{"model": "m", "enable_kvcache": True, "pod_ip": "10.0.0.7", **flags}).for_rank(0))


class Ether:
    """A wire that writes down what is sent, and on which clients ask."""

    def __init__(self, replays: bool = True) -> None:
        self.sent: list[list[bytes]] = []
        self.replies: list[list[bytes]] = []
        self.closed = False
        self._replays = replays
        self.asked: Callable[[Sequence[bytes]], None] | None = None

    def send(self, frames: list[bytes]) -> None:
        self.sent.append(frames)

    def listen(self, asked: Callable[[Sequence[bytes]], None]) -> None:
        if not self._replays:
            raise OSError(98, "Address already in use")
        self.asked = asked

    def reply(self, frames: list[bytes]) -> bool:
        self.replies.append(frames)
        return True

    def close(self) -> None:
        self.closed = True

    @property
    def events(self) -> list[list[Any]]:
        """The events of each batch."""
        return [decode(payload)[1] for _, _, payload in self.sent]

    @property
    def sizes(self) -> list[int]:
        """The number of events in each batch."""
        return [len(events) for events in self.events]


class PublisherTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock, self.ether = Clock(), Ether()

    def publisher(self, wanted: EventSettings | None, started: bool = True) -> Publisher:
        assert wanted is not None
        publisher = Publisher(wanted, self.clock, lambda: WALL, lambda settings: self.ether)
        if started:
            publisher.startService()
        return publisher

    def note(self, publisher: Publisher, count: int, event: Event = REMOVED) -> None:
        for _ in range(count):
            publisher.note(event)


class MessageTests(PublisherTestCase):
    def test_a_message_is_topic_number_and_batch(self) -> None:
        publisher = self.publisher(older(event_batch_size=1, data_parallel_rank=3, port=8003))
        self.note(publisher, 2)
        self.clock.advance(0)
        self.assertEqual([topic for topic, _, _ in self.ether.sent], [b"kv@10.0.0.7:8003@m"] * 2)
        self.assertEqual([number.hex() for _, number, _ in self.ether.sent], ["0000000000000000", "0000000000000001"])
        expected = (WALL, [["BlockRemoved", [0x3132333435363738], "GPU"]], 3)
        self.assertEqual([decode(payload) for _, _, payload in self.ether.sent], [expected] * 2)

    def test_an_event_costs_its_teller_no_encoding(self) -> None:
        publisher = self.publisher(vllms())
        publisher.note(Stored([], None, [object()], 4, None, None, []))  # type: ignore[list-item]

    def test_before_and_after_its_time_nothing_is_kept(self) -> None:
        publisher = self.publisher(vllms(), started=False)
        publisher.note(stored())
        publisher.startService()
        publisher.stopService()
        publisher.note(stored())
        self.assertEqual((self.ether.sent, self.clock.getDelayedCalls()), ([], []))

    def test_what_waits_is_sent_before_the_end(self) -> None:
        publisher = self.publisher(older(event_batch_size=2))
        self.note(publisher, 3)
        publisher.stopService()
        self.assertEqual((self.ether.sizes, self.ether.closed), ([2, 1], True))
        self.assertEqual(self.clock.getDelayedCalls(), [])


class BatchTests(PublisherTestCase):
    def test_a_full_batch_is_sent_and_the_rest_waits_a_second(self) -> None:
        publisher = self.publisher(older(event_batch_size=4))
        self.note(publisher, 3)
        self.clock.advance(0.5)
        self.assertEqual(self.ether.sizes, [])
        self.note(publisher, 6)
        self.clock.advance(0)
        self.assertEqual(self.ether.sizes, [4, 4])
        self.clock.advance(0.75)
        self.assertEqual(self.ether.sizes, [4, 4])
        self.clock.advance(0.25)
        self.assertEqual(self.ether.sizes, [4, 4, 1])

    def test_a_batch_that_does_not_fill_is_sent_after_a_second(self) -> None:
        self.note(self.publisher(older()), 1, Cleared())
        self.clock.advance(INTERVAL)
        self.assertEqual(self.ether.events, [[["AllBlocksCleared"]]])

    def test_vllms_batch_is_all_that_happened_in_one_turn(self) -> None:
        publisher = self.publisher(vllms())
        self.note(publisher, 2)
        publisher.note(stored())
        self.assertEqual(self.ether.sizes, [])
        self.clock.advance(0)
        self.note(publisher, 1)
        self.clock.advance(0)
        self.assertEqual(self.ether.sizes, [3, 1])

    def test_a_clearing_goes_with_vllms_next_batch_or_alone_later(self) -> None:
        publisher = self.publisher(vllms())
        publisher.note(Cleared())
        self.clock.advance(0.5)
        self.assertEqual(self.ether.sizes, [])
        publisher.note(stored())
        self.clock.advance(0)
        publisher.note(Cleared())
        self.clock.advance(INTERVAL)
        kinds = [[event["type"] for event in events] for events in self.ether.events]
        self.assertEqual(kinds, [["AllBlocksCleared", "BlockStored"], ["AllBlocksCleared"]])

    def test_no_turn_publishes_more_than_its_share(self) -> None:
        for wanted in (vllms(), older(event_batch_size=2)):
            self.ether = Ether()
            self.note(self.publisher(wanted), 6000)
            totals: list[int] = []
            self.clock.callLater(0, lambda totals=totals: totals.append(sum(self.ether.sizes)))
            self.clock.advance(0)
            self.assertLess(totals[0], 3000)
            self.assertEqual(sum(self.ether.sizes), 6000)

    def test_a_large_batch_is_closed_early(self) -> None:
        publisher = self.publisher(vllms())
        self.note(publisher, 8, stored(blocks=400))
        self.clock.advance(0)
        self.assertEqual(sum(self.ether.sizes), 8)
        self.assertGreater(len(self.ether.sizes), 1)
        largest = max(len(payload) for _, _, payload in self.ether.sent)
        self.assertLess(largest, 2 * LARGEST)

    def test_a_flood_loses_its_end_and_not_memory(self) -> None:
        publisher = self.publisher(vllms(max_queue_size=10))
        self.note(publisher, 30)
        self.clock.advance(0)
        self.note(publisher, 1)
        self.clock.advance(0)
        self.assertEqual(self.ether.sizes, [10, 1])


class FailureTests(PublisherTestCase):
    def test_who_cannot_publish_serves_without(self) -> None:
        def refuse(settings: EventSettings) -> Ether:
            raise OSError(98, "Address already in use")

        wanted = vllms()
        assert wanted is not None
        publisher = Publisher(wanted, self.clock, lambda: WALL, refuse)
        publisher.startService()
        publisher.note(stored())
        publisher.stopService()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_who_cannot_replay_publishes_without(self) -> None:
        self.ether = Ether(replays=False)
        publisher = self.publisher(vllms(replay_endpoint="tcp://*:5558"))
        publisher.note(stored())
        self.clock.advance(0)
        self.assertEqual(self.ether.sizes, [1])
        publisher.stopService()

    def test_replay_is_offered_only_where_it_is_wanted(self) -> None:
        self.publisher(vllms())
        self.assertIsNone(self.ether.asked)

    def test_what_was_published_is_replayed_to_the_byte(self) -> None:
        publisher = self.publisher(vllms(replay_endpoint="tcp://*:5558", buffer_steps=2))
        for number in range(3):
            publisher.note(stored(number))
            self.clock.advance(0)
        assert self.ether.asked is not None
        self.ether.asked([b"me", b"", bytes(8)])
        self.clock.advance(0)
        end = [b"me", b"", b"", b"\xff" * 8, b""]
        self.assertEqual(self.ether.replies, [*([b"me", b"", *sent] for sent in self.ether.sent[1:]), end])


class SettingsTests(SynchronousTestCase):
    def test_nothing_is_published_without_cache_or_endpoint(self) -> None:
        for flags in ({"enable_kvcache": False}, {"zmq_endpoint": ""}):
            self.assertIsNone(older(**flags))
        for given in ({"publisher": "null"}, {"endpoint": ""}, {"enable_kv_cache_events": False}):
            self.assertIsNone(vllms(**given))

    def test_the_older_flags_mean_arrays_unless_maps_are_wanted(self) -> None:
        arrays, maps = older(), older(use_vllm_map_event_format=True)
        assert arrays is not None
        assert maps is not None
        self.assertIs(arrays.form, ARRAYS)
        self.assertIs(maps.form, MAPS)

    def test_a_pod_without_an_address_is_a_local_one(self) -> None:
        found = older(pod_ip="")
        assert found is not None
        self.assertEqual(found.topic, "kv@127.0.0.1:8000@m")

    def test_vllms_configuration_decides_alone_where_it_is_given(self) -> None:
        given = json.loads('{"enable_kv_cache_events": true, "topic": "kv@pod@m", "replay_endpoint": null, "hwm": 7}')
        found = older(kv_events_config=given, zmq_endpoint="tcp://other:1")
        assert found is not None
        self.assertEqual((found.endpoint, found.topic, found.replay_endpoint), ("tcp://*:5557", "kv@pod@m", ""))
        self.assertEqual((found.form, found.interval, found.queued), (MAPS, 0.0, 7))

    def test_a_slow_subscriber_is_queued_for_within_bounds_whatever_is_asked(self) -> None:
        for hwm in (0, 100_000):
            found = vllms(hwm=hwm)
            assert found is not None
            self.assertEqual(found.queued, 1000)

    def test_what_is_no_setting_is_refused(self) -> None:
        for given in ({"hwm": "many"}, {"hwm": -1}, {"endpoint": 5557}, {"buffer_steps": True}):
            with self.assertRaises(ConfigError):
                vllms(**given)
