"""
What tests of the gRPC door share: a client of HTTP/2 in memory, and what it heard of each call.

Needs the extra ``grpc``.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import attrs
from google.protobuf.message import Message
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import ConnectionTerminated, DataReceived, ResponseReceived, StreamEnded, StreamReset, TrailersReceived
from h2.settings import SettingCodes, Settings
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from llmdsim.grpc.connection import Connection
from llmdsim.grpc.messages import HEAD, framed
from llmdsim.grpc.methods import Method
from llmdsim.grpc.services import methods
from llmdsim.test.doors import Door

ENGINE = "/vllm.grpc.engine.VllmEngine/"
PATIENT = 1 << 30  # a window that never closes


@attrs.define
class Heard:
    """What a client heard of one call; ``frames`` are the sizes of its DATA frames."""

    head: dict[str, str] = attrs.field(factory=dict)
    data: bytes = b""
    frames: list[int] = attrs.field(factory=list)
    ended: bool = False
    reset: int | None = None

    @property
    def status(self) -> int | None:
        """The code it ended with; None: not yet."""
        return int(self.head["grpc-status"]) if "grpc-status" in self.head else None

    @property
    def text(self) -> str | None:
        """What was said of the code."""
        return self.head.get("grpc-message")

    def messages(self) -> list[bytes]:
        """The whole messages of it."""
        found, data = [], self.data
        while len(data) >= HEAD:
            end = HEAD + int.from_bytes(data[1:HEAD], "big")
            found.append(data[HEAD:end])
            data = data[end:]
        return found


class Wire(StringTransport):
    """A transport in memory whose protocol may change, as a real one's may."""

    protocol: Any


class Caller:
    """
    A client in memory of a protocol that speaks gRPC.

    ``window`` is how many bytes of an answer it takes before it is asked again with ``listen``: of each call, and with
    ``shared`` of all together. It hears what was written when it is asked for something.
    """

    def __init__(self, protocol: Any, window: int = PATIENT, shared: int = PATIENT, frame: int = 1 << 14) -> None:
        self.transport = Wire()
        self.transport.protocol = protocol
        protocol.makeConnection(self.transport)
        self.h2 = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
        self.h2.local_settings = Settings(
            initial_values={SettingCodes.INITIAL_WINDOW_SIZE: window, SettingCodes.MAX_FRAME_SIZE: frame}
        )
        self.gone: int | None = None
        self._calls: defaultdict[int, Heard] = defaultdict(Heard)
        self.h2.initiate_connection()
        if shared > 1 << 16:
            self.h2.increment_flow_control_window(shared - (1 << 16))
        self.tell()

    def call(
        self, path: str, *messages: Message | bytes, end: bool = True, headers: Mapping[str, str] | None = None
    ) -> int:
        """Begin a call and send its messages; bytes go as they are. The number of its stream."""
        id = self.h2.get_next_available_stream_id()
        given = {"content-type": "application/grpc", "te": "trailers", **(headers or {})}
        fields = [(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "sim"), *given.items()]
        self.h2.send_headers(id, fields, end_stream=end and not messages)
        for message in messages:
            self.h2.send_data(id, message if isinstance(message, bytes) else framed(message))
        if end and messages:
            self.h2.end_stream(id)
        self.tell()
        return id

    def send(self, id: int, data: bytes, end: bool = False) -> None:
        """Say more in a call, in frames and within the windows that the server gives."""
        self.heard(id)
        while data:
            size = min(self.h2.local_flow_control_window(id), self.h2.max_outbound_frame_size)
            assert size, "the server gives no room"
            self.h2.send_data(id, data[:size])
            data = data[size:]
            self.tell()
            self.heard(id)
        if end:
            self.h2.end_stream(id)
        self.tell()

    def cancel(self, id: int) -> None:
        """Reset a call."""
        self.h2.reset_stream(id, 8)
        self.tell()

    def listen(self, size: int, id: int | None = None) -> None:
        """Take so many bytes more: of one call, or of all of them together."""
        self.h2.increment_flow_control_window(size, id)
        self.tell()

    def tell(self) -> None:
        """Send what there is to send."""
        data = self.h2.data_to_send()
        if data and not self.transport.disconnecting:
            self.transport.protocol.dataReceived(data)

    def heard(self, id: int) -> Heard:
        """What was heard of a call."""
        data = self.transport.value()
        self.transport.clear()
        for event in self.h2.receive_data(data):
            self._note(event)
        self.tell()
        return self._calls[id]

    def leave(self) -> None:
        """Close the connection from this end."""
        self.transport.protocol.connectionLost(Failure(ConnectionDone()))

    def _note(self, event: Any) -> None:
        if isinstance(event, ConnectionTerminated):
            self.gone = event.error_code
        if getattr(event, "stream_id", None) is None:
            return
        call = self._calls[event.stream_id]
        if isinstance(event, ResponseReceived | TrailersReceived):
            headers: Any = event.headers
            call.head.update(headers)
        elif isinstance(event, DataReceived):
            call.data += event.data
            call.frames.append(event.flow_controlled_length)
        elif isinstance(event, StreamEnded):
            call.ended = True
        elif isinstance(event, StreamReset):
            call.reset = event.error_code


class Line:
    """A connection with methods of its own, its clock, and who has left it."""

    def __init__(self, known: Mapping[str, Method], limit: int = 1000) -> None:
        self.clock = Clock()
        self.closed: list[Connection] = []
        paths = {path.encode(): method for path, method in known.items()}
        self.connection = Connection(self.clock, paths, limit, self.closed.append)


def engine(door: Door, **options: Any) -> Caller:
    """A client of a door's rank."""
    limit = door.rank.config.max_request_body_size_mb << 20
    return Caller(Connection(door.clock, methods(door.rank), limit), **options)
