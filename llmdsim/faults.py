"""
What can go wrong with a request, as one exception.

A Fault says what a client did or met; the door and the dialects say how it looks on the wire.
"""

from __future__ import annotations

from typing import NamedTuple


class Kind(NamedTuple):
    """A class of failure: its HTTP status and vLLM's name for it (``error.type``)."""

    status: int
    type: str


BAD_REQUEST = Kind(400, "BadRequestError")
INVALID_BODY = Kind(400, "Bad Request")
INVALID_INPUT = Kind(400, "InvalidUserInput")
UNAUTHORIZED = Kind(401, "AuthenticationError")
FORBIDDEN = Kind(403, "PermissionDeniedError")
NOT_FOUND = Kind(404, "NotFoundError")
TOO_LARGE = Kind(413, "BadRequestError")
RATE_LIMITED = Kind(429, "RateLimitError")
INTERNAL = Kind(500, "InternalServerError")
UNAVAILABLE = Kind(503, "ServiceUnavailableError")
BUSY = Kind(503, "Service Unavailable")


class Fault(Exception):
    """
    A request that cannot be served.

    ``param`` names the offending field, where there is one; ``headers`` are sent with the answer.
    Raise a fresh one each time; catch it at the door only.
    """

    def __init__(
        self, kind: Kind, message: str, param: str | None = None, headers: tuple[tuple[str, str], ...] = ()
    ) -> None:
        super().__init__(kind, message, param)
        self.kind = kind
        self.message = message
        self.param = param
        self.headers = headers


def bad_value(message: str, name: str, value: object = None) -> Fault:
    """vLLM's refusal of one parameter: it names the parameter, and its value where that is known."""
    known = "" if value is None else f", value={value}"
    return Fault(BAD_REQUEST, f"{message} (parameter={name}{known})", name)
