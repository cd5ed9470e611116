"""
What tests of the doors share: a rank behind its app on a clock of its own, clients in memory, the daemon as a process.
"""

from __future__ import annotations

import atexit
import http.client
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from functools import cache
from random import Random
from typing import Any

import attrs
from treq.testing import StubTreq
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from llmdsim.config import load
from llmdsim.dataset import Echo, Presets
from llmdsim.sim.rank import Rank
from llmdsim.sim.request import Prompt, Request, Tokens
from llmdsim.simulated import Simulated
from llmdsim.test.support import WALL
from llmdsim.web.site import make_site
from llmdsim.web.tree import make_app

BOUND = 20.0  # seconds that anything with another process may take
DONE = "[DONE]"


class Script(Presets):
    """A source that says these texts, one a sequence, each ended by itself."""

    def __init__(self, *texts: str) -> None:
        super().__init__(Simulated().encode)
        self._texts = iter(texts)

    def draft(self, request: Request, prompt: Prompt, tokens: Tokens, limit: int, rng: Random) -> Any:
        """The next text."""
        any_draft = super().draft(request, prompt, tokens, limit, rng)
        return attrs.evolve(any_draft, tokens=Simulated().encode(next(self._texts)), complete=True)


@attrs.frozen
class Heard:
    """A whole answer."""

    status: int
    headers: Any
    body: bytes

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    def header(self, name: str) -> str | None:
        """One header, None where it is absent."""
        return self.headers.getRawHeaders(name, [None])[0]

    def fault(self) -> tuple[int, str, str, str | None]:
        """Status, type, message and param of an answer in vLLM's error envelope."""
        error = self.json()["error"]
        assert list(error) == ["message", "type", "param", "code"], error
        assert error["code"] == self.status, error
        return self.status, error["type"], error["message"], error["param"]


class Door:
    """A rank of model ``m`` behind its app; ``words`` are flags, its clock stands until it is advanced."""

    def __init__(
        self,
        *words: str,
        environ: Mapping[str, str] | None = None,
        source: Any = None,
        tokenizer: Simulated | None = None,
        offload: Callable[..., Deferred[Any]] = maybeDeferred,
    ) -> None:
        self.clock = Clock()
        self.tokenizer = tokenizer or Simulated()
        config = load(["--model", "m", "--seed", "1", *words], environ or {}).ranks()[0]
        says = Echo if config.mode == "echo" else Presets
        chosen = source or says(self.tokenizer.encode)
        self.rank = Rank(config, self.clock, self.wall, self.tokenizer, chosen, offload)
        self.app = make_app(self.rank)
        self.site = make_site(self.app, clock=self.clock, max_body=config.max_request_body_size_mb << 20)
        self._stub: Any = StubTreq(self.app.resource())

    def wall(self) -> float:
        """Unix time in seconds."""
        return WALL + self.clock.seconds()

    def ask(self, method: str, path: str, **options: Any) -> Heard:
        """The answer to a request that is answered at once, through the stock Site of treq's stub."""
        results: list[Any] = []
        options.setdefault("allow_redirects", False)
        self._stub.request(method, f"http://sim:8000{path}", **options).addBoth(results.append)
        assert results, f"{method} {path} is not answered yet"
        self._stub.content(results[0]).addBoth(results.append)
        return Heard(results[0].code, results[0].headers, results[1])

    def post(self, path: str, body: Any, **headers: str) -> Heard:
        """The answer to a JSON body; ``_`` in a header's name stands for ``-``."""
        return self.ask("POST", path, json=body, headers={name.replace("_", "-"): headers[name] for name in headers})

    def gauge(self, name: str) -> float:
        """The value of a metric without regard to its labels."""
        page = self.ask("GET", "/metrics").body.decode()
        (value,) = re.findall(rf"^{name}(?:{{.*}})? (\S+)$", page, re.MULTILINE)
        return float(value)


class Client:
    """One connection to a Door's Site, over a transport in memory."""

    def __init__(self, door: Door) -> None:
        self.writes: list[bytes] = []
        self.transport = StringTransport()
        self.transport.write = self.writes.append  # type: ignore[method-assign]
        self.channel = door.site.buildProtocol(None)
        self.channel.makeConnection(self.transport)

    def post(self, path: str, body: Mapping[str, Any], *headers: str) -> Client:
        """Send a JSON body, with header lines."""
        self.channel.dataReceived(message(path, body, *headers))
        return self

    def heard(self) -> bytes:
        """What came since the last call."""
        data = b"".join(self.writes)
        self.writes.clear()
        return data

    def status(self) -> int | None:
        """The status of an answer that begins in what came since the last call; None: nothing came."""
        data = self.heard()
        return int(data.split(b" ", 2)[1]) if data else None

    def events(self) -> list[Any]:
        """The events that came since the last call: JSON, or ``[DONE]``; the head is passed over."""
        return events(self.heard())

    def leave(self) -> None:
        """Close the connection from this end."""
        self.channel.connectionLost(Failure(ConnectionDone()))


def chat(tokens: int, **fields: Any) -> dict[str, Any]:
    """A chat body whose answer has exactly so many tokens."""
    question = [{"role": "user", "content": "hi"}]
    return {"model": "m", "messages": question, "max_tokens": tokens, "ignore_eos": True, **fields}


def text(tokens: int, **fields: Any) -> dict[str, Any]:
    """A completion body whose answer has exactly so many tokens."""
    return {"model": "m", "prompt": "hi", "max_tokens": tokens, "ignore_eos": True, **fields}


def message(path: str, body: Mapping[str, Any], *headers: str) -> bytes:
    """A POST of a JSON body as it is on the wire."""
    data = json.dumps(body).encode()
    lines = f"POST {path} HTTP/1.1", "Content-Type: application/json", f"Content-Length: {len(data)}", *headers
    return "\r\n".join((*lines, "", "")).encode() + data


def events(data: bytes) -> list[Any]:
    """The events of a piece of an event stream, whatever head and chunk lines are between them."""
    found = re.findall(rb"^data: (.*)\n\n", data, re.MULTILINE)
    return [DONE if event == DONE.encode() else json.loads(event) for event in found]


def said(found: list[Any], choice: int = 0) -> str:
    """The text that events give one choice of a chat or completion."""
    choices = [one for event in found if event != DONE for one in event.get("choices", ()) if one["index"] == choice]
    return "".join(one["text"] if "text" in one else one["delta"].get("content", "") for one in choices)


def free_port() -> int:
    """A port of the loopback interface that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def until(found: Callable[[], Any]) -> Any:
    """What ``found`` returns once that is true: another process has a clock of its own."""
    deadline = time.monotonic() + BOUND
    while time.monotonic() < deadline:
        result = found()
        if result:
            return result
        time.sleep(0.02)
    raise AssertionError(f"not within {BOUND} seconds")


def start(*arguments: str) -> subprocess.Popen[str]:
    """``twistd -n llmdsim`` as a process; kill it and read it to its end."""
    environ = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    program = "import sys; from twisted.scripts.twistd import run; sys.argv[0] = 'twistd'; run()"
    return subprocess.Popen(
        [sys.executable, "-c", program, "-n", "--pidfile=", "llmdsim", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environ,
        text=True,
    )


def serve(*arguments: str) -> tuple[subprocess.Popen[str], int]:
    """A daemon of model ``m`` that answers, and its port."""
    port = free_port()
    process = start("--model", "m", "--host", "127.0.0.1", "--port", str(port), *arguments)

    def answers() -> bool:
        if process.poll() is not None:
            raise AssertionError(f"no server: {process.communicate()}")
        try:
            return get(port, "/health")[0] == 200
        except OSError:
            return False

    until(answers)
    return process, port


def get(port: int, path: str) -> tuple[int, bytes]:
    """Status and body from a daemon."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=BOUND)
    connection.request("GET", path)
    response = connection.getresponse()
    return response.status, response.read()


@cache
def shared(*arguments: str) -> int:
    """The port of a daemon with these flags that all tests share; it ends with the tests."""
    process, port = serve(*arguments)
    atexit.register(process.communicate)
    atexit.register(process.kill)
    return port
