"""A web server on the loopback that serves one file, as well or as badly as a test wants."""

from __future__ import annotations

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from twisted.trial.unittest import SynchronousTestCase


class Server(ThreadingHTTPServer):
    """Serves ``content`` at every path; ``asked`` are the headers of the requests, ``act`` may answer instead."""

    daemon_threads = True

    def __init__(self, content: bytes) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = content
        self.tag = '"one"'
        self.cut = 0  # bytes after which the connection ends
        self.length = True
        self.act: Callable[[Any], bool] = lambda handler: False
        self.asked: list[Any] = []

    def url(self, path: str = "data.sqlite3") -> str:
        """An address here."""
        return f"http://127.0.0.1:{self.server_address[1]}/{path}"


class Handler(BaseHTTPRequestHandler):
    """One request."""

    server: Server

    def do_GET(self) -> None:
        """http.server's name for it."""
        self.server.asked.append(self.headers)
        if not self.server.act(self):
            self.serve()

    def serve(self) -> None:
        """The content, or the range of it that is asked for."""
        start = self.start()
        body = self.server.content[start:]
        self.send_response(206 if start else 200)
        if self.server.length:
            self.send_header("Content-Length", str(len(body)))
        if start:
            self.send_header(
                "Content-Range", f"bytes {start}-{len(self.server.content) - 1}/{len(self.server.content)}"
            )
        if self.server.tag:
            self.send_header("ETag", self.server.tag)
        self.end_headers()
        self.wfile.write(body[: self.server.cut or None])

    def start(self) -> int:
        """Where the answer begins."""
        wanted = self.headers.get("Range", "")
        fresh = self.headers.get("If-Range") == self.server.tag
        return int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and fresh else 0

    def say(self, status: int, **headers: str) -> bool:
        """An answer without a body."""
        self.send_response(status)
        for name, value in {"Content-Length": "0", **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        return True

    def log_message(self, *args: Any) -> None:
        """Nobody wants to know."""


def serving(test: SynchronousTestCase, content: bytes) -> Server:
    """A server that ends with the test."""
    server = Server(content)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    test.addCleanup(thread.join)
    test.addCleanup(server.server_close)
    test.addCleanup(server.shutdown)
    return server
