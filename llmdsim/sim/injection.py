"""
Failures on purpose: which requests fail, and how, by ``failure-injection-rate`` and ``failure-types``.

The texts are the older simulator's; how a Fault looks on the wire is the dialects' business.
"""

from __future__ import annotations

from random import Random
from typing import NamedTuple

from llmdsim.config import Config
from llmdsim.config.checks import FAILURES
from llmdsim.faults import BAD_REQUEST, INTERNAL, NOT_FOUND, RATE_LIMITED, UNAUTHORIZED, Fault, Kind

OVERLOADED = Kind(503, INTERNAL.type)
# What the text of the failure says, in the headers that clients read; they may try again soon.
LIMITS = (
    ("Retry-After", "1"),
    ("x-ratelimit-limit-requests", "3"),
    ("x-ratelimit-remaining-requests", "0"),
    ("x-ratelimit-reset-requests", "1s"),
)


class _Failure(NamedTuple):
    kind: Kind
    text: str  # {} is the model
    param: str | None = None
    headers: tuple[tuple[str, str], ...] = ()


_FAILURES = {
    "rate_limit": _Failure(
        RATE_LIMITED,
        "Rate limit reached for {} in organization org-xxx on requests per min (RPM): Limit 3, Used 3, Requested 1.",
        headers=LIMITS,
    ),
    "invalid_api_key": _Failure(UNAUTHORIZED, "Incorrect API key provided."),
    "context_length": _Failure(
        BAD_REQUEST,
        "This model's maximum context length is 4096 tokens. However, your messages resulted in 4500 tokens.",
        "messages",
    ),
    "server_error": _Failure(OVERLOADED, "The server is overloaded or not ready yet."),
    "invalid_request": _Failure(BAD_REQUEST, "Invalid request: missing required parameter 'model'.", "model"),
    "model_not_found": _Failure(NOT_FOUND, "The model '{}-nonexistent' does not exist", "model"),
}


class Injection:
    """The failures of one configuration; while the rate is 0, ``rng`` is left alone."""

    def __init__(self, config: Config, rng: Random) -> None:
        self._percent = config.failure_injection_rate
        self._types = config.failure_types or FAILURES
        self._model = config.model
        self._rng = rng

    def strike(self) -> None:
        """Raises Fault where the request at hand is to fail."""
        if self._percent and self._rng.randint(1, 100) <= self._percent:
            kind, text, param, headers = _FAILURES[self._rng.choice(self._types)]
            raise Fault(kind, text.format(self._model), param, headers)
