"""
A regular expression as a tree of nodes that draw texts.

Each node knows its fewest and most characters, so a text of a wanted length is spread over the parts of a pattern.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Sequence
from importlib import import_module
from random import Random
from typing import Any, Protocol

import attrs

from llmdsim.sim.synthesis.alphabets import LETTERS

PARSER = import_module("re._parser" if sys.version_info >= (3, 11) else "sre_parse")

FAR = 1 << 40  # longer than any string
STEPS = 30_000  # characters and empty repetitions in all draws for one string


class Stuck(Exception):
    """This draw came to a place where nothing fits."""


@attrs.define(slots=True)
class Draw:
    """One string in the making: chance, how far repetitions go, the steps left, and what the groups hold."""

    rng: Random
    spread: int
    steps: int = STEPS
    groups: dict[int, str] = attrs.field(factory=dict)

    def step(self, count: int = 1) -> None:
        self.steps -= count
        if self.steps < 0:
            raise ValueError


class Node(Protocol):
    """A part of a pattern: fewest and most characters, and a text of ``low`` to ``high`` characters if it can."""

    @property
    def least(self) -> int: ...
    @property
    def most(self) -> int: ...
    def draw(self, low: int, high: int, draw: Draw) -> str: ...


@attrs.frozen(slots=True)
class _Letter:
    choices: str
    least: int = 1
    most: int = 1

    def draw(self, low: int, high: int, draw: Draw) -> str:
        draw.step()
        if not self.choices:
            raise Stuck
        return draw.rng.choice(self.choices)


@attrs.frozen(slots=True)
class _Run:
    parts: Sequence[Node]
    least: int
    most: int

    def draw(self, low: int, high: int, draw: Draw) -> str:
        return _spread(self.parts, self.least, self.most, low, high, draw)


@attrs.frozen(slots=True)
class _Repeat:
    part: Node
    fewest: int
    times: int
    least: int
    most: int

    def draw(self, low: int, high: int, draw: Draw) -> str:
        part = self.part
        fewest = max(self.fewest, -(-low // part.most) if part.most else 0)
        times = min(self.times, max(fewest, self.fewest + draw.spread), high // part.least if part.least else FAR)
        if fewest > times:
            raise Stuck
        count = draw.rng.randint(fewest, times)
        if not part.least:
            draw.step(count)
        return _spread([part] * count, part.least * count, part.most * count, low, high, draw)


@attrs.frozen(slots=True)
class _Branch:
    branches: Sequence[Node]
    least: int
    most: int

    def draw(self, low: int, high: int, draw: Draw) -> str:
        fitting = [branch for branch in self.branches if branch.least <= high and branch.most >= low]
        if not fitting:
            raise Stuck
        return draw.rng.choice(fitting).draw(low, high, draw)


@attrs.frozen(slots=True)
class _Group:
    number: int
    part: Node
    least: int
    most: int

    def draw(self, low: int, high: int, draw: Draw) -> str:
        text = draw.groups[self.number] = self.part.draw(low, high, draw)
        return text


@attrs.frozen(slots=True)
class _Again:
    number: int
    least: int = 0
    most: int = FAR

    def draw(self, low: int, high: int, draw: Draw) -> str:
        if self.number not in draw.groups:
            raise Stuck
        text = draw.groups[self.number]
        draw.step(len(text))
        return text


@attrs.frozen(slots=True)
class _Either:
    number: int
    yes: Node
    no: Node
    least: int
    most: int

    def draw(self, low: int, high: int, draw: Draw) -> str:
        return (self.yes if self.number in draw.groups else self.no).draw(low, high, draw)


def _spread(parts: Sequence[Node], least: int, most: int, low: int, high: int, draw: Draw) -> str:
    """The texts of parts that need ``least`` to ``most`` characters in all, as one of ``low`` to ``high``."""
    texts = []
    for part in parts:
        least, most = least - part.least, most - part.most
        text = part.draw(max(part.least, low - most), min(part.most, high - least), draw)
        low, high = low - len(text), high - len(text)
        texts.append(text)
    return "".join(texts)


class Reader:
    """
    Makes nodes of the parser's tree.

    ``careful`` becomes true where a drawn text may fail to match, ``nested`` where repetitions hold repetitions.
    """

    def __init__(self, careful: bool) -> None:
        self.careful = careful
        self.nested = False
        self._depth = 0

    def run(self, items: Iterable[Any]) -> Node:
        parts = [self._node(str(name), value) for name, value in items]
        if len(parts) == 1:
            return parts[0]
        return _Run(parts, sum(part.least for part in parts), sum(part.most for part in parts))

    def _node(self, name: str, value: Any) -> Node:
        if name in LETTERS:
            return _Letter(LETTERS[name](value))
        if name in ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT"):
            return self._repeat(name, *value)
        if name == "BRANCH":
            return _Branch(*_widths([self.run(branch) for branch in value[1]]))
        if name == "SUBPATTERN":
            return self._group(*value)
        self.careful = True
        if name == "GROUPREF":
            return _Again(value)
        if name == "ATOMIC_GROUP":
            return self.run(value)
        if name == "GROUPREF_EXISTS":
            return self._either(*value)
        return _Run((), 0, 0)  # AT, ASSERT, ASSERT_NOT

    def _repeat(self, name: str, fewest: Any, times: Any, body: Any) -> Node:
        self.careful |= name == "POSSESSIVE_REPEAT"
        self._depth += 1
        self.nested |= self._depth > 1
        part, most = self.run(body), FAR if times == PARSER.MAXREPEAT else int(times)
        self._depth -= 1
        return _Repeat(part, int(fewest), most, part.least * int(fewest), part.most * most)

    def _group(self, number: int | None, added: int, removed: int, body: Any) -> Node:
        self.careful |= bool(added & re.IGNORECASE)
        part = self.run(body)
        return part if number is None else _Group(number, part, part.least, part.most)

    def _either(self, number: int, yes: Any, no: Any) -> Node:
        then, other = self.run(yes), self.run(no or ())
        return _Either(number, then, other, min(then.least, other.least), max(then.most, other.most))


def _widths(nodes: list[Node]) -> tuple[list[Node], int, int]:
    return nodes, min(node.least for node in nodes), max(node.most for node in nodes)
