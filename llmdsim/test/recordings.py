"""What tests of datasets share: files as the older simulator and its tool write them."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from llmdsim.dataset import Presets
from llmdsim.rows import prompt_hash
from llmdsim.sim.author import Draft
from llmdsim.sim.request import Prompt
from llmdsim.simulated import Simulated
from llmdsim.sqlite import Recorded, Table, at_once, open_copy, open_file
from llmdsim.test.support import request

ENCODE = Simulated().encode
OPEN: tuple[Callable[[Path, str], Table], ...] = (open_file, open_copy)
PRESETS = Presets(ENCODE)
COLUMNS = "id INTEGER PRIMARY KEY, prompt_hash BLOB NOT NULL, gen_tokens JSON NOT NULL, n_gen_tokens INTEGER NOT NULL"


def hash_of(prompt: str) -> bytes:
    """The hash of a completion's prompt."""
    hash = prompt_hash(ENCODE(prompt).ids)
    assert hash is not None
    return hash


def go_tokens(text: str) -> bytes:
    """A text's tokens as Go stores them: a blob, its keys the names of Go's fields."""
    said = ENCODE(text)
    return json.dumps({"Tokens": said.ids, "Strings": said.texts}, separators=(",", ":")).encode()


def answers(*pairs: tuple[str, str]) -> list[tuple[bytes, object, int]]:
    """Rows as Go writes them, of prompts and answers."""
    return [(hash_of(prompt), go_tokens(text), len(ENCODE(text).ids)) for prompt, text in pairs]


def write(
    path: Path, rows: Iterable[tuple[object, object, object]], table: str = "llmd", columns: str = COLUMNS
) -> Path:
    """A database of such rows: hash, tokens and their number."""
    names = [column.split()[0] for column in columns.split(", ")][1:4]
    with closing(sqlite3.connect(path)) as file:
        file.execute(f'CREATE TABLE "{table}" ({columns})')
        file.executemany(f'INSERT INTO "{table}" ({", ".join(names)}) VALUES (?, ?, ?)', rows)
        file.commit()
    return path


class DatasetCase(SynchronousTestCase):
    """Makes files, opens them, and asks what they say."""

    def file(self, rows: Iterable[Any], **options: Any) -> Path:
        """A database of these rows."""
        return write(Path(self.mktemp()), rows, **options)

    def opened(self, path: Path, name: str = "llmd", open_it: Any = open_copy) -> Table:
        """Its table."""
        table: Table = open_it(path, name)
        self.addCleanup(table.close)
        return table

    def source(self, rows: Iterable[Any], open_it: Any = open_copy) -> Recorded:
        """A source of these rows, which is asked in this thread."""
        table = self.opened(self.file(rows), open_it=open_it)
        return Recorded(table, PRESETS.compose, Simulated().decode, at_once)

    def draft(
        self,
        source: Recorded,
        prompt: Prompt = "hi",
        limit: int = 100,
        seed: int = 1,
        exact: bool = False,
        **fields: Any,
    ) -> Draft:
        """The answer to a prompt, as a request of a limit gets it; ``exact``: it ignores the end."""
        tokens = ENCODE(prompt if isinstance(prompt, str) else "?")
        asked = request(limit, ignore_eos=exact, **fields)
        draft = source.draft(asked, prompt, tokens, limit, Random(seed))
        assert isinstance(draft, Draft)
        self.assertEqual(len(draft.tokens.ids), len(draft.tokens.texts))
        return draft

    def said(self, *args: Any, **options: Any) -> tuple[str, bool]:
        """Text, and whether it ends by itself."""
        draft = self.draft(*args, **options)
        return "".join(draft.tokens.texts), draft.complete

    def all_said(self, source: Recorded, **options: Any) -> set[str]:
        """What is said with many seeds."""
        return {self.said(source, seed=seed, **options)[0] for seed in range(60)}
