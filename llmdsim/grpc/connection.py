"""
A connection of HTTP/2 that carries calls: hyper-h2 keeps its state, Twisted its bytes.

Both directions have flow control: the client's windows and its socket hold back what a call says.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from struct import Struct
from typing import Any

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    RemoteSettingsChanged,
    RequestReceived,
    StreamEnded,
    StreamReset,
    WindowUpdated,
)
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes, Settings
from h2.stream import H2Stream
from twisted.internet.interfaces import IPushProducer, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from llmdsim.grpc.call import Call, Headers
from llmdsim.grpc.methods import Method

WINDOW = 1 << 20  # bytes that a client may send ahead on one stream, and twice as many on the connection
MOST_CALLS = 4096  # at a time; a client keeps more to itself
MOST_UNREAD = 1 << 16  # bytes of control frames for a client that does not read: then it is cut off
_UNSUPPORTED: Headers = [(b":status", b"415")]
_CONFIG = H2Configuration(
    client_side=False, header_encoding=None, validate_outbound_headers=False, normalize_outbound_headers=False
)
_frame_head = Struct(">IBI").pack  # length and type (0: DATA) in one, flags, stream


@implementer(IPushProducer)
class Connection(Protocol):
    """One client's connection. A message to ``methods`` (by path) has at most ``limit`` bytes."""

    transport: Any

    def __init__(
        self,
        clock: IReactorTime,
        methods: Mapping[bytes, Method],
        limit: int,
        closed: Callable[[Connection], None] = lambda connection: None,
    ) -> None:
        self.clock, self._methods, self._limit, self._closed = clock, methods, limit, closed
        self._calls: dict[int, Call] = {}
        self._waiting: dict[int, Call] = {}  # blocked; the one that waits longest is the first
        self._paused = False
        self._unread = 0
        self._h2 = H2Connection(_CONFIG)
        self._h2.local_settings = Settings(
            client=False,
            initial_values={
                SettingCodes.MAX_CONCURRENT_STREAMS: MOST_CALLS,
                SettingCodes.INITIAL_WINDOW_SIZE: WINDOW,
                SettingCodes.MAX_HEADER_LIST_SIZE: H2Connection.DEFAULT_MAX_HEADER_LIST_SIZE,
            },
        )
        self._hear: dict[type, Callable[[Any], None]] = {
            RequestReceived: self._requested,
            DataReceived: self._received,
            StreamEnded: self._ended,
            StreamReset: self._reset,
            WindowUpdated: self._widened,
            RemoteSettingsChanged: self._configured,
            ConnectionTerminated: self._terminated,
        }

    # Twisted's side.

    def connectionMade(self) -> None:
        """A client has come: say what it may do."""
        # A transport in memory has no sendNow.
        self._send_now = getattr(self.transport, "sendNow", self.transport.write)
        self._h2.initiate_connection()
        self._h2.increment_flow_control_window(2 * WINDOW - self._h2.inbound_flow_control_window)
        self._flush()
        self.transport.registerProducer(self, True)

    def dataReceived(self, data: bytes) -> None:
        """Frames, or parts of them."""
        try:
            events = self._h2.receive_data(data)
        except ProtocolError:
            self._hang_up()
            return
        self._answer()  # first: what follows may rely on settings that are acknowledged here
        for event in events:
            hear = self._hear.get(type(event))
            if hear is not None:
                hear(event)
        self._answer()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The client is gone."""
        self._lose_calls()
        self._closed(self)

    def pauseProducing(self) -> None:
        """The client's socket is full."""
        self._paused = True

    def resumeProducing(self) -> None:
        """What was written has left."""
        self._paused, self._unread = False, 0
        self._wake_all()

    def stopProducing(self) -> None:
        """The connection is lost; connectionLost follows."""
        self._paused = True

    def leave(self) -> None:
        """Say goodbye, and close."""
        with suppress(ProtocolError):
            self._h2.close_connection()
        self._hang_up()

    # What a call needs.

    def room(self, stream: H2Stream) -> int:
        """How many bytes one DATA frame may have now."""
        if self._paused:
            return 0
        h2 = self._h2
        widths = stream.outbound_flow_control_window, h2.outbound_flow_control_window, h2.max_outbound_frame_size
        room: int = min(widths)
        return room

    def head(self, stream: H2Stream, headers: Headers) -> None:
        """Open an answer. A client that has reset the call meanwhile hears nothing."""
        with suppress(ProtocolError):
            self._h2.send_headers(stream.stream_id, headers)
        self._flush()

    def data(self, stream: H2Stream, data: bytes) -> None:
        """One DATA frame, for which there is room."""
        # h2's send_data takes 7 us a frame to write the same nine bytes and count down the same two windows; to its
        # state machine a frame without flags is no event.
        h2, size = self._h2, len(data)
        h2.outbound_flow_control_window -= size
        stream.outbound_flow_control_window -= size
        frame = _frame_head(size << 8, 0, stream.stream_id) + data
        # Calls that speak in one turn share one write.
        if len(self._calls) > 1:
            self.transport.write(frame)
        else:
            self._send_now(frame)

    def close(self, stream: H2Stream, headers: Headers) -> None:
        """End an answer; a client that still asks is told to stop."""
        with suppress(ProtocolError):
            self._h2.send_headers(stream.stream_id, headers, end_stream=True)
            if not stream.closed:
                self._h2.reset_stream(stream.stream_id, ErrorCodes.NO_ERROR)
        self._flush()

    def reset(self, stream: H2Stream, code: ErrorCodes) -> None:
        """Break a stream off."""
        with suppress(ProtocolError):
            self._h2.reset_stream(stream.stream_id, code)
        self._flush()

    def wait(self, call: Call) -> None:
        """Wake a call when there may be room."""
        self._waiting[call.stream.stream_id] = call

    def forget(self, call: Call) -> None:
        """A call has ended."""
        self._calls.pop(call.stream.stream_id, None)
        self._waiting.pop(call.stream.stream_id, None)

    # What h2 has understood.

    def _requested(self, event: RequestReceived) -> None:
        stream = self._h2.streams.get(event.stream_id)
        if stream is None:  # opened and reset in one breath
            return
        headers = dict(event.headers)
        if headers.get(b":method") != b"POST" or not headers.get(b"content-type", b"").startswith(b"application/grpc"):
            self.close(stream, _UNSUPPORTED)
            return
        call = self._calls[event.stream_id] = Call(self, stream, self._limit)
        call.begin(self._methods.get(headers.get(b":path", b"")), headers)

    def _received(self, event: DataReceived) -> None:
        call = self._calls.get(event.stream_id)
        if call is not None:
            call.receive(event.data)
        self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)

    def _ended(self, event: StreamEnded) -> None:
        call = self._calls.get(event.stream_id)
        if call is not None:
            call.ended()

    def _reset(self, event: StreamReset) -> None:
        call = self._calls.get(event.stream_id)
        if call is not None:
            call.lost()

    def _widened(self, event: WindowUpdated) -> None:
        if not event.stream_id:
            self._wake_all()
        else:
            self._wake(event.stream_id)

    def _configured(self, event: RemoteSettingsChanged) -> None:
        self._wake_all()  # the windows of all streams may be wider

    def _terminated(self, event: ConnectionTerminated) -> None:
        self._hang_up()  # h2 lets nothing more out once the client has said goodbye

    def _wake_all(self) -> None:
        for call in list(self._waiting.values()):
            if self._paused or self._h2.outbound_flow_control_window <= 0:
                return
            self._wake(call.stream.stream_id)

    def _wake(self, id: int) -> None:
        call = self._waiting.pop(id, None)
        if call is not None:
            call.wake()

    def _hang_up(self) -> None:
        self._lose_calls()
        self._flush()
        self.transport.loseConnection()

    def _lose_calls(self) -> None:
        for call in list(self._calls.values()):
            call.lost()

    def _flush(self) -> None:
        data = self._h2.data_to_send()
        if data:
            self.transport.write(data)

    def _answer(self) -> None:
        """Send what h2 says of itself: it answers every ping, whether or not the client reads."""
        data = self._h2.data_to_send()
        if not data:
            return
        self.transport.write(data)
        if self._paused:
            self._unread += len(data)
            if self._unread > MOST_UNREAD:
                self.transport.abortConnection()
