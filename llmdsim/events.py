"""
KV events on their way out: encoded in vLLM's forms, batched, numbered and published, one Publisher a rank.

What happens to blocks is told by ``sim.cache``; ``replay`` sends old batches again; ``zeromq`` has the sockets.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from struct import Struct
from typing import Any, Protocol

import attrs
from msgpack import Packer
from twisted.application.service import Service
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from llmdsim.config import Config, ConfigError
from llmdsim.replay import Replay
from llmdsim.sim.cache import Cleared, Event, Removed, Stored

log = Logger()

INTERVAL = 1.0  # seconds that an event of the older flags waits for others, and that a Cleared waits for vLLM's next step
TURN = 256  # events published in one turn of the clock: about a millisecond
LARGEST = 16 << 10  # bytes after which a batch is closed
QUEUED = 1000  # batches that may wait for one slow subscriber: with LARGEST, this bounds its memory
PENDING = 100_000  # events that may wait to be published

Form = Mapping[type, Callable[[Any], bytes]]  # how each kind of event is encoded


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

    ``wall`` is the time of day in seconds; ``connect`` opens the sockets or raises OSError, after which nothing is published.
    """

    def __init__(
        self,
        settings: EventSettings,
        clock: IReactorTime,
        wall: Callable[[], float],
        connect: Callable[[EventSettings], Wire],
    ) -> None:
        self._settings, self._clock, self._wall, self._connect = settings, clock, wall, connect
        self.setName("KV events")
        self._topic, self._rank = settings.topic.encode(), _pack(settings.rank)
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
            log.error("KV events are not published: {endpoint}: {problem}", endpoint=endpoint, problem=problem.strerror)
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
            self._publish(len(self._pending))
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
            log.error("KV events are not replayed: {endpoint}: {problem}", endpoint=endpoint, problem=problem.strerror)
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
        """Publish whole batches; a part of one only where there is no more."""
        self._due = None
        if self._lost:
            log.warn("{lost} KV events were lost: more came than could be published", lost=self._lost)
            self._lost = 0
        size, ready = self._settings.batch_size, len(self._pending)
        if ready > size:
            ready = min(ready - ready % size, max(TURN - TURN % size, size))
        while ready > 0:
            ready -= self._publish(ready)
        if self._pending:
            self._wake(0.0 if len(self._pending) >= size else self._settings.interval)

    def _publish(self, most: int) -> int:
        """Publish one batch of at most so many events; returns how many it has."""
        assert self._wire is not None
        events: list[bytes] = []
        form, size, left = self._settings.form, 0, min(most, self._settings.batch_size)
        while len(events) < left and size < LARGEST:
            event = self._pending.popleft()
            events.append(form[type(event)](event))
            size += len(events[-1])
        payload = b"".join((_BATCH.pack(0x93, 0xCB, self._wall()), _array(len(events)), *events, self._rank))
        message = [self._topic, self._number.to_bytes(8, "big"), payload]
        if self._replay is not None:
            self._replay.keep(self._number, message)
        self._number += 1
        self._wire.send(message)
        return len(events)


# An array's head with the time of day, as a double, behind it.
_BATCH = Struct(">BBd")
_packer = Packer(unicode_errors="replace")
_pack: Callable[[object], bytes] = _packer.pack
_array: Callable[[int], bytes] = _packer.pack_array_header


def _words(*words: object) -> bytes:
    return b"".join(map(_pack, words))


def _hash(key: bytes) -> bytes:
    """A block's number: the end of its key, always as uint64, for consumers refuse shorter integers."""
    return b"\xcf" + key[-8:]


def _hashes(keys: Sequence[bytes]) -> bytes:
    return _array(len(keys)) + b"".join([b"\xcf" + key[-8:] for key in keys])


_NIL, _NO_PARENT = _pack(None), b"\xcf" + bytes(8)
_STORED = b"\xde\x00\x0b" + _words("type", "BlockStored", "block_hashes")  # msgspec's head of a map, longer than needed
_PARENT, _IDS, _SIZE, _LORA = map(_words, ("parent_block_hash", "token_ids", "block_size", "lora_id"))
_MEDIUM, _EXTRA = _words("medium", "GPU", "lora_name"), _words("extra_keys")
_KIND = _words("group_idx", 0, "kv_cache_spec_kind", "full_attention")
_REMOVED, _REMOVED_END = b"\x84" + _words("type", "BlockRemoved", "block_hashes"), _words("medium", "GPU", "group_idx", 0)
_CLEARED = b"\x81" + _words("type", "AllBlocksCleared")


def _stored_map(event: Stored) -> bytes:
    keys, parent, ids, block_size, adapter, adapter_id, extra_keys = event
    head = _STORED, _hashes(keys), _PARENT, _NIL if parent is None else _hash(parent), _IDS, _pack(ids)
    size, lora = (_SIZE, _pack(block_size)), (_LORA, _pack(adapter_id), _MEDIUM, _pack(adapter))
    return b"".join((*head, *size, *lora, _EXTRA, _pack(extra_keys), _KIND))


_STORED_ARRAY, _REMOVED_ARRAY = b"\x99" + _words("BlockStored"), b"\x93" + _words("BlockRemoved")
_CLEARED_ARRAY, _GPU = b"\x91" + _words("AllBlocksCleared"), _words("GPU")


def _stored_array(event: Stored) -> bytes:
    keys, parent, ids, block_size, adapter, adapter_id, _ = event
    head = _STORED_ARRAY, _hashes(keys), _NO_PARENT if parent is None else _hash(parent), _pack(ids)
    return b"".join((*head, _pack(block_size), _pack(adapter_id), _GPU, _pack(adapter), _NIL))


MAPS: Form = {
    Stored: _stored_map,
    Removed: lambda event: _REMOVED + _hashes(event.keys) + _REMOVED_END,
    Cleared: lambda event: _CLEARED,
}
ARRAYS: Form = {
    Stored: _stored_array,
    Removed: lambda event: _REMOVED_ARRAY + _hashes(event.keys) + _GPU,
    Cleared: lambda event: _CLEARED_ARRAY,
}
