"""TLS: a real client trusts a certificate from files; what cannot be had is one line."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import inlineCallbacks
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase, TestCase
from twisted.web.server import Site
from twisted.web.static import Data

from llmdsim import tls
from llmdsim.config import Config


def speak(port: int, context: ssl.SSLContext) -> tuple[str | None, bytes]:
    """The version of TLS, and the first line of an answer."""
    plain = socket.create_connection(("127.0.0.1", port), 10)
    with context.wrap_socket(plain, server_hostname="localhost") as wrapped:
        wrapped.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        return wrapped.version(), wrapped.recv(4096).split(b"\r\n")[0]


class Leaf(Data):
    isLeaf = True


class ServerTests(TestCase):
    def files(self) -> tuple[Path, Path]:
        folder = Path(self.mktemp())
        folder.mkdir()
        key, begin, certificate = tls.self_signed().partition(b"-----BEGIN CERTIFICATE-----")
        (folder / "key.pem").write_bytes(key)
        (folder / "cert.pem").write_bytes(begin + certificate)
        return folder / "cert.pem", folder / "key.pem"

    def listen(self, config: Config) -> int:
        factory = tls.secured(config, Site(Leaf(b"hello", "text/plain")))
        port: Any = reactor.listenTCP(0, factory, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        return int(port.getHost().port)

    @inlineCallbacks
    def test_a_client_that_trusts_the_certificate_is_answered(self) -> Any:
        self.patch(tls, "KEY_SIZE", 2048)
        certificate, key = self.files()
        port = self.listen(Config(model="m", ssl_certfile=str(certificate), ssl_keyfile=str(key)))
        context = ssl.create_default_context(cafile=str(certificate))
        version, line = yield deferToThread(speak, port, context)
        self.assertIn(version, ("TLSv1.2", "TLSv1.3"))
        self.assertEqual(line, b"HTTP/1.1 200 OK")


class RefusalTests(SynchronousTestCase):
    def refused(self, **flags: Any) -> str:
        return str(self.assertRaises(ValueError, tls.secured, Config(model="m", **flags), None))

    def test_files_that_are_not_there_are_named(self) -> None:
        self.assertEqual(
            self.refused(ssl_certfile="/nowhere/c", ssl_keyfile="/nowhere/k"), "/nowhere/k: No such file or directory"
        )

    def test_files_that_hold_something_else_are_named(self) -> None:
        path = self.mktemp()
        Path(path).write_bytes(b"nonsense")
        self.assertIn(f"{path}, {path}: no certificate and key", self.refused(ssl_certfile=path, ssl_keyfile=path))

    def test_tls_is_wanted_where_a_certificate_is_named_or_made(self) -> None:
        self.assertEqual(
            [
                tls.wanted(Config(model="m", **flags))
                for flags in ({}, {"self_signed_certs": True}, {"ssl_certfile": "c"})
            ],
            [False, True, True],
        )
