"""
How well does llmdsim keep the time of many streams, and what does a token cost?

It starts the server on one core and bench.client on another, some times over, and prints medians:
``python -m bench.paced --streams 500 --itl 20 --tokens 100``. ``--server`` measures another program in the same way.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import shlex
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import IO, Any

from bench.client import raise_file_limit

LLMDSIM = (
    f"{shlex.quote(sys.executable)} -m llmdsim.cli --model bench --port {{port}} --max-num-seqs {{streams}}"
    " --max-model-len 8192 --time-to-first-token {ttft}ms --inter-token-latency {itl}ms --seed 1"
)
ROWS = (
    ("kept rate", "{kept:.3f} of the ideal"),
    ("gap error", "p50 {p50_ms:.2f} ms, p99 {p99_ms:.2f} ms, max {max_ms:.1f} ms"),
    ("mean drift", "{drift_ms:+.3f} ms a token"),
    ("server CPU", "{server_us:.1f} µs a token, {server_share:.0%} of its core"),
    ("client CPU", "{client_share:.0%} of its core"),
)


def free_port() -> int:
    """A loopback port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def pinned(command: list[str], core: int, **more: Any) -> subprocess.Popen[bytes]:
    """Start a process that may use one core only."""
    return subprocess.Popen(command, preexec_fn=lambda: os.sched_setaffinity(0, {core}), **more)


def healthy(port: int) -> bool:
    """Does the server answer ``GET /health``?"""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def await_health(server: subprocess.Popen[bytes], port: int, log: IO[bytes]) -> None:
    """Return when the server is up; leave with the end of its log when it is not, within half a minute."""
    limit = time.monotonic() + 30
    while not healthy(port):
        if server.poll() is not None or time.monotonic() > limit:
            log.seek(0)
            raise SystemExit("the server did not start:\n" + log.read()[-2000:].decode(errors="replace"))
        time.sleep(0.1)


@contextlib.contextmanager
def serving(command: list[str], port: int, core: int) -> Iterator[int]:
    """Run the server around a block, which gets its process id."""
    with tempfile.TemporaryFile() as log:
        server = pinned(command, core, stdout=log, stderr=subprocess.STDOUT)
        try:
            await_health(server, port, log)
            yield server.pid
        finally:
            stop(server)


def stop(server: subprocess.Popen[bytes]) -> None:
    """End the server in order, and by force if that takes longer than its own limit."""
    server.terminate()
    try:
        server.wait(timeout=40)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()


def measure(given: argparse.Namespace, server_core: int, client_core: int) -> dict[str, Any]:
    """One run against a fresh server: the client's report."""
    port = free_port()
    command = given.server.format(port=port, streams=given.streams, ttft=given.ttft, itl=given.itl, tokens=given.tokens)
    with serving(shlex.split(command), port, server_core) as pid:
        numbers = {
            "port": port,
            "pid": pid,
            **{name: getattr(given, name) for name in ("streams", "tokens", "ttft", "itl")},
        }
        flags = [word for name, number in numbers.items() for word in (f"--{name}", str(number))]
        client = pinned([sys.executable, "-m", "bench.client", *flags], client_core, stdout=subprocess.PIPE)
        out, _ = client.communicate()
    if client.returncode:
        raise SystemExit(f"the client ended with status {client.returncode}")
    found: dict[str, Any] = json.loads(out)
    if found["failed"]:
        raise SystemExit(f"{found['failed']} streams failed, the first with: {found['failure']}")
    return found


def arguments() -> argparse.Namespace:
    """The command line. Times are in milliseconds."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.paced", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--streams", type=int, default=500)
    parser.add_argument("--itl", type=float, default=20.0, help="between tokens")
    parser.add_argument("--ttft", type=float, default=100.0, help="before the first token")
    parser.add_argument("--tokens", type=int, default=100, help="per answer")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--server", default=LLMDSIM, help="command with {port} {streams} {ttft} {itl} {tokens}")
    return parser.parse_args()


def main() -> None:
    """Measure, and print the medians."""
    given = arguments()
    raise_file_limit(given.streams)
    cores = sorted(os.sched_getaffinity(0))
    print(f"{given.streams} streams, {given.tokens} tokens each, {given.itl:g} ms apart; median of {given.runs} runs")
    if len(cores) < 2:
        print("one core only: server and client disturb each other")
    runs = [measure(given, cores[0], cores[-1]) for _ in range(given.runs)]
    median = {key: statistics.median(run[key] for run in runs) for key in runs[0] if key != "failure"}
    for name, row in ROWS:
        print(f"{name:<12}{row.format(**median)}")


if __name__ == "__main__":
    main()
