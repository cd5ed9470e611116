"""
Answers recorded in a SQLite file: found by the prompt's hash, else one that fits at random.

A file is read by one connection, which belongs to the one thread that ``run`` leads to; a copy in memory answers on
the spot. rows.py says what a row holds.
"""

from __future__ import annotations

import sqlite3
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from random import Random
from typing import Any

import attrs
from twisted.internet.defer import Deferred

from llmdsim.faults import INTERNAL, Fault
from llmdsim.rows import COLUMNS, hashes, quoted, read_tokens
from llmdsim.sim.author import Draft
from llmdsim.sim.request import Prompt, Request, Tokens

PATIENCE = 5  # seconds that a query waits for somebody who writes
Fill = Callable[[int, Random], Tokens]
Decode = Callable[[Sequence[int]], str]
Run = Callable[..., "Draft | Deferred[Draft]"]  # calls a function with arguments, here or in the connection's thread


class Unusable(ValueError):
    """A file that cannot serve as a dataset; its text is one line, for a person."""


class Locked(Unusable):
    """A file that somebody else is writing."""


@attrs.frozen(slots=True)
class Rows:
    """
    What is known of all rows without a query: 32 bytes a row.

    ``ids`` and ``lengths`` (in tokens) are in order of length. ``keys`` are the starts of the hashes, in order,
    and ``places`` says to which of the rows each belongs.
    """

    ids: Sequence[int]
    lengths: Sequence[int]
    keys: Sequence[int]
    places: Sequence[int]

    @classmethod
    def of(cls, found: Iterable[tuple[int, int, Any]]) -> Rows:
        """From length, id and hash of each row, in order."""
        ids, lengths, keys = array("q"), array("q"), array("Q")
        for length, id, hash in found:
            lengths.append(length)
            ids.append(id)
            keys.append(_key(hash) if isinstance(hash, bytes) else 0)
        places = array("Q", sorted(range(len(keys)), key=keys.__getitem__))
        return cls(ids, lengths, array("Q", map(keys.__getitem__, places)), places)

    def draw(self, known_as: Iterable[bytes], limit: int, exact: bool, rng: Random) -> int:
        """The id of a row of the prompt that has these hashes, or else of any other; there must be one."""
        for hash in known_as:
            first = bisect_left(self.keys, _key(hash))
            last = bisect_right(self.keys, _key(hash), first)
            if first < last:
                return self._suiting(self.places[first:last], limit, exact, True, rng)
        return self._suiting(range(len(self.ids)), limit, exact, False, rng)

    def _suiting(self, places: Sequence[int], limit: int, exact: bool, known: bool, rng: Random) -> int:
        """
        One of those that suit best, evenly: not longer than the limit, or of just that length where ``exact``.

        Of rows of this very prompt (``known``) rather a longer one, which is cut, than a shorter one, which is padded.
        """
        first = bisect_left(places, limit, key=self.lengths.__getitem__) if exact else 0
        last = bisect_right(places, limit, key=self.lengths.__getitem__)
        longer = places[last:] if known else ()
        return self.ids[rng.choice(places[first:last] or longer or places)]


def _key(hash: bytes) -> int:
    """What tells one hash from another: eight of its bytes will do."""
    return int.from_bytes(hash[:8], "big")


class Table:
    """
    One table of one database; ``rows`` are those that it had when it was opened.

    Whoever asks is always in the same thread; the connection is made when somebody first does.
    """

    def __init__(self, connect: Callable[[], sqlite3.Connection], name: str, rows: Rows) -> None:
        self.rows = rows
        self._connect = connect
        self._connection: sqlite3.Connection | None = None
        self._query = f"SELECT gen_tokens FROM {quoted(name)} WHERE id = ?"

    def tokens(self, id: int) -> Any:
        """The ``gen_tokens`` of a row, normally bytes; None where the row is gone. Raises sqlite3.Error."""
        found = self.connection().execute(self._query, (id,)).fetchone()
        return found and found[0]

    def connection(self) -> sqlite3.Connection:
        """The connection, which is made now if there is none."""
        if self._connection is None:
            self._connection = self._connect()
        return self._connection

    def close(self) -> None:
        """Let go of the database."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


class Recorded:
    """The source that says what was recorded; ``fill`` lengthens what is too short, ``decode`` spells bare ids."""

    filler = False

    def __init__(self, table: Table, fill: Fill, decode: Decode, run: Run) -> None:
        self._table = table
        self._fill = fill
        self._decode = decode
        self._run = run

    def draft(
        self, request: Request, prompt: Prompt, tokens: Tokens, limit: int, rng: Random
    ) -> Draft | Deferred[Draft]:
        """A row of the prompt, or of any other prompt. Raises Fault(INTERNAL) where it cannot be read."""
        rows, exact = self._table.rows, request.ignore_eos
        if not rows.ids:
            raise Fault(INTERNAL, "Dataset is empty")
        id = rows.draw(hashes(prompt, tokens.ids), limit, exact, rng)
        shortest = limit if exact else request.stops.min_tokens
        own = Random(rng.getrandbits(64))  # the rank's generator serves others before a thread gets round to this
        return self._run(self._answer, id, shortest, limit, own)

    def compose(self, length: int, rng: Random) -> Tokens:
        """Text that was not recorded."""
        return self._fill(length, rng)

    def close(self) -> None:
        """Let go of the file, once nobody asks any more."""
        self._table.close()

    def _answer(self, id: int, shortest: int, limit: int, rng: Random) -> Draft:
        try:
            said = read_tokens(self._table.tokens(id), self._decode)
        except sqlite3.Error as error:
            raise Fault(INTERNAL, f"Dataset cannot be read: {error}") from error
        except ValueError as error:
            raise Fault(INTERNAL, f"Dataset row {id} is broken: {error}") from error
        return self._fit(said, shortest, limit, rng)

    def _fit(self, said: Tokens, shortest: int, limit: int, rng: Random) -> Draft:
        ids, texts = [*said.ids[:limit]], [*said.texts[:limit]]
        if len(ids) < shortest:
            more = self._fill(shortest - len(ids), rng)
            ids += more.ids
            texts += more.texts
        return Draft(Tokens(ids, texts), complete=len(ids) < limit)


def at_once(function: Callable[..., Draft], *arguments: Any) -> Draft:
    """The ``run`` of a table in memory."""
    return function(*arguments)


def open_file(path: Path, name: str) -> Table:
    """A table that stays in its file, after a check of it. Raises Unusable, and Locked where somebody is writing."""
    path = path.absolute()  # a daemon changes its directory
    with _opened(path, name) as file:
        rows = _rows(file, name)
    # Between this and the first question a daemon forks, and a thread asks: neither may use the connection above.
    return Table(lambda: _connect(path, PATIENCE), name, rows)


def open_copy(path: Path, name: str) -> Table:
    """A table copied into memory. Raises Unusable, and Locked where somebody is writing."""
    memory = sqlite3.connect(":memory:", isolation_level=None)
    memory.text_factory = bytes
    try:
        with _opened(path.absolute(), name) as file:
            file.backup(memory)
            table = Table(lambda: memory, name, _rows(file, name))
    except Unusable:
        memory.close()
        raise
    table.connection()
    return table


@contextmanager
def _opened(path: Path, name: str) -> Iterator[sqlite3.Connection]:
    """A connection to a file that is what it should be, and stays so: writers are locked out."""
    if not path.is_file():
        raise Unusable(f"database file does not exist: {path}")
    try:
        with closing(_connect(path, 0)) as connection:
            connection.execute("BEGIN EXCLUSIVE")  # a shared lock, where a file is open for reading only
            _verify(connection, name)
            yield connection
    except sqlite3.Error as error:
        if "locked" in str(error):
            raise Locked(f"database is locked or has other active connections: {path}: {error}") from error
        raise Unusable(f"failed to verify database: {path}: {error}") from error


def _connect(path: Path, patience: float) -> sqlite3.Connection:
    address = f"{path.as_uri()}?mode=ro"
    connection = sqlite3.connect(address, timeout=patience, isolation_level=None, check_same_thread=False, uri=True)
    connection.text_factory = bytes  # JSON may be stored as text too, and need not be UTF-8 to be fetched
    return connection


def _verify(connection: sqlite3.Connection, name: str) -> None:
    told = connection.execute(f"PRAGMA table_info({quoted(name)})")
    declared = {row[1].decode("utf-8", "replace"): row[2].decode("utf-8", "replace") for row in told}
    for column, kind in COLUMNS.items():
        got = declared.get(column, kind)
        if got != kind:
            text = f"column {column} has incorrect type: expected {kind}, got {got}"
            raise Unusable(f"failed to verify database: {text}")
    for column in COLUMNS:
        if column not in declared:
            raise Unusable(f"failed to verify database: missing expected column in {name} table: {column}")


def _rows(connection: sqlite3.Connection, name: str) -> Rows:
    """All rows; whatever was stored, their lengths and ids are integers."""
    length = "ifnull(CAST(n_gen_tokens AS INTEGER), 0)"
    query = f"SELECT {length}, id, prompt_hash FROM {quoted(name)} WHERE typeof(id) = 'integer' ORDER BY 1, 2"
    return Rows.of(connection.execute(query))
