"""
What tests of the simulation share: a rank on a clock of its own, a sink that writes down what it hears, requests.

Durations are best fractions of two, so that sums of them are exact.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import attrs
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import Clock

from llmdsim.config import Adapter, Config
from llmdsim.dataset import Draft, Echo, Presets
from llmdsim.sim.plan import Offload, Plan, Sink, Source, Tokenizer
from llmdsim.sim.rank import Rank
from llmdsim.sim.request import Model, Prompt, Request, Tokens
from llmdsim.simulated import Simulated

WALL = 1_700_000_000


def make_rank(
    tokenizer: Tokenizer | None = None, source: Source | None = None, offload: Offload = maybeDeferred, **flags: Any
) -> tuple[Rank, Clock]:
    """A rank of model ``m`` and its clock; ``flags`` are attributes of Config, durations in seconds."""
    clock, tokenizer = Clock(), tokenizer or Simulated()
    config = Config(model="m", seed=1).evolve(**flags).for_rank(0)
    says = Echo if config.mode == "echo" else Presets
    rank = Rank(config, clock, lambda: WALL + clock.seconds(), tokenizer, source or says(tokenizer.encode), offload)
    return rank, clock


def serve(rank: Rank, request: Request, sink: Sink) -> Deferred[None]:
    """What a door does with a request: cancelling the Deferred is the client's leaving."""
    return Deferred.fromCoroutine(rank.serve(request, sink))


def request(tokens: int = 3, **fields: Any) -> Request:
    """A request of id ``r`` for exactly so many tokens."""
    given = {"id": "r", "model": Model("m"), "prompts": ("hi",), "max_tokens": tokens, "ignore_eos": True}
    return Request(**{**given, **fields})


def adapter(name: str) -> Model:
    """The model that an adapter's request asks for."""
    return Model(name, name)


def adapters(*names: str) -> tuple[Adapter, ...]:
    """Adapters as the configuration lists them."""
    return tuple(Adapter(name, f"/adapters/{name}") for name in names)


def plan(texts: str, index: int = 0, **fields: Any) -> Plan:
    """A sequence that says the words of ``texts``, a token each, in answer to a prompt of one token."""
    words = texts.split()
    return Plan(request(**fields), index, Tokens((1,), ()), words, [*range(len(words))], "length")


def metric(rank: Rank, name: str, **labels: str) -> float | None:
    """One value of a rank's page; None: there is no such series."""
    common = {"engine": "0", "model_name": "m"}
    value: float | None = rank.meters.registry.get_sample_value(name, {**common, **labels})
    return value


class Ear:
    """
    A sink that writes down ``notes``: when, and what it heard of which choice.

    What is ``"0 begin"``, ``"0 2:5"`` for a slice of tokens, ``"0 end"``. ``then`` is called with it after each note.
    """

    def __init__(self, clock: Clock, then: Callable[[str], None] = lambda what: None) -> None:
        self.notes: list[tuple[float, str]] = []
        self.plans: dict[int, Plan] = {}
        self._clock, self._then = clock, then

    def begin(self, plan: Plan) -> None:
        """The status line."""
        self.plans[plan.index] = plan
        self._note(f"{plan.index} begin")

    def tokens(self, plan: Plan, start: int, stop: int) -> None:
        """Some tokens."""
        self._note(f"{plan.index} {start}:{stop}")

    def end(self, plan: Plan) -> None:
        """The end of one choice."""
        self._note(f"{plan.index} end")

    @property
    def heard(self) -> list[str]:
        """The notes without their times."""
        return [what for _, what in self.notes]

    def times(self, what: str) -> list[float]:
        """When notes that contain ``what`` were written."""
        return [when for when, note in self.notes if what in note]

    def text(self, index: int = 0) -> str:
        """What one choice says as a whole."""
        return "".join(self.plans[index].texts)

    def _note(self, what: str) -> None:
        self.notes.append((self._clock.seconds(), what))
        self._then(what)


@attrs.frozen
class Script:
    """A source that says the same text to everybody, and then itself ends."""

    text: str

    def draft(self, request: Request, prompt: Prompt, tokens: Tokens, limit: int, rng: Random) -> Draft:
        """The text."""
        return Draft(Simulated().encode(self.text), complete=True)
