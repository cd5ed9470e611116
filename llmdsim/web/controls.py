"""
What a tester asks of a running simulator, as the older one has it: its configuration, fake metrics, errors on demand.

Which settings may change, and into what, is decided by the configuration; a strict server has none of these routes.
"""

from __future__ import annotations

import json
import re
from typing import Any

from twisted.web.iweb import IRequest

from llmdsim.api.parts import dumps
from llmdsim.config import ConfigError, dump
from llmdsim.faults import (
    BAD_REQUEST,
    FORBIDDEN,
    INTERNAL,
    NOT_FOUND,
    RATE_LIMITED,
    UNAUTHORIZED,
    Fault,
    Kind,
)
from llmdsim.sim.rank import Rank
from llmdsim.web.answer import Answer
from llmdsim.web.app import App
from llmdsim.web.guards import Refused
from llmdsim.web.wire import header

UNPROCESSABLE = Kind(422, "UnprocessableEntityError")
TYPES = {
    kind.status: kind.type for kind in (BAD_REQUEST, UNAUTHORIZED, FORBIDDEN, NOT_FOUND, UNPROCESSABLE, RATE_LIMITED)
}
_INTEGER = re.compile(r"[+-]?[0-9]{1,9}")


def routes(app: App, rank: Rank) -> None:
    """Declare the routes."""
    if rank.config.strict:
        return

    @app.route("/admin/config")
    def show(http: IRequest) -> Answer:
        return _document(rank)

    @app.route("/admin/config", methods=["POST"])
    def amend(http: IRequest) -> Answer:
        try:
            _change(rank, _members(http))
        except ConfigError as error:
            raise Fault(BAD_REQUEST, str(error)) from None
        return _document(rank)

    @app.route("/fake_metrics", methods=["POST"])  # deprecated: a member of /admin/config now
    def fake_metrics(http: IRequest) -> Answer:
        try:
            _change(rank, {"fake-metrics": _members(http)})
        except ConfigError as error:
            raise Fault(INTERNAL, f"Failed to update fake metrics: {error}") from None
        return Answer(status=204, content_type=b"")


def fail_on_demand(http: IRequest) -> None:
    """Raises the Fault that an ``X-Return-Error`` header asks for; Refused where its status allows no body."""
    asked = header(http, b"x-return-error")
    if not asked:
        return
    status = int(asked) if _INTEGER.fullmatch(asked) else 0
    if not 100 <= status <= 599:
        raise Fault(BAD_REQUEST, f'Invalid X-Return-Error header value "{asked}": must be an integer')
    if status < 200 or status in (204, 304):
        raise Refused(Answer(status=status, content_type=b""))
    other = INTERNAL.type if status >= 500 else "APIConnectionError"
    kind = Kind(status, TYPES.get(status, other))
    raise Fault(kind, f"Simulated error triggered by X-Return-Error header (code {status})")


def _document(rank: Rank) -> Answer:
    return Answer(dumps(dump(rank.config)))


def _change(rank: Rank, members: dict[str, Any]) -> None:
    """Change all of it or nothing."""
    rank.reconfigure(rank.config.amend(members))


def _members(http: IRequest) -> dict[str, Any]:
    """The JSON object of a body of any media type."""
    try:
        members = json.loads(http.content.read())
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"failed to unmarshal payload: {error}") from None
    if not isinstance(members, dict):
        raise ConfigError("failed to unmarshal payload: expected a JSON object")
    return members
