"""TLS: a real client trusts a certificate from files; what cannot be had is one line."""

from __future__ import annotations

import json
import socket
import ssl
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

from twisted.internet import reactor
from twisted.internet.defer import inlineCallbacks
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase, TestCase
from twisted.web.server import Site
from twisted.web.static import Data

from llmdsim import tls
from llmdsim.config import Config
from llmdsim.tap import Options, makeService
from llmdsim.test.doors import free_port


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


class WholeTests(TestCase):
    """A whole daemon, whose transports would send past TLS if they were asked for their own quick way."""

    def serve(self) -> int:
        self.patch(tls, "KEY_SIZE", 2048)
        options, port = Options(), free_port()
        options.parseOptions(["--model", "m", "--host", "127.0.0.1", "--port", str(port), "--self-signed-certs"])
        service = makeService(options)
        service.startService()
        self.addCleanup(service.stopService)
        return port

    @inlineCallbacks
    def test_answers_and_streams_are_encrypted_like_everything_else(self) -> Any:
        port = self.serve()
        for stream in (False, True):
            answer = yield deferToThread(complete, port, stream)
            self.assertIn(b"text_completion", answer)


def complete(port: int, stream: bool) -> bytes:
    """A completion over TLS, by a client that trusts anybody."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    body = json.dumps({"prompt": "hi", "max_tokens": 2, "stream": stream}).encode()
    asked = Request(f"https://127.0.0.1:{port}/v1/completions", body, {"Content-Type": "application/json"})
    with urlopen(asked, timeout=10, context=context) as answer:
        data: bytes = answer.read()
    return data


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
