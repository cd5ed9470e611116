"""
The ``llmdsim`` command: ``twistd -n --pidfile= llmdsim`` in this process.

For another reactor, a log file, a daemon or a PID file, call twistd itself.
"""

from __future__ import annotations

import sys


def command(argv: list[str]) -> list[str]:
    """Return twistd's argument vector for the ``argv`` of the ``llmdsim`` command."""
    return [argv[0], "--nodaemon", "--pidfile=", "llmdsim", *argv[1:]]


def main() -> None:
    """Serve until a signal comes, and leave with twistd's own exit status."""
    from twisted.scripts.twistd import run

    sys.argv = command(sys.argv)
    run()


if __name__ == "__main__":
    main()
