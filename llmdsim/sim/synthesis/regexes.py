"""
A string for a regular expression, drawn from the tree that Python's own parser makes of it.

By construction the string matches; only where the tree holds what looks around (anchors inside, lookarounds, word
boundaries, ...) is it checked, and drawn again. Characters are plain ASCII wherever the pattern allows it.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable
from functools import lru_cache
from random import Random
from typing import Any

import attrs

from llmdsim.sim.synthesis.patterns import FAR, PARSER, Draw, Node, Reader, Stuck

ATTEMPTS = 100
SPREAD = 5  # more repetitions than the fewest, unless the length asks for more
RISK = 24  # characters that a check may backtrack over where repetitions are nested
LONGEST_PATTERN = 10_000
_NAMED = re.compile(r"\\.|\(\?<(?![=!])", re.DOTALL)


@attrs.frozen(slots=True)
class Pattern:
    """
    A pattern made ready: its tree, and where a drawn text must be checked the compiled pattern.

    ``risky``: the check could take exponential time.
    """

    tree: Node
    check: re.Pattern[str] | None
    risky: bool

    def accepts(self, text: str) -> bool:
        return self.check is None or self.check.fullmatch(text) is not None


def matching(pattern: str, rng: Random, least: int = 0, most: int = FAR) -> str:
    """
    A string of ``least`` to ``most`` characters that fullmatches the pattern; ValueError where none can be made.

    ``(?<name>`` is taken as Python's ``(?P<name>``. It is found in at most STEPS steps, but not every string that
    exists is found: lookarounds are only checked, not aimed at.
    """
    ready = _ready(pattern)
    if ready.risky and least > RISK:
        raise ValueError(f"{pattern} is too hard to match at that length")
    draw = Draw(rng, 1 if ready.risky else SPREAD)
    for _ in range(ATTEMPTS):
        try:
            text = ready.tree.draw(max(least, ready.tree.least), min(most, ready.tree.most), draw)
        except Stuck:
            continue
        except (ValueError, RecursionError):
            break
        if least <= len(text) <= most and ready.accepts(text):
            return text
        draw.groups.clear()
    raise ValueError(f"no text could be made for the pattern {pattern}")


def found(pattern: str, text: str) -> bool:
    """Whether a text holds a match of a pattern, as JSON Schema asks; ValueError for what is no pattern."""
    return _compiled(pattern).search(text) is not None


def _pythonic(pattern: str) -> str:
    return _NAMED.sub(lambda part: "(?P<" if part[0] == "(?<" else part[0], pattern)


@lru_cache(maxsize=256)
def _compiled(pattern: str) -> re.Pattern[str]:
    if len(pattern) > LONGEST_PATTERN:
        raise ValueError(f"a pattern may have at most {LONGEST_PATTERN} characters")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what a later Python may take otherwise is none of our client's business
        try:
            return re.compile(_pythonic(pattern))
        except (re.error, OverflowError, RecursionError) as error:
            raise ValueError(f"{pattern} is not a pattern: {error}") from None


@lru_cache(maxsize=256)
def _ready(pattern: str) -> Pattern:
    compiled = _compiled(pattern)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        parsed = PARSER.parse(_pythonic(pattern))
    reader = Reader(careful=bool(parsed.state.flags & re.IGNORECASE))
    tree = reader.run(_bare(parsed))
    return Pattern(tree, compiled if reader.careful else None, reader.careful and reader.nested)


def _bare(parsed: Iterable[Any]) -> list[Any]:
    """A whole pattern without the anchors at its ends, which say nothing about a full match."""
    parts = list(parsed)
    starts, ends = ("AT_BEGINNING", "AT_BEGINNING_STRING"), ("AT_END", "AT_END_STRING")
    while parts and str(parts[0][0]) == "AT" and str(parts[0][1]) in starts:
        del parts[0]
    while parts and str(parts[-1][0]) == "AT" and str(parts[-1][1]) in ends:
        del parts[-1]
    return parts
