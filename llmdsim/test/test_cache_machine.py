"""
The KV cache against a second one: vLLM's block pool written down plainly, every block an entry of one free list.

Whatever sequences do, both must find the same tokens, use as many blocks and tell the same events in the same order.
"""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from twisted.trial.unittest import SynchronousTestCase

from llmdsim.faults import Fault
from llmdsim.sim.cache import NEVER, Cache, Cleared, Event, Removed, Stored, Ticket
from llmdsim.sim.hashing import Extras, Hasher

HASHER = Hasher("sha256_cbor", "1")
SIZE = 2
SALTS = Extras(), Extras(salt="s")
# Few different tokens, so that sequences share beginnings and generate the same blocks.
TOKENS = st.lists(st.integers(0, 1), min_size=1, max_size=9)
ANSWERS = st.lists(st.integers(0, 1), min_size=1, max_size=7)


class Slot:
    """One physical block: what it holds (None: nothing that can be found), and how many use it."""

    def __init__(self) -> None:
        self.key: bytes | None = None
        self.users = 0


class Pool:
    """All blocks, and the free ones in the order in which they will be taken."""

    def __init__(self, blocks: int, events: list[Event]) -> None:
        self.slots = [Slot() for _ in range(blocks - 1)]
        self.free = [*self.slots]
        self.stored: list[Slot] = []  # in the order in which they became full
        self.events = events

    def find(self, key: bytes) -> Slot | None:
        return next((slot for slot in self.stored if slot.key == key), None)

    def touch(self, slot: Slot) -> Slot:
        if not slot.users:
            self.free.remove(slot)
        slot.users += 1
        return slot

    def take(self) -> Slot:
        slot = self.free[0]
        if slot.key is not None:
            self.events.append(Removed((slot.key,)))
            self.stored.remove(slot)
            slot.key = None
        return self.touch(slot)

    def store(self, slot: Slot, key: bytes) -> None:
        slot.key = key
        self.stored.append(slot)

    def give(self, slots: list[Slot]) -> None:
        for slot in reversed(slots):
            slot.users -= 1
            if not slot.users:
                self.free.insert(0 if slot.key is None else len(self.free), slot)


class Sequence:
    """A running sequence: its ticket, and its blocks in the pool."""

    def __init__(self, ticket: Ticket, answer: list[int]) -> None:
        self.ticket, self.answer = ticket, answer
        self.spoken, self.again = 0, 0
        self.slots: list[Slot] = []
        self.tokens = [*ticket.ids, *answer]
        self.keys = HASHER.keys(self.tokens, SIZE, ticket.extras)

    def stored(self, start: int, stop: int) -> Stored:
        """The event of these blocks."""
        parent = self.keys[start - 1] if start else None
        extra = [["s"] if self.ticket.extras.salt and not n else None for n in range(start, stop)]
        return Stored(self.keys[start:stop], parent, self.tokens[start * SIZE : stop * SIZE], SIZE, None, None, extra)


class CacheMachine(RuleBasedStateMachine):
    """Sequences that come, speak and leave in any order, beside sleep and reset."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = 9
        self.events: list[Event] = []
        self.expected: list[Event] = []
        self.cache = Cache(blocks=self.blocks, block_size=SIZE, hasher=HASHER, note=self.events.append)
        self.pool = Pool(self.blocks, self.expected)
        self.running: list[Sequence] = []
        self.lost: list[Sequence] = []  # they have slept through

    @rule(prompt=TOKENS, answer=ANSWERS, extras=st.sampled_from(SALTS), cut=st.integers(0, 2))
    def begin(self, prompt: list[int], answer: list[int], extras: Extras, cut: int) -> None:
        """A request comes; it may say ``cut`` tokens less than it was given room for."""
        needed = -(-(len(prompt) + len(answer) - 1) // SIZE)
        try:
            ticket = self.cache.prepare(prompt, len(answer), extras, None)
        except Fault:
            assert needed > self.blocks - 1
            return
        assert needed <= self.blocks - 1
        sequence = Sequence(ticket, answer[: max(len(answer) - cut, 1)])
        if self.cache.fits(ticket):
            self.start(sequence)
        else:
            assert self.cache.enabled
            assert not self.room(sequence, needed)

    def room(self, sequence: Sequence, needed: int) -> bool:
        """Whether every running sequence and this one can get all they may ever need."""
        promised = sum(each.ticket.need - len(each.slots) for each in self.running)
        shared = sum(slot.users > 0 for slot in self.hits(sequence))
        return needed - shared + promised <= len(self.pool.free)

    def hits(self, sequence: Sequence) -> list[Slot]:
        found: list[Slot] = []
        for key in sequence.keys[: (len(sequence.ticket.ids) - 1) // SIZE]:
            slot = self.pool.find(key)
            if slot is None:
                break
            found.append(slot)
        return found

    def start(self, sequence: Sequence) -> None:
        cached = self.cache.start(sequence.ticket)
        if not self.cache.enabled:
            assert cached == 0
            self.lost.append(sequence)
            return
        assert self.room(sequence, sequence.ticket.need)
        hits = self.hits(sequence)
        assert cached == len(hits) * SIZE < len(sequence.ticket.ids)
        sequence.slots = [self.pool.touch(slot) for slot in hits]
        prompt = len(sequence.ticket.ids)
        sequence.slots += [self.pool.take() for _ in range(-(-prompt // SIZE) - len(hits))]
        self.fill(sequence, len(hits), prompt // SIZE)
        self.running.append(sequence)

    def fill(self, sequence: Sequence, start: int, stop: int) -> None:
        for slot, key in list(zip(sequence.slots, sequence.keys, strict=False))[start:stop]:
            self.pool.store(slot, key)
        if stop > start:
            self.expected.append(sequence.stored(start, stop))

    @precondition(lambda self: self.running)
    @rule(which=st.integers(0), tokens=st.integers(1, 7))
    def speak(self, which: int, tokens: int) -> None:
        """A sequence says some tokens, as a pacer tells it: only where the cache asked to be called."""
        sequence = self.running[which % len(self.running)]
        before = sequence.spoken
        sequence.spoken = min(before + tokens, len(sequence.answer))
        if sequence.spoken >= sequence.again:
            sequence.again = self.cache.grow(sequence.ticket, sequence.answer, sequence.spoken)
            assert sequence.again > sequence.spoken
        for spoken in range(before + 1, min(sequence.spoken, len(sequence.answer) - 1) + 1):
            self.compute(sequence, len(sequence.ticket.ids) + spoken)

    def compute(self, sequence: Sequence, tokens: int) -> None:
        """One step of one sequence, after which so many of its tokens are computed."""
        if tokens > len(sequence.slots) * SIZE:
            sequence.slots.append(self.pool.take())
        if tokens % SIZE == 0:
            self.fill(sequence, tokens // SIZE - 1, tokens // SIZE)

    @precondition(lambda self: self.running)
    @rule(which=st.integers(0))
    def leave(self, which: int) -> None:
        """A sequence ends, or its client has gone."""
        sequence = self.running.pop(which % len(self.running))
        self.cache.end(sequence.ticket)
        self.pool.give(sequence.slots)
        self.lost.append(sequence)

    @precondition(lambda self: self.lost)
    @rule(which=st.integers(0))
    def linger(self, which: int) -> None:
        """Who has no part in the cache any more changes nothing, whatever is told of it."""
        sequence = self.lost[which % len(self.lost)]
        assert self.cache.grow(sequence.ticket, sequence.answer, len(sequence.answer)) == NEVER
        self.cache.end(sequence.ticket)

    @rule()
    def reset(self) -> None:
        assert self.cache.reset() == (not self.running)
        if not self.running:
            self.empty()

    @rule()
    def sleep(self) -> None:
        if self.cache.enabled:
            self.empty()
        self.cache.sleep()

    @rule()
    def wake(self) -> None:
        self.cache.wake()

    def empty(self) -> None:
        self.pool = Pool(self.blocks, self.expected)
        self.lost += self.running
        self.running = []
        self.expected.append(Cleared())

    @invariant()
    def tells_the_same_events(self) -> None:
        assert self.events == self.expected

    @invariant()
    def uses_as_many_blocks(self) -> None:
        used = self.blocks - 1 - len(self.pool.free)
        assert self.cache.usage() == used / (self.blocks - 1)
        assert used == sum(slot.users > 0 for slot in self.pool.slots)

    @invariant()
    def leaks_nothing(self) -> None:
        if not self.running:
            whole = self.cache.prepare([2] * ((self.blocks - 1) * SIZE), 1, SALTS[0], None)
            assert self.cache.fits(whole)


class MachineTests(SynchronousTestCase):
    def test_any_life_of_a_cache_is_that_of_vllms_block_pool(self) -> None:
        run_state_machine_as_test(CacheMachine, settings=settings(deadline=None, stateful_step_count=60))
