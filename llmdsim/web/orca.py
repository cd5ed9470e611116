"""
The load report that a client may ask for in a header: ORCA's ``endpoint-load-metrics``, as vLLM writes it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from llmdsim.sim.metrics import Load

NAME = b"endpoint-load-metrics"


def load_metrics(http: Any, load: Callable[[], Load]) -> tuple[tuple[bytes, bytes], ...]:
    """The header that ``endpoint-load-metrics-format: TEXT`` or ``JSON`` asks for; none where nobody asks."""
    asked = http.getHeader(b"endpoint-load-metrics-format")
    if asked is None:
        return ()
    now = load()
    report = {"num_requests_waiting": float(now.waiting), "kv_cache_usage_perc": float(now.kv_usage)}
    if asked.lower() == b"json":
        return ((NAME, b"JSON " + json.dumps({"named_metrics": report}).encode()),)
    if asked.lower() == b"text":
        words = ", ".join(f"named_metrics.{name}={value}" for name, value in report.items())
        return ((NAME, b"TEXT " + words.encode()),)
    return ()
