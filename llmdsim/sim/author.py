"""
What the simulated model writes: raw text, with the markup that parsers take out again.

An answer is dictated by the prompt, or has a form (tool calls, structured output), or comes from the source.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from random import Random
from typing import Any, Protocol

import attrs
from twisted.internet.defer import Deferred

from llmdsim.config import Config
from llmdsim.faults import BAD_REQUEST, Fault
from llmdsim.sim.request import Constraint, Prompt, Request, Tokens
from llmdsim.sim.tools import Call, draw_calls

SHORTEST_THOUGHT = 8  # tokens: whoever allows fewer sees reasoning alone
DICTATED = re.compile(r".*SAY<<(.*)>>", re.DOTALL)  # the last one: a conversation holds those of earlier turns


@attrs.frozen(slots=True)
class Draft:
    """Tokens of an answer; ``complete`` says that it ends by itself rather than at the limit."""

    tokens: Tokens
    complete: bool


class Source(Protocol):
    """
    Where plain answers come from; ``limit`` is the most tokens, ``request.max_tokens`` what the client set.

    ``filler``: the text means nothing, so that a part of it may serve as reasoning; ``compose`` writes so many
    tokens of such text. A source that has to wait gives a Deferred. It raises Fault where it cannot answer.
    """

    filler: bool

    def draft(
        self, request: Request, prompt: Prompt, tokens: Tokens, limit: int, rng: Random
    ) -> Draft | Deferred[Draft]: ...
    def compose(self, length: int, rng: Random) -> Tokens: ...


class Encoder(Protocol):
    """The half of a tokenizer that writing needs."""

    def encode(self, text: str, special: bool = True) -> Tokens: ...


class Author:
    """Writes drafts for one rank; ``failed`` counts those that the source could not give."""

    def __init__(self, config: Config, encoder: Encoder, source: Source, failed: Callable[[int], object]) -> None:
        self._config = config
        self._encoder = encoder
        self._source = source
        self._failed = failed

    async def draft(
        self, request: Request, prompt: Prompt, text: str, tokens: Tokens, limit: int, rng: Random
    ) -> Draft:
        """The raw answer to one prompt: at most ``limit`` tokens. ``text`` is the prompt as it was tokenized."""
        dictated = DICTATED.match(text) if "SAY<<" in text else None
        if dictated is not None:
            return self._fit(self._encoder.encode(dictated[1], False), limit)
        formed = self._formed(request, rng)
        if formed is not None:
            draft = self._fit(self._encoder.encode(formed, False), limit)
        else:
            draft = await self._sourced(request, prompt, tokens, limit, rng)
        if not request.form.thinking:
            return draft
        thought, said = self._thought(draft.tokens, formed is None and self._source.filler, rng)
        return self._fit(self._joined(thought, said), limit, draft.complete)

    async def _sourced(self, request: Request, prompt: Prompt, tokens: Tokens, limit: int, rng: Random) -> Draft:
        try:
            draft = self._source.draft(request, prompt, tokens, limit, rng)
            return await draft if isinstance(draft, Deferred) else draft
        except Fault:
            self._failed(1)
            raise

    def _formed(self, request: Request, rng: Random) -> str | None:
        form = request.form
        calls = draw_calls(form.tools, form.choice, form.named, form.parallel, rng, self._config)
        if calls:
            return "\n".join(map(_markup, calls))
        return None if form.constraint is None else self._constrained(form.constraint, rng)

    def _constrained(self, constraint: Constraint, rng: Random) -> str | None:
        kind, value = constraint.kind, constraint.value
        if kind == "choice":
            return str(rng.choice(value))
        if kind == "regex":
            return self._matching(value, rng)
        if kind == "json":
            schema = json.loads(value) if isinstance(value, str) else value
            return self._json(schema, rng)
        if kind == "json_object":
            return self._json(_OBJECT, rng)
        return None  # grammars are not followed: plain text

    def _json(self, schema: Any, rng: Random) -> str:
        from llmdsim.sim.synthesis.values import Ranges, synthesize  # few need it, and it is slow to import

        return json.dumps(synthesize(schema, rng, Ranges.of(self._config)), ensure_ascii=False)

    def _matching(self, pattern: str, rng: Random) -> str:
        try:
            from llmdsim.sim.synthesis.regexes import matching

            return matching(pattern, rng)
        except ValueError as problem:
            raise Fault(BAD_REQUEST, f"Grammar error: {problem}") from None

    def _thought(self, said: Tokens, filler: bool, rng: Random) -> tuple[Tokens, Tokens]:
        """Reasoning and answer: of filler the configured share is reasoning, other answers come whole after as much."""
        share = self._config.reasoning_share
        length = int(len(said.ids) * share)
        thought = self._source.compose(max(length, SHORTEST_THOUGHT) if share else 0, rng)
        return thought, Tokens(said.ids[length:], said.texts[length:]) if filler else said

    def _joined(self, thought: Tokens, said: Tokens) -> Tokens:
        # Templates of thinking models open the reasoning in the prompt, so that the model only closes it.
        parts = (thought, self._encoder.encode("\n</think>\n\n", False), said)
        return Tokens([id for part in parts for id in part.ids], [text for part in parts for text in part.texts])

    def _fit(self, tokens: Tokens, limit: int, complete: bool = True) -> Draft:
        if len(tokens.ids) >= limit:
            return Draft(Tokens(tokens.ids[:limit], tokens.texts[:limit]), complete=False)
        return Draft(tokens, complete)


_OBJECT = {
    "type": "object",
    "properties": {"answer": {"type": "string"}, "count": {"type": "integer"}},
    "required": ["answer", "count"],
}


def _markup(call: Call) -> str:
    return f'<tool_call>\n{{"name": {json.dumps(call.name)}, "arguments": {call.arguments}}}\n</tool_call>'
