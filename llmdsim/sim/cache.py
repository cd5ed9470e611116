"""
The KV cache: blocks that are hashed, pinned, evicted and counted, never filled.

They are physical blocks, as vLLM's: several may hold the same tokens, each announced and evicted for itself. A
sequence starts only when all blocks it may ever need can be promised, so that none is preempted. Sending the events is
the business of whoever hears of them.
"""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import attrs

from llmdsim.faults import BAD_REQUEST, Fault
from llmdsim.sim.hashing import Extras, Hasher

NEVER = sys.maxsize  # a count of tokens that no sequence reaches


class Stored(NamedTuple):
    """
    Blocks of one sequence that became full together; ``parent`` is the key of the block before them.

    ``ids`` are the tokens of all of them; ``extra_keys`` has an entry for each block.
    """

    keys: Sequence[bytes]
    parent: bytes | None
    ids: Sequence[int]
    block_size: int
    adapter: str | None
    adapter_id: int | None
    extra_keys: Sequence[Any]


class Removed(NamedTuple):
    """Blocks that gave their place to others."""

    keys: Sequence[bytes]


class Cleared(NamedTuple):
    """All blocks were forgotten."""


Event = Stored | Removed | Cleared


@attrs.define(slots=True, eq=False)
class Block:
    """A full block: its key, and how many sequences use it."""

    key: bytes
    users: int = 1


@attrs.define(slots=True, eq=False)
class Ticket:
    """
    What one sequence has of the cache: blocks it may ever ``need``, ``held`` ones, and those of them that are full.

    ``keys`` are of the prompt's full blocks, of which the first ``reach`` may be found in the cache. ``era`` is the
    cache's while the sequence uses it.
    """

    ids: Sequence[int]
    extras: Extras
    adapter_id: int | None
    keys: Sequence[bytes]
    need: int
    reach: int
    held: int = 0
    full: int = 0
    blocks: list[Block] = attrs.field(factory=list)  # the full ones, where blocks are hashed at all
    era: int | None = None


class Cache:
    """
    The blocks of one rank; one of them is never used, as vLLM's null block. ``note`` hears of every change.

    While not ``enabled`` every sequence fits, and none leaves a trace.
    """

    def __init__(
        self,
        *,
        blocks: int,
        block_size: int,
        hasher: Hasher,
        note: Callable[[Event], None],
        prefix_caching: bool = True,
    ) -> None:
        self.enabled = True
        self._usable = max(blocks - 1, 0)
        self._size = block_size
        self._hasher = hasher
        self._note = note
        self._hashing = prefix_caching
        self._era = 0
        self._forget_all()

    def prepare(
        self, ids: Sequence[int], length: int, extras: Extras, adapter_id: int | None, lookup: bool = True
    ) -> Ticket:
        """
        Hash a prompt that at most ``length`` tokens will follow; without ``lookup`` it is computed whole.

        Raises Fault(BAD_REQUEST) where it can never fit.
        """
        # The last token of all is never computed, so it takes no room.
        need = self._count(len(ids) + max(length - 1, 0))
        if need > self._usable:
            raise Fault(
                BAD_REQUEST,
                f"The KV cache is too small for this request: {len(ids)} prompt tokens and up to {length} output "
                f"tokens need {need} blocks of {self._size} tokens, but there are only {self._usable}.",
            )
        keys = self._hasher.keys(ids, self._size, extras) if self._hashing else []
        # vLLM computes the last token of every prompt, for there is nothing to sample from otherwise.
        reach = min(max(len(ids) - 1, 0) // self._size, len(keys)) if lookup else 0
        return Ticket(ids, extras, adapter_id, keys, need, reach)

    def fits(self, ticket: Ticket) -> bool:
        """Whether all blocks that a sequence may ever need can be promised now."""
        missing = ticket.need - (self._usable - self._used - self._promised)
        if missing <= 0 or not self.enabled:
            return True
        if missing > ticket.reach:
            return False
        return sum(block.users > 0 for block in self._found(ticket)) >= missing

    def start(self, ticket: Ticket) -> int:
        """
        Give a sequence that fits the blocks of its prompt, and its promise; how many of its tokens were cached.

        Its new full blocks can be found from now on.
        """
        if not self.enabled:
            return 0
        assert self.fits(ticket), "a sequence started that does not fit"
        ticket.era, ticket.blocks = self._era, self._found(ticket)
        for block in ticket.blocks:
            self._pin(block)
        cached = ticket.held = len(ticket.blocks)
        self._promised += ticket.need - cached
        self._extend(ticket, self._count(len(ticket.ids)) - cached)
        self._fill(ticket, ticket.keys[cached:], ticket.ids[cached * self._size : len(ticket.keys) * self._size])
        ticket.full = len(ticket.ids) // self._size
        return cached * self._size

    def grow(self, ticket: Ticket, generated: Sequence[int], count: int) -> int:
        """
        Tell that ``count`` tokens of ``generated``, all that the sequence will say, have been spoken.

        Each block that became full is stored by itself, as vLLM's steps do. Returns the count at which to call again:
        where the next block is full, or one more is needed.
        """
        if ticket.era != self._era:
            return NEVER
        prompt, size = len(ticket.ids), self._size
        computed = prompt + min(count, len(generated) - 1)
        while computed > ticket.full * size:
            if ticket.held == ticket.full:
                self._extend(ticket, 1)
            if computed < (ticket.full + 1) * size:
                break
            self._fill_next(ticket, generated)
        again = max(ticket.held * size, computed + 1) - prompt
        return again if again < len(generated) else NEVER

    def end(self, ticket: Ticket) -> None:
        """Take everything back from a sequence, its tail to be evicted first; harmless where there is nothing."""
        if ticket.era != self._era:
            return
        ticket.era = None
        idle = self._idle
        freed = ticket.held - len(ticket.blocks)
        for block in reversed(ticket.blocks):
            block.users -= 1
            if not block.users:
                idle[block] = None
                freed += 1
        self._used -= freed
        self._promised -= ticket.need - ticket.held
        ticket.blocks = []

    def usage(self) -> float:
        """The share of blocks that sequences use, 0 to 1; cached blocks that nobody uses are free."""
        return self._used / self._usable if self._usable else 0.0

    def reset(self) -> bool:
        """Forget all cached blocks; False, and nothing is done, while sequences use any."""
        if self._used:
            return False
        self._clear()
        return True

    def sleep(self) -> None:
        """Discard everything, also what sequences use, and stay empty until ``wake``."""
        if self.enabled:
            self.enabled = False
            self._clear()

    def wake(self) -> None:
        """Begin anew, empty; sequences that started before or meanwhile have no part in it."""
        self.enabled = True

    def _clear(self) -> None:
        self._era += 1
        self._forget_all()
        self._note(Cleared())

    def _forget_all(self) -> None:
        self._cached: dict[bytes, Block] = {}
        self._twins: dict[bytes, OrderedDict[Block, None]] = {}  # further blocks of a cached key, oldest first
        self._idle: OrderedDict[Block, None] = OrderedDict()  # cached and unused, next to be evicted first
        self._used = 0
        self._promised = 0

    def _count(self, tokens: int) -> int:
        return -(-tokens // self._size)

    def _found(self, ticket: Ticket) -> list[Block]:
        """The cached blocks that a prompt begins with."""
        found, cached = [], self._cached
        for key in ticket.keys[: ticket.reach]:
            block = cached.get(key)
            if block is None:
                break
            found.append(block)
        return found

    def _pin(self, block: Block) -> None:
        if not block.users:
            del self._idle[block]
            self._used += 1
        block.users += 1

    def _extend(self, ticket: Ticket, count: int) -> None:
        """Give a sequence so many of its promised blocks: those that hold nothing first, then the oldest idle ones."""
        empty = self._usable - self._used - len(self._idle)
        for _ in range(count - empty):
            self._evict()
        ticket.held += count
        self._used += count
        self._promised -= count

    def _evict(self) -> None:
        block, _ = self._idle.popitem(last=False)
        twins = self._twins.get(block.key)
        if twins is None:
            del self._cached[block.key]
        elif self._cached[block.key] is block:
            self._cached[block.key], _ = twins.popitem(last=False)
        else:
            del twins[block]
        if twins is not None and not twins:
            del self._twins[block.key]
        self._note(Removed((block.key,)))

    def _fill_next(self, ticket: Ticket, generated: Sequence[int]) -> None:
        """Store the block after the full ones of a sequence, which generated tokens have filled."""
        if self._hashing:
            prompt, start = len(ticket.ids), ticket.full * self._size
            stop = start + self._size
            ids = [*ticket.ids[start:stop], *generated[max(start - prompt, 0) : stop - prompt]]
            self._fill(ticket, self._hasher.keys(ids, self._size, ticket.extras, _last(ticket), ticket.full), ids)
        ticket.full += 1

    def _fill(self, ticket: Ticket, keys: Sequence[bytes], ids: Sequence[int]) -> None:
        """Cache blocks that became full, after the full ones of their sequence."""
        if not keys:
            return
        adapter, first, parent = ticket.extras.adapter, len(ticket.blocks), _last(ticket)
        for key in keys:
            block = Block(key)
            ticket.blocks.append(block)
            if self._cached.setdefault(key, block) is not block:
                self._twins.setdefault(key, OrderedDict())[block] = None
        shown = ticket.extras.shown(self._size, first, len(keys))
        name = None if adapter is None else adapter[0]
        self._note(Stored(keys, parent, ids, self._size, name, ticket.adapter_id, shown))


def _last(ticket: Ticket) -> bytes | None:
    """The key of a sequence's last full block."""
    return ticket.blocks[-1].key if ticket.blocks else None
