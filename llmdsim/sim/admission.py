"""
What a rank has accepted and not yet ended, and vLLM's limits on that: sequences, prompt tokens.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from llmdsim.config import Config
from llmdsim.faults import BUSY, Fault
from llmdsim.sim.metrics import Meters
from llmdsim.sim.plan import Plan

BUSY_TEXT = (
    "The engine is currently busy and cannot accept new requests. Please try again later or on a different instance."
)


class Admission:
    """The plans in flight of one rank."""

    def __init__(self, config: Config, meters: Meters) -> None:
        self._most_sequences, self._most_tokens = config.max_num_queued_reqs, config.max_num_queued_tokens
        self._meters = meters
        self._tokens = 0
        self._adapters: Counter[str] = Counter()

    def admit(self, plans: Sequence[Plan], sequences: int) -> None:
        """Raises Fault(BUSY) where these would be too many, beside so many sequences that run or wait."""
        if self._most_sequences is not None and sequences + len(plans) > self._most_sequences:
            self._refuse("max_num_queued_reqs")
        tokens = self._tokens + sum(plan.prompt_tokens for plan in plans)
        if self._most_tokens is not None and tokens > self._most_tokens:
            self._refuse("max_num_queued_tokens")

    def count(self, plan: Plan, change: int) -> None:
        """A plan is in flight (1), or is no longer (-1)."""
        self._tokens += change * plan.prompt_tokens
        adapter = plan.request.model.adapter
        if adapter is None:
            return
        self._adapters[adapter] += change
        if not self._adapters[adapter]:
            del self._adapters[adapter]
        names = tuple(self._adapters)
        self._meters.lora(names, names)  # vLLM lists an adapter under both labels while it has any request

    def _refuse(self, limit: str) -> None:
        self._meters.rejected(limit)
        raise Fault(BUSY, BUSY_TEXT)
