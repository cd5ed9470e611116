"""
How a call ends: gRPC's status codes, what a Fault becomes of them, and how they and deadlines look in headers.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from llmdsim.faults import Fault

OK = 0
CANCELLED = 1
UNKNOWN = 2
INVALID_ARGUMENT = 3
DEADLINE_EXCEEDED = 4
NOT_FOUND = 5
PERMISSION_DENIED = 7
RESOURCE_EXHAUSTED = 8
ABORTED = 10
UNIMPLEMENTED = 12
INTERNAL = 13
UNAVAILABLE = 14
UNAUTHENTICATED = 16

_CODES = {
    400: INVALID_ARGUMENT,
    401: UNAUTHENTICATED,
    403: PERMISSION_DENIED,
    404: NOT_FOUND,
    409: ABORTED,
    429: RESOURCE_EXHAUSTED,
    500: INTERNAL,
    501: UNIMPLEMENTED,
    503: UNAVAILABLE,
    504: DEADLINE_EXCEEDED,
}
_TIMEOUT = re.compile(rb"([0-9]{1,8})([HMSmun])")
_SECONDS = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_HIDDEN = re.compile(rb"[^ -$&-~]")  # what is not printable, and the percent sign


class Status(NamedTuple):
    """A code and what is said of it."""

    code: int
    message: str = ""


class Refusal(Exception):
    """A call that breaks gRPC's own rules; what is wrong with its question is a Fault."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(code, message)
        self.status = Status(code, message)


def status_of(fault: Fault) -> Status:
    """The status of a fault: the code by its HTTP status, the message unchanged."""
    return Status(_CODES.get(fault.kind.status, UNKNOWN), fault.message)


def trailers(status: Status) -> list[tuple[bytes, bytes]]:
    """The headers that end a call; what a message may not hold there is percent-encoded."""
    code = (b"grpc-status", b"%d" % status.code)
    if not status.message:
        return [code]
    text = status.message.encode("utf-8", "replace")
    return [code, (b"grpc-message", _HIDDEN.sub(lambda found: b"%%%02X" % found[0][0], text))]


def seconds(timeout: bytes) -> float:
    """What ``grpc-timeout`` says. Raises Refusal."""
    found = _TIMEOUT.fullmatch(timeout)
    if found is None:
        raise Refusal(INTERNAL, f"malformed grpc-timeout: {timeout.decode('latin-1')}")
    return int(found[1]) * _SECONDS[found[2]]
