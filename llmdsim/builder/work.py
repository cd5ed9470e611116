"""
The unfinished work of a build: rows of the records done so far, kept so that a build may be interrupted.

It is of one input and one set of options; for others it starts anew.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import attrs

from llmdsim.builder.writing import Row

_SCHEMA = """
BEGIN;
CREATE TABLE work (purpose TEXT NOT NULL, records INTEGER NOT NULL);
CREATE TABLE written (
    id INTEGER PRIMARY KEY, prompt_hash BLOB, gen_tokens BLOB, count INTEGER, input_text TEXT, generated TEXT
);
COMMIT;
"""


class Work:
    """The file of a build; ``records`` are done."""

    def __init__(self, path: Path, purpose: str) -> None:
        self._path = path
        self.records = 0
        self._file = self._continued(purpose) or self._new(purpose)

    def add(self, rows: Iterable[Row]) -> None:
        """Keep the rows of the next record; they are safe after ``save``."""
        fields = map(attrs.astuple, rows)
        self._file.executemany(
            "INSERT INTO written (prompt_hash, gen_tokens, count, input_text, generated) VALUES (?, ?, ?, ?, ?)", fields
        )
        self.records += 1

    def save(self) -> None:
        """From here an interrupted build goes on."""
        self._file.execute("UPDATE work SET records = ?", (self.records,))
        self._file.commit()

    def rows(self) -> Iterator[Row]:
        """All rows in the order in which they were added."""
        fields = "prompt_hash, gen_tokens, count, input_text, generated"
        return (Row(*row) for row in self._file.execute(f"SELECT {fields} FROM written ORDER BY id"))

    def count(self) -> int:
        """How many there are."""
        (count,) = self._file.execute("SELECT count(*) FROM written").fetchone()
        return int(count)

    def close(self) -> None:
        """Leave the file to the next attempt."""
        self._file.close()

    def drop(self) -> None:
        """The build is done."""
        self._file.close()
        self._path.unlink()

    def _continued(self, purpose: str) -> sqlite3.Connection | None:
        if not self._path.is_file():
            return None
        file = sqlite3.connect(self._path)
        with suppress(sqlite3.Error):
            found = file.execute("SELECT purpose, records FROM work").fetchone()
            if found and found[0] == purpose:
                self.records = found[1]
                return file
        file.close()
        return None

    def _new(self, purpose: str) -> sqlite3.Connection:
        self._path.unlink(missing_ok=True)
        self._path.with_name(f"{self._path.name}-journal").unlink(missing_ok=True)
        file = sqlite3.connect(self._path)
        file.executescript(_SCHEMA)
        file.execute("INSERT INTO work VALUES (?, 0)", (purpose,))
        file.commit()
        return file
