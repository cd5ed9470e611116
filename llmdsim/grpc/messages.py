"""
gRPC's own framing: a byte that tells compression, four of length, and a message.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol, TypeVar

from google.protobuf.message import DecodeError, Message

from llmdsim.grpc.status import INTERNAL, RESOURCE_EXHAUSTED, UNIMPLEMENTED, Refusal

HEAD = 5  # bytes before a message
Kind = TypeVar("Kind", bound=Message)


class Listener(Protocol):
    """A method at one call: it hears whole messages, and then that there are no more. Both may raise Refusal."""

    def message(self, data: bytes) -> None: ...
    def ended(self) -> None: ...


class Assembly:
    """The messages of one call, put together from what arrives; none is longer than ``limit`` bytes."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._data = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The messages that are complete now. Raises Refusal."""
        self._data += data
        while len(self._data) >= HEAD:
            end = HEAD + self._length()
            if len(self._data) < end:
                return
            message = bytes(self._data[HEAD:end])
            del self._data[:end]
            yield message

    def close(self) -> None:
        """Nothing more will arrive. Raises Refusal where a message is cut off."""
        if self._data:
            raise Refusal(INTERNAL, "The last request message is cut off")

    def _length(self) -> int:
        if self._data[0]:
            raise Refusal(UNIMPLEMENTED, "Compressed messages are not supported")
        length = int.from_bytes(self._data[1:HEAD], "big")
        if length > self._limit:
            raise Refusal(RESOURCE_EXHAUSTED, f"Received message larger than max ({length} vs. {self._limit})")
        return length


def framed(message: Message) -> bytes:
    """A message as it is on the wire."""
    data: bytes = message.SerializeToString()
    return b"\0" + len(data).to_bytes(4, "big") + data


def parsed(kind: type[Kind], data: bytes) -> Kind:
    """The message of a kind that bytes hold. Raises Refusal."""
    try:
        message: Kind = kind.FromString(data)
    except DecodeError:
        raise Refusal(INTERNAL, "The request message is malformed") from None
    return message
