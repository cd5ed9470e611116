"""
How far a long piece of work is: a bar on a terminal, else a line now and then.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol, TextIO

EVERY = 5.0  # seconds
SHARE = 10  # percent
SCALES = ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))
Log = Callable[[str], None]


class Progress(Protocol):
    """Is told of each step, and once of the end."""

    def add(self, amount: int) -> None: ...
    def close(self) -> None: ...


def progress(what: str, total: int | None, unit: str, log: Log, stream: TextIO, done: int = 0) -> Progress:
    """
    A bar where the stream is a terminal, else lines for the log.

    ``total`` is None where nobody knows; ``done`` is what an earlier attempt had done; unit ``B`` is bytes.
    """
    if not stream.isatty():
        return Lines(what, total, unit, log, done)
    from tqdm import tqdm

    bar = tqdm(total=total, initial=done, desc=what, unit=unit, unit_scale=unit == "B", unit_divisor=1024, file=stream)
    return Bar(bar.update, bar.close)


class Bar:
    """tqdm's bar, by its methods."""

    def __init__(self, update: Callable[[int], object], close: Callable[[], object]) -> None:
        self._update = update
        self._close = close

    def add(self, amount: int) -> None:
        """A step."""
        self._update(amount)

    def close(self) -> None:
        """Leave the bar as it is and go to the next line."""
        self._close()


class Lines:
    """Lines for a log: one every five seconds, and one every ten percent where the total is known."""

    def __init__(
        self,
        what: str,
        total: int | None,
        unit: str,
        log: Log,
        done: int = 0,
        seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        self._what, self._total, self._unit, self._log, self._seconds = what, total, unit, log, seconds
        self._done = done
        self._said, self._said_at = self._tenths(), seconds()

    def add(self, amount: int) -> None:
        """A step."""
        self._done += amount
        if self._tenths() > self._said or self._seconds() - self._said_at >= EVERY:
            self._say()

    def close(self) -> None:
        """The end, whether all was done or not; the last line was said already."""

    def _say(self) -> None:
        self._said, self._said_at = self._tenths(), self._seconds()
        if self._total:
            whole, percent = f" of {_amount(self._total, self._unit)}", f" ({100 * self._done // self._total} %)"
        else:
            whole = percent = ""
        self._log(f"{self._what}: {_amount(self._done, self._unit)}{whole}{percent}")

    def _tenths(self) -> int:
        return self._done * 100 // self._total // SHARE if self._total else 0


def _amount(count: int, unit: str) -> str:
    if unit != "B":
        return f"{count} {unit}"
    size, name = next(((size, name) for size, name in SCALES if count >= size), (1, "B"))
    return f"{count / size:.1f} {name}" if size > 1 else f"{count} B"
