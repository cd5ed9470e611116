"""
What will be said: a Request becomes one Plan for each sequence, before anything is promised to the client.

Also the Protocols that the simulation is handed: Tokenizer, Source, Offload and Sink.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any, Protocol, TypeVar

import attrs
from twisted.internet.defer import Deferred

from llmdsim.config import Config
from llmdsim.faults import BAD_REQUEST, Fault, bad_value
from llmdsim.sim.author import Author, Draft, Source
from llmdsim.sim.cache import Ticket
from llmdsim.sim.request import Conversation, Prompt, Request, Tokens
from llmdsim.sim.stopping import cut

T = TypeVar("T")
NEVER = 1 << 62  # tokens
RENDERED = {"self", "messages", "tools", "generation_prompt"}  # what a template is given besides its own arguments
Offload = Callable[..., "Deferred[Any]"]  # runs a function in a thread: offload(function, *arguments)


class Tokenizer(Protocol):
    """Text to tokens and back; ``inline`` is the longest text, in characters, that is encoded on the spot."""

    eos: tuple[int, str]
    vocab_size: int | None
    longest: int
    inline: int

    def encode(self, text: str, special: bool = True) -> Tokens: ...
    def decode(self, ids: Sequence[int]) -> str: ...
    def strings(self, ids: Sequence[int]) -> list[str]: ...
    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] = (),
        generation_prompt: bool = True,
        **template_kwargs: Any,
    ) -> str: ...


@attrs.define(slots=True, eq=False)
class Plan:
    """
    One sequence: ``texts[i]`` is what token ``ids[i]`` adds to the answer; they join to its whole text.

    A text is empty where a token shows nothing (the end token, text held back for a stop string).
    ``finish`` is vLLM's finish reason, ``stop_reason`` the stop string or token id that ended it.
    ``limit`` is the most tokens that could have been generated. ``tokens`` are the texts of the tokens themselves,
    where the request wants log-probabilities.
    ``ticket`` is its share of the KV cache, and ``boundary`` the number of tokens at which the next block is full.
    ``prompt_text`` is the prompt as it was tokenized, empty for one of ids.
    ``cached_tokens`` includes ``external_tokens``, which another instance computed; ``kv_transfer_params`` tell such
    an instance of this one's blocks.
    The times are clock seconds, set as they pass.
    """

    request: Request
    index: int
    prompt: Tokens
    texts: Sequence[str]
    ids: Sequence[int]
    finish: str
    stop_reason: str | int | None = None
    tokens: Sequence[str] = ()
    limit: int = 0
    prompt_text: str = ""
    cached_tokens: int = 0
    external_tokens: int = 0
    kv_transfer_params: Mapping[str, Any] | None = None
    ticket: Ticket | None = None
    boundary: int = NEVER
    arrival: float = 0.0
    scheduled: float = 0.0
    first: float = 0.0
    last: float = 0.0

    @property
    def prompt_tokens(self) -> int:
        """Tokens of the prompt that this sequence answers."""
        return len(self.prompt.ids)


def abort(plan: Plan, spoken: int) -> None:
    """Cut a plan to the tokens that were spoken; what follows them is an end without a token."""
    plan.texts = [*plan.texts[:spoken], ""]
    plan.ids = plan.ids[:spoken]
    plan.finish, plan.stop_reason, plan.kv_transfer_params = "abort", None, None


class Sink(Protocol):
    """A door's ear. ``tokens`` gets a slice: late tokens share one write. No call may wait."""

    def begin(self, plan: Plan) -> None: ...
    def tokens(self, plan: Plan, start: int, stop: int) -> None: ...
    def end(self, plan: Plan) -> None: ...


class Planner:
    """Turns requests into plans, or refuses them: context window, limits."""

    def __init__(
        self,
        config: Config,
        tokenizer: Tokenizer,
        source: Source,
        offload: Offload,
        rng: Random,
        source_failed: Callable[[int], object],
    ) -> None:
        self._max_model_len = config.max_model_len
        self._tokenizer = tokenizer
        self._author = Author(config, tokenizer, source, source_failed)
        self._offload = offload
        self._rng = rng

    async def plan(self, request: Request) -> list[Plan]:
        """One Plan for each choice, in order of index. Raises Fault(BAD_REQUEST) with vLLM's texts."""
        plans: list[Plan] = []
        for prompt in request.prompts:
            text = "" if isinstance(prompt, tuple) else self.text(prompt)
            tokens = await self._encode(prompt, text, request.truncate)
            if request.prompt_logprobs is not None or request.echo:
                tokens = self._spelled(tokens)
            limit = self._limit(request, len(tokens.ids))
            first = len(plans)
            plans += [await self._answer(request, prompt, text, tokens, limit, first + i) for i in range(request.n)]
        return plans

    async def read(self, prompt: Prompt) -> Tokens:
        """The tokens of a prompt that fits the context window. Raises Fault(BAD_REQUEST)."""
        return await self._encode(prompt, "" if isinstance(prompt, tuple) else self.text(prompt))

    async def tokenize(self, text: str, special: bool = True) -> Tokens:
        """Encode a text, in a thread where it is long."""
        if len(text) <= self._tokenizer.inline:
            return self._tokenizer.encode(text, special)
        tokens: Tokens = await self._offload(self._tokenizer.encode, text, special)
        return tokens

    def text(self, prompt: str | Conversation) -> str:
        """A prompt as the text that is tokenized."""
        if isinstance(prompt, str):
            return prompt
        template = {name: value for name, value in prompt.template.items() if name not in RENDERED}
        return self._tokenizer.render(prompt.messages, prompt.tools, prompt.generation_prompt, **template)

    async def _encode(self, prompt: Prompt, text: str, truncate: int | None = None) -> Tokens:
        if isinstance(prompt, tuple):
            return self._from_ids(prompt if truncate is None else self._end(prompt, truncate))
        if truncate is None:
            self._check_characters(text)
        tokens = await self.tokenize(text, isinstance(prompt, str))
        if truncate is not None:
            tokens = Tokens(self._end(tokens.ids, truncate), self._end(tokens.texts, truncate))
        if len(tokens.ids) > self._max_model_len:
            raise self._too_long("at least ", self._max_model_len + 1)  # vLLM stops tokenizing one beyond the limit
        return tokens

    def _end(self, values: Sequence[T], count: int) -> Any:
        """The last so many; -1: as many as leave room for one more in the window."""
        keep = self._max_model_len - 1 if count < 0 else count
        return values[max(len(values) - keep, 0) :]

    def _spelled(self, tokens: Tokens) -> Tokens:
        """Tokens with their texts, which a prompt of ids comes without."""
        return tokens if tokens.texts else Tokens(tokens.ids, [self._tokenizer.decode([id]) for id in tokens.ids])

    def _from_ids(self, ids: tuple[int, ...]) -> Tokens:
        vocabulary = self._tokenizer.vocab_size
        if vocabulary is not None and ids and max(ids) >= vocabulary:
            raise Fault(BAD_REQUEST, f"Token id {max(ids)} is out of vocabulary")
        if len(ids) > self._max_model_len:
            raise self._too_long("", len(ids))
        return Tokens(ids, ())

    def _check_characters(self, text: str) -> None:
        most = self._max_model_len * self._tokenizer.longest
        if len(text) > most:
            raise bad_value(
                f"This model's maximum context length is {self._max_model_len} tokens. However, your prompt contains "
                f"{len(text)} characters (more than {most} characters, which is the upper bound for "
                f"{self._max_model_len} input tokens). Please reduce the length of the input prompt.",
                "input_text",
                len(text),
            )

    def _too_long(self, at_least: str, count: int) -> Fault:
        return bad_value(
            f"This model's maximum context length is {self._max_model_len} tokens. However, your prompt contains "
            f"{at_least}{count} input tokens, which exceeds this limit even without any output tokens. "
            "Please reduce the length of the input prompt.",
            "input_tokens",
            count,
        )

    def _limit(self, request: Request, prompt_tokens: int) -> int:
        """The most tokens that may be generated; more than fits beside the prompt is cut, as in vLLM."""
        room, asked, name = self._max_model_len - prompt_tokens, request.max_tokens, request.limit_name
        if asked is not None and asked > self._max_model_len:
            raise bad_value(
                f"{name}={asked} cannot be greater than max_model_len={self._max_model_len}. "
                "Please request fewer output tokens.",
                name,
                asked,
            )
        limit = room if asked is None else min(asked, room)
        if limit < 1:
            raise bad_value(f"max_tokens must be at least 1, got {limit}.", "max_tokens", limit)
        if request.stops.min_tokens > limit:
            raise Fault(
                BAD_REQUEST,
                f"min_tokens must be less than or equal to max_tokens={limit}, got {request.stops.min_tokens}.",
            )
        return limit

    async def _answer(
        self, request: Request, prompt: Prompt, text: str, tokens: Tokens, limit: int, index: int
    ) -> Plan:
        rng = self._rng if request.seed is None else Random(f"{request.seed}:{index}")
        draft = await self._author.draft(request, prompt, text, tokens, limit, rng)
        spoken = cut(draft.tokens, draft.complete, self._tokenizer.eos, request.stops)
        return Plan(request, index, tokens, *spoken, self._own_texts(request, draft), limit, text)

    def _own_texts(self, request: Request, draft: Draft) -> Sequence[str]:
        return () if request.logprobs is None else [*draft.tokens.texts, self._tokenizer.eos[1]]
