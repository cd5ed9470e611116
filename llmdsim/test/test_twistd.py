"""The daemon as a user meets it: a real process, its exit statuses, its signals."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import subprocess
import time

from twisted.trial.unittest import SynchronousTestCase

from llmdsim.test.doors import BOUND, serve, start


class TwistdTests(SynchronousTestCase):
    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return self.ended(start(*arguments))

    def serve(self, *arguments: str) -> tuple[subprocess.Popen[str], int]:
        process, port = serve(*arguments)
        return self.ended(process), port

    def ended(self, process: subprocess.Popen[str]) -> subprocess.Popen[str]:
        """The process, which ends with the test."""
        self.addCleanup(process.communicate)
        self.addCleanup(process.kill)
        return process

    def post(self, port: int, body: dict) -> http.client.HTTPResponse:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=BOUND)
        connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
        return connection.getresponse()

    def test_a_bad_configuration_is_one_line_and_status_2(self):
        process = self.start("--model", "m", "--port", "0")
        _, err = process.communicate(timeout=BOUND)
        self.assertEqual((process.returncode, err), (2, "llmdsim: invalid port '0'\n"))

    def test_a_busy_port_is_one_line_and_status_1(self):
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            process = self.start("--model", "m", "--host", "127.0.0.1", "--port", str(port))
            _, err = process.communicate(timeout=BOUND)
        self.assertEqual(process.returncode, 1)
        self.assertRegex(err, rf"^llmdsim: rank 0: port {port}: .*in use\n$")

    def test_help_names_the_flags_and_ends_with_status_0(self):
        process = self.start("--help")
        out, _ = process.communicate(timeout=BOUND)
        self.assertEqual(process.returncode, 0)
        self.assertIn("--time-to-first-token", out)

    def test_sigterm_lets_a_stream_finish_and_refuses_new_requests(self):
        process, port = self.serve("--inter-token-latency", "40ms")
        body = {"model": "m", "prompt": "hi", "max_tokens": 25, "ignore_eos": True}
        stream = self.post(port, {**body, "stream": True})
        self.assertTrue(stream.readline().startswith(b"data: {"))
        process.send_signal(signal.SIGTERM)
        refused = self.refused(port, body)
        self.assertEqual(refused.status, 503)
        self.assertIn(b"server is shutting down", refused.read())
        rest = stream.read()
        self.assertEqual(rest.count(b"data: {"), 24)
        self.assertTrue(rest.endswith(b"data: [DONE]\n\n"))
        process.communicate(timeout=BOUND)
        self.assertEqual(process.returncode, -signal.SIGTERM)  # twistd ends by the signal that stopped it

    def refused(self, port: int, body: dict) -> http.client.HTTPResponse:
        """The first answer that is not 200: a signal takes a moment to arrive."""
        deadline = time.monotonic() + BOUND
        while time.monotonic() < deadline:
            answer = self.post(port, {**body, "max_tokens": 1})
            if answer.status != 200:
                return answer
            answer.read()
        raise self.failureException("never refused")
