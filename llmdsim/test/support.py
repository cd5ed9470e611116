"""
What tests of the simulation share: a rank on a clock of its own, a sink that writes down what it hears, requests.

Durations are best fractions of two, so that sums of them are exact.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import Clock

from llmdsim.config import Adapter, Config
from llmdsim.dataset import Echo, Presets
from llmdsim.sim.cache import Event
from llmdsim.sim.memory import unheard
from llmdsim.sim.pacing import Stream
from llmdsim.sim.plan import Offload, Plan, Sink, Tokenizer
from llmdsim.sim.rank import Rank
from llmdsim.sim.request import Model, Request, Tokens
from llmdsim.simulated import Simulated

WALL = 1_700_000_000


def make_rank(
    tokenizer: Tokenizer | None = None,
    offload: Offload = maybeDeferred,
    note: Callable[[Event], None] = unheard,
    **flags: Any,
) -> tuple[Rank, Clock]:
    """A rank of model ``m`` with seed 1, and its clock; ``flags`` are attributes of Config, durations in seconds."""
    clock, tokenizer = Clock(), tokenizer or Simulated()
    config = Config(**{"model": "m", "seed": 1, **flags}).evolve().for_rank(0)
    says = Echo if config.mode == "echo" else Presets
    wall = lambda: WALL + clock.seconds()  # noqa: E731
    return Rank(config, clock, wall, tokenizer, says(tokenizer.encode), offload, note), clock


def serve(rank: Rank, request: Request, sink: Sink) -> Deferred[None]:
    """What a door does with a request: cancelling the Deferred is the client's leaving."""
    return Deferred.fromCoroutine(rank.serve(request, sink))


def speak(rank: Rank, plan: Plan, sink: Sink, due: float = 0.0) -> Stream:
    """Let a rank's pacer speak a plan from ``due`` on."""
    return rank.pacer.speak(plan, sink, due)


def request(tokens: int | None = 3, **fields: Any) -> Request:
    """A request of id ``r`` for an answer of exactly so many tokens."""
    given = {"id": "r", "model": Model("m"), "prompts": ("hi",), "max_tokens": tokens, "ignore_eos": True}
    return Request(**{**given, **fields})


def adapter(name: str) -> Model:
    """The model that a request for an adapter asks for."""
    return Model(name, name)


def adapters(*names: str) -> tuple[Adapter, ...]:
    """Adapters as the configuration lists them."""
    return tuple(Adapter(name, f"/adapters/{name}") for name in names)


def a_plan(tokens: int, index: int = 0) -> Plan:
    """A sequence of so many tokens, in answer to a prompt of one token."""
    return Plan(request(tokens), index, Tokens((1,), ("hi",)), ["x"] * tokens, [*range(tokens)], "length")


def metric(rank: Rank, name: str, **labels: str) -> float | None:
    """One value of a rank's page; None: there is no such series."""
    common = {"engine": "0", "model_name": "m"}
    value: float | None = rank.meters.registry.get_sample_value(name, {**common, **labels})
    return value


def free(rank: Rank) -> bool:
    """Whether nobody runs, waits or is open."""
    return (rank.scheduler.running, rank.scheduler.waiting, rank.open) == (0, 0, 0)


class Ear:
    """
    A sink that writes down ``notes``: when, and what it heard of which choice.

    What is ``"0 begin"``, ``"0 2:5"`` for a slice of tokens, ``"0 end"``. ``then`` is called with it after each note.
    """

    def __init__(self, clock: Clock, then: Callable[[str], object] = lambda what: None) -> None:
        self.notes: list[tuple[float, str]] = []
        self.plans: dict[int, Plan] = {}
        self._clock, self._then = clock, then

    def begin(self, plan: Plan) -> None:
        """The status line."""
        self.plans[plan.index] = plan
        self._note(plan, "begin")

    def tokens(self, plan: Plan, start: int, stop: int) -> None:
        """Some tokens."""
        self._note(plan, f"{start}:{stop}")

    def end(self, plan: Plan) -> None:
        """The end of one choice."""
        self._note(plan, "end")

    @property
    def heard(self) -> list[str]:
        """The notes without their times."""
        return [what for _, what in self.notes]

    @property
    def text(self) -> str:
        """What the first choice says as a whole."""
        return "".join(self.plans[0].texts)

    def when(self, what: str) -> float:
        """When something was heard."""
        return next(time for time, heard in self.notes if heard == what)

    def _note(self, plan: Plan, what: str) -> None:
        self.notes.append((self._clock.seconds(), f"{plan.index} {what}"))
        self._then(self.heard[-1])
