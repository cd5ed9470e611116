"""
How long a random answer is: the older simulator's length model.

Pure functions of the limit and a generator of chance.
"""

from __future__ import annotations

from bisect import bisect_left
from random import Random

MEAN, DEVIATION = 40, 20  # of an answer without a limit of the client's
SHORT = 20  # below this much room such an answer is drawn evenly
SHARES = (0.2, 0.5, 0.7, 0.75, 0.85)  # cumulative; what is above the last one is cut at the limit
WIDTH = 20  # of the buckets of a long limit, all but the fourth
WIDE = 3  # the bucket that takes the rest of a long limit


def draw_length(limit: int, limited: bool, rng: Random) -> int:
    """Tokens of an answer's text, 1 to ``limit``; ``limited``: the client set the limit, otherwise the window did."""
    if limited:
        return _histogram(limit, rng)
    if limit < SHORT:
        return rng.randint(1, limit)
    return _gaussian(limit, rng)


def bounds(limit: int, bucket: int) -> tuple[int, int]:
    """First and last length of one of the five buckets below a limit of more than 6."""
    if limit <= 101:
        start, end = (limit - 1) * bucket // 5 + 1, (limit - 1) * (bucket + 1) // 5
    else:
        starts = (1, WIDTH + 1, 2 * WIDTH + 1, 3 * WIDTH + 1, limit - WIDTH + 1, limit + 1)
        start, end = starts[bucket], starts[bucket + 1] - 1
    return start, min(end, limit - 1)


def _histogram(limit: int, rng: Random) -> int:
    if limit <= 6:
        return rng.randint(1, limit)
    share = rng.random()
    if share > SHARES[-1]:
        return limit
    return rng.randint(*bounds(limit, bisect_left(SHARES, share)))


def _gaussian(limit: int, rng: Random) -> int:
    while True:
        length = int(rng.gauss(MEAN, DEVIATION) + 0.5)  # half away from zero: the interval holds no negative length
        if 1 <= length <= limit:
            return length
