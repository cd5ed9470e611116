"""
When an answer comes: time to first token and the gaps between tokens.

Seconds throughout, never cut to milliseconds. The formulas are the older simulator's: constant, per-token, unset.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from llmdsim.config import Config

SPREAD = 0.7  # a sampled duration stays within this share of its mean


class Sampler:
    """Normal draws around a mean, clamped to 0.3 to 1.7 of it; without a deviation, the mean itself."""

    def __init__(self, rng: Random, distribution: str = "") -> None:
        self._rng = rng
        self._clamped = not distribution

    def __call__(self, mean: float, deviation: float) -> float:
        """One duration in seconds, never negative."""
        if deviation <= 0:
            return mean
        value = self._rng.gauss(mean, deviation)
        if self._clamped:
            value = min(max(value, mean * (1 - SPREAD)), mean * (1 + SPREAD))
        return max(value, 0.0)


class Latency:
    """The latency calculator of one configuration; ``running`` tells how many sequences run now."""

    def __init__(self, config: Config, rng: Random, running: Callable[[], int]) -> None:
        self._config = config
        self._draw = Sampler(rng, config.latency_distribution)
        self._running = running
        self._extra_load = config.time_factor_under_load - 1.0
        self.gap: Callable[[], float] = self._choose_gap()

    def load(self) -> float:
        """The load factor: 1 with one running sequence, ``time-factor-under-load`` with every seat taken."""
        others = self._config.max_num_seqs - 1
        if others < 1:
            return 1.0
        return 1.0 + self._extra_load * (max(self._running(), 1) - 1) / others

    def ttft(self, prompt_tokens: int, cached_tokens: int = 0, remote: bool = False) -> float:
        """Seconds from the seat to the first token; ``remote``: the prefill is fetched from another instance."""
        if remote:
            return self._transfer(prompt_tokens)
        return self._prefill(prompt_tokens - cached_tokens)

    def image(self) -> float:
        """Seconds that an omni model takes for one image."""
        config = self._config
        return self._draw(config.time_to_generate_image, config.time_to_generate_image_std_dev)

    def _prefill(self, tokens: int) -> float:
        config, load = self._config, self.load()
        if self._constant(config.time_to_first_token, config.time_to_first_token_std_dev):
            return self._draw(config.time_to_first_token * load, config.time_to_first_token_std_dev)
        mean = (config.prefill_overhead + tokens * config.prefill_time_per_token) * load
        return self._draw(mean, config.prefill_time_std_dev)

    def _transfer(self, tokens: int) -> float:
        config = self._config
        if self._constant(config.kv_cache_transfer_latency, config.kv_cache_transfer_latency_std_dev):
            return self._draw(config.kv_cache_transfer_latency, config.kv_cache_transfer_latency_std_dev)
        return self._draw(tokens * config.kv_cache_transfer_time_per_token, config.kv_cache_transfer_time_std_dev)

    def _constant(self, mean: float, deviation: float) -> bool:
        calculator = self._config.latency_calculator
        return calculator == "constant" or (not calculator and (mean > 0 or deviation > 0))

    def _choose_gap(self) -> Callable[[], float]:
        """The cheapest function that is true for this configuration: it is called once a token."""
        mean, deviation = self._config.inter_token_latency, self._config.inter_token_latency_std_dev
        if self._extra_load == 0 and deviation <= 0:
            return lambda: mean
        return lambda: self._draw(mean * self.load(), deviation)
