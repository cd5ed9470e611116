"""
The one question that every dialect parses into.

Values only: a Request knows neither its wire form nor when it is answered.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import attrs


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
    ``prompts`` holds at least one prompt; choice ``i`` answers prompt ``i // n``.
    """

    id: str
    model: Model
    prompts: tuple[Prompt, ...]
    n: int = 1
    max_tokens: int | None = None
    limit_name: str = "max_tokens"
    stops: Stops = Stops()
    ignore_eos: bool = False
    seed: int | None = None
    priority: int = 0
    stream: bool = False
    include_usage: bool = False
    continuous_usage: bool = False
    return_token_ids: bool = False
    echo: bool = False
    remote_prefill: bool = False
