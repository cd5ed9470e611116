"""
What a handler gives back when it does not stream: one whole answer.

A Fault becomes an Answer here, in vLLM's envelope; how it is written on a connection is the wire's.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import attrs

from llmdsim.api.dialect import error
from llmdsim.faults import Fault


@attrs.frozen(slots=True)
class Answer:
    """
    A whole answer; its length and the headers that every answer has are added where it is written.

    An empty ``content_type`` sends none.
    """

    body: bytes = b""
    status: int = 200
    content_type: bytes = b"application/json"
    headers: tuple[tuple[bytes, bytes], ...] = ()


def compact(value: Any) -> bytes:
    """JSON as vLLM's server writes it: no blanks, and text left as it is."""
    # A lone surrogate from a client's own text has no UTF-8 form: it is shown as "?" instead of failing the answer.
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "replace")


def fault_answer(fault: Fault, envelope: Callable[[Fault], dict[str, Any]] = error) -> Answer:
    """A fault as an answer, in the envelope of the OpenAI APIs unless another is given."""
    headers = tuple((name.encode("latin-1"), value.encode("latin-1", "replace")) for name, value in fault.headers)
    return Answer(compact(envelope(fault)), fault.kind.status, headers=headers)
