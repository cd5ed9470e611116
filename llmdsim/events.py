# Most of twisted.application has no annotations yet.
# mypy: disable-error-code="no-untyped-call"
"""
KV events on their way out: batched, numbered and published, by one Publisher a rank.

``sim.cache`` tells them, ``eventform`` has their bytes, ``replay`` sends old batches again, ``zeromq`` has the sockets.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

import attrs
from twisted.application.service import Service
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from llmdsim.config import Config, ConfigError
from llmdsim.eventform import ARRAYS, MAPS, Form, batch
from llmdsim.replay import Replay
from llmdsim.sim.cache import Cleared, Event

log = Logger()

INTERVAL = 1.0  # seconds that an event of the older flags waits for others, and any Cleared for the next event
LARGEST = 16 << 10  # bytes after which a batch is closed
TURN = 128 << 10  # bytes published in one turn of the clock: about two milliseconds
MESSAGE = 1 << 10  # bytes that could be encoded in the time that sending a message takes
STEP = 4096  # events in a batch of --kv-events-config; a step has fewer
QUEUED = 1000  # batches that may wait for one slow subscriber: with LARGEST, this bounds its memory
PENDING = 100_000  # events that may wait to be published
LOCAL = "127.0.0.1"  # the address in the topic where POD_IP is not set


@attrs.frozen
class EventSettings:
    """
    What is published where; endpoints are ZeroMQ's, ``interval`` is in seconds.

    ``kept`` batches can be replayed where ``replay_endpoint`` is not empty; ``queued`` ones may wait for a subscriber;
    ``pending`` events may wait to be published.
    """

    endpoint: str
    topic: str
    rank: int
    form: Form
    batch_size: int
    interval: float
    replay_endpoint: str = ""
    kept: int = 0
    queued: int = QUEUED
    pending: int = PENDING


T = TypeVar("T", str, int)


def settings(config: Config) -> EventSettings | None:
    """What one rank's configuration asks for; None: nothing is published. Raises ConfigError."""
    given = config.kv_events_config or {}
    if given.get("enable_kv_cache_events"):
        return _of_vllm(given, max(config.data_parallel_rank, 0))
    if not config.enable_kvcache or not config.zmq_endpoint:
        return None
    return EventSettings(
        endpoint=config.zmq_endpoint,
        topic=f"kv@{config.pod_ip or LOCAL}:{config.port}@{config.model}",
        rank=max(config.data_parallel_rank, 0),
        form=MAPS if config.use_vllm_map_event_format else ARRAYS,
        batch_size=config.event_batch_size,
        interval=INTERVAL,
        replay_endpoint=config.kv_events_replay_endpoint,
        kept=config.kv_events_replay_queue_size,
    )


def _of_vllm(given: Mapping[str, Any], rank: int) -> EventSettings | None:
    """``--kv-events-config``, with vLLM's defaults: a step's events are one batch."""
    endpoint = _member(given, "endpoint", "tcp://*:5557")
    if not endpoint or _member(given, "publisher", "zmq") != "zmq":
        return None
    return EventSettings(
        endpoint=endpoint,
        topic=_member(given, "topic", ""),
        rank=rank,
        form=MAPS,
        batch_size=STEP,
        interval=0.0,
        replay_endpoint=_member(given, "replay_endpoint", ""),
        kept=_member(given, "buffer_steps", 10_000),
        queued=min(_member(given, "hwm", QUEUED) or QUEUED, QUEUED),
        pending=_member(given, "max_queue_size", PENDING) or PENDING,
    )


def _member(given: Mapping[str, Any], key: str, default: T) -> T:
    value = given.get(key)
    if value is None:
        return default
    if type(value) is not type(default) or (isinstance(value, int) and value < 0):
        kind = "a text" if isinstance(default, str) else "a whole number, not negative"
        raise ConfigError(f"kv-events-config: {key} must be {kind}")
    return value


class Wire(Protocol):
    """The open sockets of one publisher; frames are the parts of one message."""

    def send(self, frames: list[bytes]) -> None:
        """Publish a message; subscribers that do not keep up miss it."""

    def listen(self, asked: Callable[[Sequence[bytes]], None]) -> None:
        """Open the replay socket, and hear what clients ask there. Raises OSError."""

    def reply(self, frames: list[bytes]) -> bool:
        """Answer a client, named by the first frame; False: its queue is full. Raises OSError where it has gone."""

    def close(self) -> None:
        """Close the sockets at once; what was sent may still leave."""


class Publisher(Service):
    """
    Publishes the KV events of one rank, as three frames: topic, number of the batch from 0 on, batch.

    ``wall`` is the time of day in seconds. ``connect`` opens the sockets, or raises OSError: then nothing is published.
    """

    def __init__(
        self,
        settings: EventSettings,
        clock: IReactorTime,
        wall: Callable[[], float],
        connect: Callable[[EventSettings], Wire],
    ) -> None:
        self._settings, self._clock, self._wall, self._connect = settings, clock, wall, connect
        self._topic = settings.topic.encode()
        self._wire: Wire | None = None
        self._replay: Replay | None = None
        self._pending: deque[Event] = deque()
        self._lost = 0
        self._number = 0
        self._due: IDelayedCall | None = None
        self._delay = 0.0

    def note(self, event: Event) -> None:
        """Publish an event soon; while nothing is open, or too much waits, it is lost."""
        pending, settings = self._pending, self._settings
        if self._wire is None:
            return
        if len(pending) >= settings.pending:
            self._lost += 1
            return
        pending.append(event)
        if len(pending) >= settings.batch_size:
            self._wake(0.0)
        else:
            self._wake(INTERVAL if type(event) is Cleared else settings.interval)

    def startService(self) -> None:
        """Open the sockets; a server that cannot publish serves all the same."""
        super().startService()
        endpoint = self._settings.endpoint
        try:
            self._wire = self._connect(self._settings)
        except OSError as problem:
            log.error("KV events are not published: {endpoint}: {problem}", endpoint=endpoint, problem=problem)
            return
        log.info("KV events are published at {endpoint}", endpoint=endpoint)
        if self._settings.replay_endpoint:
            self._offer_replay(self._wire)

    def stopService(self) -> None:
        """Publish what waits, and close the sockets."""
        super().stopService()
        if self._due is not None:
            self._due.cancel()
            self._due = None
        while self._pending:
            self._publish(self._settings.batch_size)
        if self._replay is not None:
            self._replay.stop()
        if self._wire is not None:
            self._wire.close()
        self._wire = self._replay = None

    def _offer_replay(self, wire: Wire) -> None:
        replay, endpoint = Replay(self._settings.kept, self._clock, wire.reply), self._settings.replay_endpoint
        try:
            wire.listen(replay.asked)
        except OSError as problem:
            log.error("KV events are not replayed: {endpoint}: {problem}", endpoint=endpoint, problem=problem)
            return
        self._replay = replay

    def _wake(self, delay: float) -> None:
        """Publish after so many seconds, unless that happens earlier anyway."""
        if self._due is None:
            self._due = self._clock.callLater(delay, self._flush)
        elif delay < self._delay:
            self._due.reset(delay)
        else:
            return
        self._delay = delay

    def _flush(self) -> None:
        """Publish whole batches, or the one that is not whole, as far as a turn goes."""
        self._due = None
        if self._lost:
            log.warn("{lost} KV events were lost: more came than could be published", lost=self._lost)
            self._lost = 0
        pending, size, room = self._pending, self._settings.batch_size, TURN
        later = len(pending) % size if len(pending) > size else 0
        while len(pending) > later and room > 0:
            room -= self._publish(min(len(pending) - later, size)) + MESSAGE
        if pending:
            self._wake(0.0 if len(pending) > later else self._settings.interval)

    def _publish(self, most: int) -> int:
        """Publish one batch of at most so many events; returns its bytes."""
        assert self._wire is not None
        events: list[bytes] = []
        form, size = self._settings.form, 0
        while self._pending and len(events) < most and size < LARGEST:
            event = self._pending.popleft()
            events.append(form[type(event)](event))
            size += len(events[-1])
        payload = batch(events, self._wall(), self._settings.rank)
        message = [self._topic, self._number.to_bytes(8, "big"), payload]
        if self._replay is not None:
            self._replay.keep(self._number, message)
        self._number += 1
        self._wire.send(message)
        return len(payload)
