"""
What a rank's sequences have of the KV cache: prepared with the plan, taken with the seat, given back at the end.

Without a cache every sequence fits and nothing is cached.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llmdsim.config import Config
from llmdsim.sim.cache import Cache, Event
from llmdsim.sim.hashing import Extras, Hasher
from llmdsim.sim.lora import Adapters
from llmdsim.sim.media import media, spans
from llmdsim.sim.metrics import Meters
from llmdsim.sim.plan import Plan
from llmdsim.sim.request import Conversation, Prompt
from llmdsim.sim.transfer import Connector


class Memory:
    """The KV memory of one rank; ``note`` hears of every change of the cache, ``wall`` tells Unix time in seconds."""

    def __init__(
        self,
        config: Config,
        adapters: Adapters,
        meters: Meters,
        note: Callable[[Event], None],
        wall: Callable[[], float],
    ) -> None:
        self._adapters, self._meters = adapters, meters
        self._cache = _cache(config, note) if has_cache(config) else None
        self._connector = Connector(config, wall, 0 if self._cache is None else config.kv_cache_size)

    def prepare(self, plan: Plan) -> None:
        """Name a plan's blocks. Raises Fault(BAD_REQUEST) where they can never fit."""
        if self._cache is None:
            return
        request = plan.request
        lookup = request.prompt_logprobs is None  # vLLM computes such a prompt whole
        extras = Extras(self._adapter(request.model.adapter), request.cache_salt, self._media(plan))
        number = self._adapters.number(request.model.adapter)
        plan.ticket = self._cache.prepare(plan.prompt.ids, len(plan.ids), extras, number, lookup)

    def reserve(self, plan: Plan) -> bool:
        """Take a plan's blocks, if they are to be had; then ``plan.cached_tokens`` is known."""
        cache, ticket = self._cache, plan.ticket
        if cache is not None and ticket is not None:
            if not cache.fits(ticket):
                return False
            plan.cached_tokens = cache.start(ticket)
            plan.boundary = 1
            self._meters.prefix_lookup(plan.prompt_tokens, plan.cached_tokens)
        self._fetch(plan)
        return True

    def offer(self, plan: Plan, wait: float) -> None:
        """Tell who asked for it where the blocks of a prompt lie, which is computed in ``wait`` seconds."""
        request = plan.request
        plan.kv_transfer_params = self._connector.answer(request.transfer, request.id, plan.prompt_tokens, wait)

    def grow(self, plan: Plan, spoken: int) -> None:
        """Store the blocks that so many spoken tokens have filled; sets when to come again."""
        if self._cache is not None and plan.ticket is not None:
            plan.boundary = self._cache.grow(plan.ticket, plan.ids, spoken)

    def release(self, plan: Plan) -> None:
        """Give a plan's blocks back, whether or not it took them."""
        if self._cache is not None and plan.ticket is not None:
            self._cache.end(plan.ticket)

    def usage(self) -> float:
        """The share of blocks in use, 0 to 1."""
        return 0.0 if self._cache is None else self._cache.usage()

    def reset(self) -> bool:
        """Forget what is cached; False where sequences use blocks, and then nothing is forgotten."""
        return self._cache is None or self._cache.reset()

    def sleep(self) -> None:
        """Discard everything and cache nothing until ``wake``."""
        if self._cache is not None:
            self._cache.sleep()

    def wake(self) -> None:
        """Cache again, from nothing."""
        if self._cache is not None:
            self._cache.wake()

    def _fetch(self, plan: Plan) -> None:
        """Have the blocks that another instance computed, beyond those that are cached here."""
        transfer, local = plan.request.transfer, plan.cached_tokens
        if self._connector.asked(transfer):
            plan.external_tokens = self._connector.external(transfer, plan.prompt_tokens, local)
            plan.cached_tokens += plan.external_tokens
            self._meters.external_lookup(plan.prompt_tokens - local, plan.external_tokens)

    def _adapter(self, name: str | None) -> tuple[str, str] | None:
        adapter = None if name is None else self._adapters.known.get(name)
        return None if adapter is None else (adapter.name, adapter.path)

    def _media(self, plan: Plan) -> Any:
        prompt = _prompt(plan)
        return spans(media(prompt.messages), plan.prompt_tokens) if isinstance(prompt, Conversation) else ()


def unheard(event: Event) -> None:
    """For a cache that nobody listens to."""


def has_cache(config: Config) -> bool:
    """Whether a configuration simulates the KV cache."""
    events = config.kv_events_config or {}
    return (config.enable_kvcache or bool(events.get("enable_kv_cache_events"))) and not config.mm_encoder_only


def _cache(config: Config, note: Callable[[Event], None]) -> Cache:
    return Cache(
        blocks=config.kv_cache_size,
        block_size=config.block_size,
        hasher=Hasher(config.prefix_caching_hash_algo, config.hash_seed),
        note=note,
        prefix_caching=config.enable_prefix_caching,
    )


def _prompt(plan: Plan) -> Prompt:
    return plan.request.prompts[plan.index // plan.request.n]
