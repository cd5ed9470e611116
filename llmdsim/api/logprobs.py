"""
Log-probabilities, made up: a simulated model has no distribution, but clients read and check the forms.

A position's value falls with its place modulo three, and by one half for each alternative.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

from llmdsim.sim.plan import Plan
from llmdsim.sim.request import Tokens


def value(position: int, alternative: int = 0) -> float:
    """The log-probability of an alternative (0: the token itself) at a position of the answer."""
    return round(-1.0 - 0.1 * (position % 3) - 0.5 * alternative, 4)


def alternative(token: str, number: int) -> str:
    """The text of another token than the one that was chosen."""
    return f"{token}_{number}"


class Logprobs:
    """The log-probabilities of one request: how many alternatives, and tokens as texts or as ids."""

    def __init__(self, count: int, as_ids: bool) -> None:
        self._count, self._as_ids = count, as_ids
        self._begins: dict[int, list[int]] = {}

    def chat(self, plan: Plan, start: int, stop: int) -> dict[str, Any]:
        """Tokens ``start`` to ``stop`` as chat shows them."""
        return {"content": [self._chat_entry(plan, i) for i in range(start, stop)]}

    def text(self, plan: Plan, start: int, stop: int, offset: int = 0) -> dict[str, Any]:
        """Tokens ``start`` to ``stop`` as completions show them; ``offset``: characters shown before the answer."""
        tokens = [self._name(plan, i) for i in range(start, stop)]
        return {
            "text_offset": [offset + at for at in self._begin(plan)[start:stop]],
            "token_logprobs": [value(i) for i in range(start, stop)],
            "tokens": tokens,
            "top_logprobs": [self._ranked(name, start + i, self._count) for i, name in enumerate(tokens)],
        }

    def echoed(self, prompt: Tokens) -> dict[str, Any]:
        """
        The prompt's tokens as completions show them before the answer; the first has no probability.

        A prompt's token is shown besides the likeliest ones, a generated token as one of them.
        """
        tokens = [f"token_id:{id}" for id in prompt.ids] if self._as_ids else list(prompt.texts)
        rest = range(1, len(tokens))
        return {
            "text_offset": _offsets(prompt.texts),
            "token_logprobs": [None, *(value(i) for i in rest)],
            "tokens": tokens,
            "top_logprobs": [None, *(self._ranked(tokens[i], i, self._count + 1) for i in rest)],
        }

    def _chat_entry(self, plan: Plan, i: int) -> dict[str, Any]:
        text, name = plan.tokens[i], self._name(plan, i)
        names = [name, *(alternative(text, j) for j in range(1, self._count))][: self._count]
        top = [_entry(each, each, i, j) for j, each in enumerate(names)]
        return {**_entry(name, text, i, 0), "top_logprobs": top}

    def _name(self, plan: Plan, i: int) -> str:
        return f"token_id:{plan.ids[i]}" if self._as_ids else plan.tokens[i]

    def _ranked(self, name: str, position: int, count: int) -> dict[str, float]:
        names = [name, *(alternative(name, j) for j in range(1, count))]
        return {each: value(position, j) for j, each in enumerate(names)}

    def _begin(self, plan: Plan) -> list[int]:
        begins = self._begins.get(plan.index)
        if begins is None:
            begins = self._begins[plan.index] = _offsets(plan.tokens)
        return begins


def _offsets(texts: Sequence[str]) -> list[int]:
    return list(accumulate(map(len, texts), initial=0))[:-1]


def _entry(name: str, text: str, position: int, number: int) -> dict[str, Any]:
    return {"token": name, "logprob": value(position, number), "bytes": list(text.encode("utf-8", "replace"))}


def prompt_logprobs(prompt: Tokens, count: int) -> list[dict[str, Any] | None]:
    """``prompt_logprobs``: for each token but the first, itself and then ``count`` alternatives, by id."""
    return [None, *(_ranks(prompt.ids[i], prompt.texts[i], i, count) for i in range(1, len(prompt.ids)))]


def _ranks(id: int, text: str, position: int, count: int) -> dict[str, Any]:
    choices: Sequence[tuple[int, str]] = [(id, text), *((id + j, alternative(text, j)) for j in range(1, count + 1))]
    return {
        str(id): {"logprob": value(position, j), "rank": max(j, 1), "decoded_token": text}
        for j, (id, text) in enumerate(choices)
    }
