"""
A lean load client for paced SSE streams: one thread, epoll, raw sockets.

It speaks just enough HTTP/1.1 (keep-alive, chunked answers) and counts frames without parsing them. It prints one
JSON object. bench.paced starts it; alone: ``python -m bench.client --port 8000 --streams 10``.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import resource
import select
import socket
import statistics
import time
from dataclasses import dataclass, field

HEADROOM = 64
END = b"0\r\n\r\n"


@dataclass(frozen=True)
class Load:
    """What is asked of the server. Times are in seconds; every stream asks ``rounds`` times, one after the other."""

    host: str
    port: int
    streams: int
    tokens: int
    ttft: float
    itl: float
    rounds: int

    @property
    def length(self) -> float:
        """The ideal duration of one answer."""
        return self.ttft + (self.tokens - 1) * self.itl

    def request(self) -> bytes:
        """The same streamed chat completion for everyone, of exactly ``tokens`` tokens."""
        body = json.dumps(
            {
                "model": "bench",
                "messages": [{"role": "user", "content": "Tell me a long story."}],
                "max_tokens": self.tokens,
                "ignore_eos": True,
                "stream": True,
            }
        ).encode()
        head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nHost: {self.host}:{self.port}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body


class Stream:
    """One connection and where its present answer stands."""

    __slots__ = ("frames", "last", "newline", "rounds", "socket", "tail")

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self.frames = 0
        self.last = 0.0
        self.newline = False
        self.rounds = 0
        self.tail = b""

    def ask(self, request: bytes) -> None:
        """Begin the next answer."""
        self.frames = 0
        self.newline = False
        self.tail = b""
        self.socket.sendall(request)


@dataclass
class Window:
    """The time in which every stream speaks: after the last start, before the first end."""

    pid: int | None
    opened: float = 0.0
    closed: float = 0.0
    tokens: int = 0
    server: float = 0.0
    client: float = 0.0

    def open(self, now: float) -> None:
        """Note the time and both CPU clocks."""
        self.opened = now
        self.server = -cpu_seconds(self.pid)
        self.client = -time.process_time()

    def close(self, now: float) -> None:
        """Turn the CPU readings into differences."""
        self.closed = now
        self.server += cpu_seconds(self.pid)
        self.client += time.process_time()

    @property
    def running(self) -> bool:
        """Is this the time that counts?"""
        return bool(self.opened) and not self.closed


def cpu_seconds(pid: int | None) -> float:
    """User and system time that a process has used, its threads included; 0 when no process is watched."""
    if pid is None:
        return 0.0
    with open(f"/proc/{pid}/stat", encoding="ascii") as stat:
        fields = stat.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def connect(load: Load) -> Stream:
    """Open one connection."""
    connection = socket.create_connection((load.host, load.port), timeout=10)
    connection.settimeout(None)  # with a timeout Python polls before each recv
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return Stream(connection)


@dataclass
class Client:
    """The event loop. ``gaps`` holds every time between two tokens of a stream; ``failures`` says what went wrong."""

    load: Load
    window: Window
    gaps: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    _streams: dict[int, Stream] = field(default_factory=dict)

    def run(self) -> None:
        """Start the streams evenly over one answer's length and read until the last has ended."""
        self._request = self.load.request()
        self._buffer = bytearray(1 << 16)
        self._poll = select.epoll()
        for _ in range(self.load.streams):
            stream = connect(self.load)
            self._streams[stream.socket.fileno()] = stream
            self._poll.register(stream.socket, select.EPOLLIN)
        self._loop()

    def _loop(self) -> None:
        waiting = list(self._streams.values())
        begin = time.monotonic()
        step = self.load.length / self.load.streams
        full = begin + self.load.length + self.load.ttft
        limit = begin + 30 + 3 * self.load.length * (1 + self.load.rounds)
        due = begin
        while self._streams and time.monotonic() < limit:
            now = time.monotonic()
            while waiting and due <= now:
                waiting.pop().ask(self._request)
                due += step
            if not self.window.opened and now >= full:
                self.window.open(now)
            for number, _ in self._poll.poll(max(due - now, 0.0) if waiting else 0.1):
                self._read(self._streams[number])
        self.failures += ["timed out"] * len(self._streams)

    def _read(self, stream: Stream) -> None:
        buffer = self._buffer
        try:
            size = stream.socket.recv_into(buffer)
        except OSError:
            size = 0
        now = time.monotonic()
        if not size or (not stream.frames and buffer[:4] == b"HTTP" and buffer[9:12] != b"200"):
            self._fail(stream, bytes(buffer[:size]).decode("ascii", "replace") or "closed early")
            return
        frames = buffer.count(b"\n\n", 0, size) + (stream.newline and buffer[0] == 10)
        stream.newline = buffer[size - 1] == 10 and buffer[max(size - 2, 0)] != 10
        if frames:
            self._count(stream, frames, now)
        if stream.frames >= self.load.tokens + 2:
            self._finish(stream, bytes(buffer[max(size - 5, 0) : size]), now)

    def _count(self, stream: Stream, frames: int, now: float) -> None:
        """Frame 0 says the role, frames 1 to ``tokens`` carry a token each, one more says [DONE]."""
        before = stream.frames
        stream.frames = after = before + frames
        tokens = min(after - 1, self.load.tokens) - max(before - 1, 0)
        if tokens <= 0:
            return
        if before > 1:
            self.gaps.append(now - stream.last)
        if tokens > 1:  # they came together
            self.gaps += [0.0] * (tokens - 1)
        stream.last = now
        if self.window.running:
            self.window.tokens += tokens

    def _finish(self, stream: Stream, tail: bytes, now: float) -> None:
        """Once the answer is whole, ask again, or leave after the last round."""
        stream.tail = (stream.tail + tail)[-5:]
        if stream.tail != END:
            return
        stream.rounds += 1
        if stream.frames != self.load.tokens + 2:
            self._fail(stream, f"{stream.frames} frames, not {self.load.tokens + 2}")
        elif stream.rounds < self.load.rounds:
            stream.ask(self._request)
        else:
            if self.window.running:
                self.window.close(now)
            self._drop(stream)

    def _fail(self, stream: Stream, why: str) -> None:
        self.failures.append(why)
        self._drop(stream)

    def _drop(self, stream: Stream) -> None:
        number = stream.socket.fileno()
        self._poll.unregister(number)
        del self._streams[number]
        stream.socket.close()


def report(client: Client) -> dict[str, float | int | str]:
    """What was measured: ``kept`` and the CPU shares are ratios, ``*_ms`` milliseconds, ``server_us`` CPU a token."""
    load, window = client.load, client.window
    seconds = max(window.closed - window.opened, 1e-9)
    ideal = load.streams * load.tokens / load.length
    errors = sorted(abs(gap - load.itl) * 1e3 for gap in client.gaps) or [0.0]
    return {
        "kept": window.tokens / seconds / ideal,
        "p50_ms": errors[len(errors) // 2],
        "p99_ms": errors[int(len(errors) * 0.99)],
        "max_ms": errors[-1],
        "drift_ms": (statistics.fmean(client.gaps) - load.itl) * 1e3 if client.gaps else 0.0,
        "server_us": window.server * 1e6 / max(window.tokens, 1),
        "server_share": window.server / seconds,
        "client_share": window.client / seconds,
        "seconds": seconds,
        "failed": len(client.failures),
        "failure": client.failures[0] if client.failures else "",
    }


def arguments() -> argparse.Namespace:
    """The command line. Times are in milliseconds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--pid", type=int, help="the server's process, for its CPU time")
    parser.add_argument("--streams", type=int, default=100)
    parser.add_argument("--tokens", type=int, default=100)
    parser.add_argument("--ttft", type=float, default=100.0)
    parser.add_argument("--itl", type=float, default=20.0)
    parser.add_argument("--rounds", type=int, default=3)
    return parser.parse_args()


def raise_file_limit(streams: int) -> None:
    """Let this process, and those that it starts, hold ``streams`` sockets."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = max(soft, streams + HEADROOM)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted if hard < 0 else min(wanted, hard), hard))


def main() -> None:
    """Load the server once and print the report."""
    given = arguments()
    raise_file_limit(given.streams)
    load = Load(given.host, given.port, given.streams, given.tokens, given.ttft / 1e3, given.itl / 1e3, given.rounds)
    client = Client(load, Window(given.pid))
    gc.disable()
    client.run()
    print(json.dumps(report(client)))


if __name__ == "__main__":
    main()
