"""
What a dialect is: one API's way of asking and answering, as pure functions.

A door calls check, then finds the model, then parse; and gives the writer's bytes to the client.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from llmdsim.faults import Fault
from llmdsim.sim.plan import Plan
from llmdsim.sim.request import Model, Request


class Writer(Protocol):
    """How one request is answered. ``opening`` precedes the first token of all; ``closing`` follows the last of all."""

    def opening(self, plan: Plan) -> bytes: ...
    def chunks(self, plan: Plan, start: int, stop: int) -> bytes: ...
    def closing(self, plans: Sequence[Plan]) -> bytes: ...
    def fault(self, fault: Fault) -> bytes: ...
    def whole(self, plans: Sequence[Plan]) -> bytes: ...


class Dialect(Protocol):
    """One API. ``prefix`` begins the ids of its answers."""

    prefix: str

    def check(self, body: object) -> dict[str, Any]: ...
    def parse(self, body: dict[str, Any], id: str, model: Model) -> Request: ...
    def writer(self, request: Request, created: int) -> Writer: ...
    def refusal(self, fault: Fault) -> dict[str, Any]: ...


def error(fault: Fault) -> dict[str, Any]:
    """vLLM's error envelope."""
    kind = fault.kind
    return {"error": {"message": fault.message, "type": kind.type, "param": fault.param, "code": kind.status}}
