"""
The two manners of methods that there are here: one question, or an answer to each.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Generic

from google.protobuf.message import Message

from llmdsim.grpc.call import Call
from llmdsim.grpc.messages import Kind, Listener, framed, parsed
from llmdsim.grpc.status import INTERNAL, OK, RESOURCE_EXHAUSTED, Refusal, Status

Method = Callable[[Call], Listener]
Answer = Callable[[Call, Kind], Coroutine[Any, Any, None]]  # sends, and finishes the call


def one(kind: type[Kind], answer: Answer[Kind]) -> Method:
    """A method with one question."""
    return lambda call: _One(call, kind, answer)


def each(kind: type[Kind], answer: Callable[[Kind], Message]) -> Method:
    """A method that answers each question with one message."""
    return lambda call: _Each(call, kind, answer)


def reply(call: Call, message: Message) -> None:
    """Answer with one message, and end well."""
    call.send(framed(message))
    call.finish(Status(OK))


class _One(Generic[Kind]):
    def __init__(self, call: Call, kind: type[Kind], answer: Answer[Kind]) -> None:
        self._call, self._kind, self._answer = call, kind, answer
        self._data: bytes | None = None

    def message(self, data: bytes) -> None:
        if self._data is not None:
            raise Refusal(INTERNAL, "There is more than one request message")
        self._data = data

    def ended(self) -> None:
        if self._data is None:
            raise Refusal(INTERNAL, "There is no request message")
        self._call.run(self._answer(self._call, parsed(self._kind, self._data)))


class _Each(Generic[Kind]):
    def __init__(self, call: Call, kind: type[Kind], answer: Callable[[Kind], Message]) -> None:
        self._call, self._kind, self._answer = call, kind, answer

    def message(self, data: bytes) -> None:
        if self._call.blocked:  # a client that asks on and on has to listen too
            raise Refusal(RESOURCE_EXHAUSTED, "The answers are not read")
        self._call.send(framed(self._answer(parsed(self._kind, data))))

    def ended(self) -> None:
        self._call.finish(Status(OK))
