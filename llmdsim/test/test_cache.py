"""The KV cache: what is found again, what is announced, who has to wait, what goes first."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from llmdsim.faults import BAD_REQUEST, Fault
from llmdsim.sim.cache import NEVER, Cache, Cleared, Removed, Stored, Ticket
from llmdsim.sim.hashing import Extras, Hasher

PLAIN = Extras()
HASHER = Hasher("sha256_cbor", "1")
SIZE = 4


def ids(tokens: int, start: int = 0) -> list[int]:
    return [*range(start, start + tokens)]


def keys(tokens: list[int], extras: Extras = PLAIN) -> list[bytes]:
    return HASHER.keys(tokens, SIZE, extras)


class CacheTestCase(SynchronousTestCase):
    """A cache of nine blocks of four tokens, eight of them usable, and its ``events``."""

    def setUp(self) -> None:
        self.events: list = []
        self.cache = self.make()

    def make(self, blocks: int = 9, **options) -> Cache:
        return Cache(blocks=blocks, block_size=SIZE, hasher=HASHER, note=self.events.append, **options)

    def prepare(self, prompt: list[int], length: int = 1, extras: Extras = PLAIN) -> Ticket:
        return self.cache.prepare(prompt, length, extras, None)

    def begin(self, prompt: list[int], length: int = 1, extras: Extras = PLAIN) -> tuple[Ticket, int]:
        ticket = self.prepare(prompt, length, extras)
        self.assertTrue(self.cache.fits(ticket))
        return ticket, self.cache.start(ticket)

    def serve(self, prompt: list[int], length: int = 1, extras: Extras = PLAIN) -> int:
        ticket, cached = self.begin(prompt, length, extras)
        self.cache.end(ticket)
        return cached

    def said(self) -> list[str]:
        """The events so far, in short; they are forgotten."""
        found = [f"{type(event).__name__} {len(getattr(event, 'keys', ()))}" for event in self.events]
        self.events.clear()
        return found

    @property
    def used(self) -> float:
        return self.cache.usage() * 8


class HitTests(CacheTestCase):
    def test_the_last_token_of_a_prompt_is_never_cached(self) -> None:
        self.serve(ids(9))
        self.assertEqual([self.serve(ids(n)) for n in (4, 5, 8, 9, 10)], [0, 4, 4, 8, 8])

    def test_a_twin_in_the_same_turn_finds_the_blocks(self) -> None:
        self.assertEqual([self.begin(ids(9))[1] for _ in range(2)], [0, 8])

    def test_hits_end_at_the_first_block_that_differs(self) -> None:
        self.serve(ids(16))
        self.assertEqual(self.serve([*ids(4), 99, *ids(11, 5)]), 4)

    def test_generated_blocks_are_found_by_the_next_turn(self) -> None:
        ticket, _ = self.begin(ids(6), 7)
        self.cache.grow(ticket, ids(7, 6), 7)
        self.cache.end(ticket)
        self.assertEqual(self.serve(ids(20)), 12)

    def test_the_last_generated_token_is_never_computed(self) -> None:
        ticket, _ = self.begin(ids(6), 6)
        self.cache.grow(ticket, ids(6, 6), 6)
        self.cache.end(ticket)
        self.assertEqual(self.serve(ids(20)), 8)

    def test_adapters_and_salts_keep_to_themselves(self) -> None:
        self.serve(ids(9))
        others = Extras(("l1", "/a")), Extras(salt="s")
        self.assertEqual([self.serve(ids(9), 1, extras) for extras in (*others, *others)], [0, 0, 8, 8])

    def test_a_prompt_may_be_computed_whole(self) -> None:
        self.serve(ids(9))
        ticket = self.cache.prepare(ids(9), 1, PLAIN, None, lookup=False)
        self.assertEqual(self.cache.start(ticket), 0)


class EventTests(CacheTestCase):
    def test_new_full_blocks_of_a_prompt_are_one_event(self) -> None:
        self.serve(ids(10))
        self.assertEqual(self.events, [Stored(keys(ids(8)), None, ids(8), SIZE, None, None, [None, None])])

    def test_blocks_that_were_found_are_only_the_parent(self) -> None:
        self.serve(ids(9))
        self.serve(ids(13))
        _, second, third = keys(ids(12))
        self.assertEqual(self.events[1:], [Stored([third], second, ids(4, 8), SIZE, None, None, [None])])

    def test_a_block_computed_again_is_announced_and_removed_again(self) -> None:
        for _ in range(3):
            self.serve(ids(4))
        self.serve(ids(32, 100))
        self.assertEqual(self.said(), ["Stored 1"] * 3 + ["Removed 1"] * 3 + ["Stored 8"])

    def test_an_adapter_is_named_by_name_and_slot(self) -> None:
        self.cache.start(self.cache.prepare(ids(4), 1, Extras(("l1", "/a"), "s"), 2))
        self.assertEqual(self.events[0][4:], ("l1", 2, [["l1", "s"]]))

    def test_each_generated_block_is_an_event_with_its_parent(self) -> None:
        ticket, _ = self.begin(ids(6), 8)
        self.cache.grow(ticket, ids(8, 6), 8)
        first, second, third = keys(ids(12))
        self.assertEqual(
            self.events[1:],
            [
                Stored([second], first, ids(4, 4), SIZE, None, None, [None]),
                Stored([third], second, ids(4, 8), SIZE, None, None, [None]),
            ],
        )

    def test_who_gives_place_is_removed_before_the_new_is_stored(self) -> None:
        self.serve(ids(28))
        self.serve(ids(8, 100))
        self.assertEqual(self.said(), ["Stored 7", "Removed 1", "Stored 2"])

    def test_without_prefix_caching_nothing_is_found_or_stored_and_blocks_count(self) -> None:
        self.cache = self.make(prefix_caching=False)
        ticket, _ = self.begin(ids(9), 5)
        _, cached = self.begin(ids(9))
        self.cache.grow(ticket, ids(5, 9), 5)
        self.assertEqual((cached, self.events, self.used), (0, [], 7))


class GrowthTests(CacheTestCase):
    def calls(self, ticket: Ticket, generated: list[int]) -> list[int]:
        counts = [self.cache.grow(ticket, generated, 0)]
        while counts[-1] != NEVER:
            counts.append(self.cache.grow(ticket, generated, counts[-1]))
        return counts[:-1]

    def test_it_wants_to_be_called_where_a_block_is_full_or_needed(self) -> None:
        self.assertEqual(self.calls(self.begin(ids(6), 9)[0], ids(9, 6)), [2, 3, 6, 7])

    def test_a_full_last_block_of_a_prompt_needs_another_with_the_first_token(self) -> None:
        ticket, _ = self.begin(ids(8), 3)
        self.assertEqual(self.used, 2)
        self.assertEqual(self.calls(ticket, ids(3, 8)), [1])
        self.assertEqual(self.used, 3)

    def test_a_sequence_that_has_ended_does_not_grow(self) -> None:
        ticket, _ = self.begin(ids(6), 9)
        self.cache.end(ticket)
        self.assertEqual(self.cache.grow(ticket, ids(9, 6), 9), NEVER)
        self.assertEqual((self.used, self.said()), (0, ["Stored 1"]))

    def test_few_calls_and_many_do_the_same(self) -> None:
        self.calls(self.begin(ids(6), 9)[0], ids(9, 6))
        slow = [*self.events]
        self.events.clear()
        self.cache = self.make()
        self.cache.grow(self.begin(ids(6), 9)[0], ids(9, 6), 9)
        self.assertEqual(self.events, slow)


class RoomTests(CacheTestCase):
    def test_what_can_never_fit_is_refused_with_both_numbers(self) -> None:
        fault = self.assertRaises(Fault, self.prepare, ids(30), 4)
        self.assertEqual(
            (fault.kind, fault.message),
            (
                BAD_REQUEST,
                "The KV cache is too small for this request: 30 prompt tokens and up to 4 output tokens "
                "need 9 blocks of 4 tokens, but there are only 8.",
            ),
        )
        self.prepare(ids(30), 3)

    def test_what_others_may_still_need_is_promised(self) -> None:
        running, _ = self.begin(ids(4), 13)
        self.assertEqual(self.used, 1)
        self.assertFalse(self.cache.fits(self.prepare(ids(17, 100))))
        self.assertTrue(self.cache.fits(self.prepare(ids(16, 100))))
        self.cache.end(running)
        self.assertTrue(self.cache.fits(self.prepare(ids(17, 100))))

    def test_blocks_in_use_are_shared_but_idle_ones_take_room(self) -> None:
        ticket, _ = self.begin(ids(24))
        self.assertTrue(self.cache.fits(self.prepare(ids(28))))
        self.cache.end(ticket)
        self.begin(ids(4, 100))
        self.assertTrue(self.cache.fits(self.prepare(ids(28))))
        self.assertFalse(self.cache.fits(self.prepare(ids(29))))

    def test_usage_counts_blocks_in_use_once_and_cached_ones_not(self) -> None:
        one, _ = self.begin(ids(10))
        other, _ = self.begin(ids(10))
        self.assertEqual(self.used, 4)
        self.cache.end(one)
        self.assertEqual(self.used, 3)
        self.cache.end(other)
        self.assertEqual(self.used, 0)

    def test_ending_twice_or_unstarted_changes_nothing(self) -> None:
        self.begin(ids(10))
        ticket, _ = self.begin(ids(10, 100))
        for ended in (ticket, ticket, self.prepare(ids(4))):
            self.cache.end(ended)
        self.assertEqual(self.used, 3)

    def test_a_cache_without_blocks_refuses_everything(self) -> None:
        for blocks in (0, 1):
            cache = self.make(blocks)
            self.assertRaises(Fault, cache.prepare, ids(1), 1, PLAIN, None)
            self.assertEqual(cache.usage(), 0)


class EvictionTests(CacheTestCase):
    def test_the_tail_of_the_sequence_that_ended_first_goes_first(self) -> None:
        self.serve(ids(8))
        self.serve(ids(8, 100))
        self.events.clear()
        self.serve(ids(28, 200))
        old, new = keys(ids(8)), keys(ids(8, 100))
        self.assertEqual(self.events[:-1], [Removed((key,)) for key in (old[1], old[0], new[1])])

    def test_a_block_that_is_used_again_is_young_again(self) -> None:
        self.serve(ids(4))
        self.serve(ids(4, 100))
        self.serve(ids(5))
        self.events.clear()
        self.serve(ids(28, 200))
        self.assertEqual(self.events[0], Removed((keys(ids(4, 100))[0],)))

    def test_of_blocks_with_the_same_tokens_the_oldest_is_found(self) -> None:
        for start in (0, 0, 100, 0):
            self.serve(ids(4, start))
        self.begin(ids(20, 200))
        self.events.clear()
        self.serve(ids(5))
        self.assertEqual(self.events, [Removed((keys(ids(4, 100))[0],))])

    def test_blocks_that_hold_nothing_are_taken_before_cached_ones(self) -> None:
        self.serve(ids(16))
        self.serve(ids(16, 100))
        self.assertEqual(self.said(), ["Stored 4", "Stored 4"])


class EraTests(CacheTestCase):
    def test_reset_forgets_what_nobody_uses_and_refuses_where_somebody_does(self) -> None:
        ticket, _ = self.begin(ids(9))
        self.assertFalse(self.cache.reset())
        self.cache.end(ticket)
        self.assertTrue(self.cache.reset())
        self.assertEqual(self.events[1:], [Cleared()])
        self.assertEqual(self.serve(ids(9)), 0)

    def test_asleep_everything_fits_and_nothing_is_kept(self) -> None:
        self.begin(ids(32))
        self.cache.sleep()
        self.cache.sleep()
        self.assertEqual([self.begin(ids(32))[1] for _ in range(2)], [0, 0])
        self.assertEqual((self.said(), self.used), (["Stored 8", "Cleared 0"], 0))

    def test_who_started_before_the_sleep_has_no_part_in_what_follows(self) -> None:
        old, _ = self.begin(ids(9), 9)
        self.cache.sleep()
        asleep, _ = self.begin(ids(9), 9)
        self.cache.wake()
        self.begin(ids(9))
        self.events.clear()
        for ticket in (old, asleep):
            self.assertEqual(self.cache.grow(ticket, ids(9, 9), 9), NEVER)
            self.cache.end(ticket)
        self.assertEqual((self.events, self.used), ([], 3))

    def test_it_wakes_up_empty(self) -> None:
        self.serve(ids(9))
        self.cache.sleep()
        self.cache.wake()
        self.assertEqual([self.serve(ids(9)) for _ in range(2)], [0, 8])
