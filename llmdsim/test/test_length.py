"""How long a random answer is."""

from __future__ import annotations

from collections import Counter
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from llmdsim.sim.length import bounds, draw_length


class Loaded(Random):
    """Chance that throws ``share``, and then the least of a range."""

    def __init__(self, share: float) -> None:
        super().__init__(0)
        self._share = share

    def random(self) -> float:
        return self._share

    def randint(self, a: int, b: int) -> int:
        return a


class BoundsTests(SynchronousTestCase):
    def all_bounds(self, limit: int) -> list[tuple[int, int]]:
        return [bounds(limit, bucket) for bucket in range(5)]

    def test_they_are_the_older_simulators(self) -> None:
        for limit, wanted in (
            (500, [(1, 20), (21, 40), (41, 60), (61, 480), (481, 499)]),
            (47, [(1, 9), (10, 18), (19, 27), (28, 36), (37, 46)]),
            (50, [(1, 9), (10, 19), (20, 29), (30, 39), (40, 49)]),
        ):
            self.assertEqual(self.all_bounds(limit), wanted)

    def test_they_follow_one_another_up_to_just_below_the_limit(self) -> None:
        for limit in range(7, 1000):
            found = self.all_bounds(limit)
            starts = [1, *(end + 1 for _, end in found)]
            self.assertEqual(starts, [*(start for start, _ in found), limit])
            self.assertTrue(all(start <= end for start, end in found), limit)


class LimitedTests(SynchronousTestCase):
    def test_shares_choose_the_bucket_and_what_is_above_them_is_cut_at_the_limit(self) -> None:
        for share, wanted in (
            (0.0, 1),
            (0.2, 1),
            (0.21, 21),
            (0.5, 21),
            (0.51, 41),
            (0.7, 41),
            (0.71, 61),
            (0.75, 61),
            (0.76, 481),
            (0.85, 481),
            (0.851, 500),
        ):
            self.assertEqual(draw_length(500, True, Loaded(share)), wanted)

    def test_a_small_limit_is_drawn_evenly(self) -> None:
        rng = Random(1)
        for limit in range(1, 7):
            count = Counter(draw_length(limit, True, rng) for _ in range(limit * 200))
            self.assertEqual(sorted(count), list(range(1, limit + 1)))
            self.assertGreater(min(count.values()), 140)

    @settings(deadline=None)
    @given(st.integers(1, 5000), st.booleans(), st.integers())
    def test_a_length_is_at_least_1_and_at_most_the_limit(self, limit: int, limited: bool, seed: int) -> None:
        self.assertIn(draw_length(limit, limited, Random(seed)), range(1, limit + 1))


class UnlimitedTests(SynchronousTestCase):
    def test_a_window_below_20_is_drawn_evenly(self) -> None:
        rng = Random(1)
        count = Counter(draw_length(19, False, rng) for _ in range(19 * 200))
        self.assertEqual(sorted(count), list(range(1, 20)))
        self.assertGreater(min(count.values()), 140)

    def test_a_large_window_gives_lengths_around_40(self) -> None:
        rng = Random(1)
        lengths = [draw_length(1000, False, rng) for _ in range(4000)]
        middle = sorted(lengths)[2000]
        self.assertIn(middle, range(38, 44))
        self.assertLess(sum(length > 100 for length in lengths), 40)

    def test_what_does_not_fit_is_drawn_again_and_not_cut(self) -> None:
        rng = Random(1)
        lengths = Counter(draw_length(30, False, rng) for _ in range(4000))
        self.assertLess(lengths[30], 400)
