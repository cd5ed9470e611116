"""
The one question that every dialect parses into.

Values only: a Request knows neither its wire form nor when it is answered.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import attrs

from llmdsim.sim.tools import Tool
from llmdsim.sim.transfer import HERE, Transfer


class Tokens(NamedTuple):
    """A text as a tokenizer cuts it: ids and their texts, of equal length; the texts join to the text."""

    ids: Sequence[int]
    texts: Sequence[str]


class Model(NamedTuple):
    """What answers: the name shown on the wire, and the adapter behind it (None: the base model)."""

    name: str
    adapter: str | None = None


@attrs.frozen(slots=True)
class Conversation:
    """A chat prompt before its template: messages as they came, and what the template may read."""

    messages: Sequence[Mapping[str, Any]]
    tools: Sequence[Mapping[str, Any]] = ()
    generation_prompt: bool = True
    template: Mapping[str, Any] = attrs.field(factory=dict)


@attrs.frozen(slots=True)
class Constraint:
    """A structured output: ``kind`` is a field of vLLM's ``structured_outputs``, ``value`` what it was given."""

    kind: str
    value: Any


@attrs.frozen(slots=True)
class Form:
    """
    What shape the answer must have. ``choice`` is none, auto, required or named (then ``named`` says which).

    ``thinking``: the model writes reasoning before its answer; ``show_reasoning``: the client wants to see it.
    """

    tools: Sequence[Tool] = ()
    choice: str = "none"
    named: str | None = None
    parallel: bool = True
    constraint: Constraint | None = None
    thinking: bool = False
    show_reasoning: bool = True

    @property
    def marked(self) -> bool:
        """Whether the raw text holds markup that a parser takes out."""
        return self.thinking or (bool(self.tools) and self.choice != "none")


Prompt = str | tuple[int, ...] | Conversation


@attrs.frozen(slots=True)
class Stops:
    """What ends an answer early; ``strings`` and ``ids`` count only after ``min_tokens`` tokens."""

    strings: tuple[str, ...] = ()
    ids: frozenset[int] = frozenset()
    min_tokens: int = 0
    include: bool = False


@attrs.frozen(slots=True)
class Request:
    """
    A request for ``n`` sequences for each prompt.

    ``max_tokens`` None means up to the context window; ``limit_name`` is the field it came from, for error texts.
    ``id`` is what clients see, ``bare_id`` the same without its API's prefix.
    ``prompts`` holds at least one prompt; choice ``i`` answers prompt ``i // n``.
    ``truncate`` keeps that many tokens of each prompt's end (-1: what the window holds).
    ``logprobs`` and ``prompt_logprobs`` count alternatives, None where none are wanted.
    """

    id: str
    model: Model
    prompts: tuple[Prompt, ...]
    n: int = 1
    max_tokens: int | None = None
    limit_name: str = "max_tokens"
    stops: Stops = Stops()
    form: Form = Form()
    ignore_eos: bool = False
    seed: int | None = None
    priority: int = 0
    stream: bool = False
    include_usage: bool = False
    continuous_usage: bool = False
    return_token_ids: bool = False
    echo: bool = False
    prompt_only: bool = False
    cache_salt: str = ""
    return_prompt_text: bool = False
    truncate: int | None = None
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    tokens_as_ids: bool = False
    stream_interval: int = 1
    transfer: Transfer = HERE
    bare_id: str = ""
