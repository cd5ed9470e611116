"""
The head of an HTTP/1.1 answer as bytes, in the order of vLLM's server.

Made in one format operation, because twisted.web's own way from headers to bytes costs more than the rest of an answer.
"""

from __future__ import annotations

from collections.abc import Iterable
from email.utils import formatdate
from http import HTTPStatus
from time import time
from typing import Any

from llmdsim.web.answer import Answer

SERVER = b"uvicorn"
# twisted.web's own table ends before 429.
PHRASES = {status.value: status.phrase.encode() for status in HTTPStatus}

Headers = Iterable[tuple[bytes, bytes]]


class _Stamp:
    """The lines that say when and who, made once a second: formatting a date costs as much as a whole head."""

    __slots__ = ("_lines", "_second")

    def __init__(self) -> None:
        self._second = 0
        self._lines = b""

    def lines(self) -> bytes:
        second = int(time())
        if second != self._second:
            self._second = second
            self._lines = b"date: %b\r\nserver: %b\r\n" % (formatdate(second, usegmt=True).encode(), SERVER)
        return self._lines


_stamp = _Stamp()


def whole(http: Any, answer: Answer) -> bytes:
    """An answer with its head; HEAD gets the head alone."""
    length = b"content-length: %d\r\n" % len(answer.body)
    lines = head(http, answer.status, length, answer.content_type, answer.headers)
    return lines if http.method == b"HEAD" else lines + answer.body


def head(http: Any, status: int, framing: bytes, content_type: bytes, headers: Headers) -> bytes:
    """The head of an answer to ``http``, its empty line included; ``framing`` is the line that says where it ends."""
    kind = b"content-type: %b\r\n" % content_type if content_type else b""
    close = b"" if http.channel.persistent else b"connection: close\r\n"
    return b"HTTP/1.1 %d %b\r\n%b%b%bvary: Origin\r\n%b%b%b\r\n" % (
        status,
        PHRASES.get(status, b""),
        _stamp.lines(),
        framing,
        kind,
        _lines(headers) if headers else b"",
        _lines(_set_by_guards(http)),
        close,
    )


def _lines(headers: Headers) -> bytes:
    # A value may come from a client: without line ends it cannot become a header of its own.
    return b"".join([b"%b: %b\r\n" % (name, b" ".join(value.splitlines())) for name, value in headers])


def _set_by_guards(http: Any) -> Headers:
    """What ``setHeader`` was called with, less what twisted.web sets on every request unasked."""
    unasked = (b"Server", b"Date", b"Connection")
    return [(name, values[-1]) for name, values in http.responseHeaders.getAllRawHeaders() if name not in unasked]
