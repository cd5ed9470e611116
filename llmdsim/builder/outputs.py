"""
The three files of a dataset: SQLite for the simulator, JSON and a card for people.

The same rows give the same bytes: nothing tells when or where they were written.
"""

from __future__ import annotations

import json
import sqlite3
from base64 import b64encode
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any, TextIO

import attrs

from llmdsim.builder.writing import Row
from llmdsim.rows import COLUMNS, quoted

ENDINGS = (".sqlite3", ".json", ".md")


@attrs.frozen(slots=True)
class About:
    """What a card tells; ``source`` is Markdown, ``options`` are flags that a server needs to find the rows again."""

    name: str
    model: str
    tokenizer: str
    options: str
    source: str
    table: str
    records: int
    rows: int


def write_sqlite(path: Path, table: str, rows: Iterable[Row]) -> None:
    """A new database with one table and an index, in one transaction."""
    path.unlink(missing_ok=True)
    columns = ", ".join(
        f"{name} {kind} {'PRIMARY KEY' if name == 'id' else 'NOT NULL'}" for name, kind in COLUMNS.items()
    )
    with closing(sqlite3.connect(path, isolation_level=None)) as file:
        file.execute("BEGIN")
        file.execute(f"CREATE TABLE IF NOT EXISTS {quoted(table)} ({columns})")
        file.executemany(
            f"INSERT INTO {quoted(table)} (prompt_hash, gen_tokens, n_gen_tokens) VALUES (?, ?, ?)",
            ((row.prompt_hash, row.gen_tokens, row.count) for row in rows),
        )
        file.execute(f"CREATE INDEX {quoted(f'{table}_prompt_hash')} ON {quoted(table)} (prompt_hash)")
        file.execute("COMMIT")


def write_json(path: Path, rows: Iterable[Row]) -> None:
    """An array of objects, two blanks a level."""
    with path.open("w", encoding="utf-8", newline="\n") as file:
        _write_array(file, rows)


def _write_array(file: TextIO, rows: Iterable[Row]) -> None:
    before = "[\n"
    for row in rows:
        text = json.dumps(_shown(row), indent=2, ensure_ascii=False)
        file.write(before + "  " + text.replace("\n", "\n  "))
        before = ",\n"
    file.write("\n]\n" if before == ",\n" else "[]\n")


def _shown(row: Row) -> dict[str, Any]:
    return {
        "prompt_hash": b64encode(row.prompt_hash).decode(),
        "n_gen_tokens": row.count,
        "gen_tokens": json.loads(row.gen_tokens),
        "input_text": row.input_text,
        "generated": row.generated,
    }


def write_card(path: Path, about: About) -> None:
    """What the dataset is, in Markdown."""
    path.write_text(_CARD.format(**attrs.asdict(about), column=quoted(about.table)), "utf-8")


_CARD = """\
# {name}

Recorded answers for a simulated vLLM server. Each row answers one prompt: where a request has the same tokens as the
prompt, the server says the tokens of the row.

## Tokenizer

* Model: `{model}`
* Tokenizer: {tokenizer}
* Start the server with: `--model {model}{options} --dataset-path {name}.sqlite3 --dataset-table-name {table}`

Another tokenizer, or another chat template, gives a prompt other tokens, and then no row is found for it.

## Source

{source}

## Files

* `{name}.sqlite3`: what the server reads
* `{name}.json`: the same rows, with prompt and answer as text
* `{name}.md`: this card

## Fields

| field | meaning |
|---|---|
| `prompt_hash` | SHA-256 of the prompt's token ids, four bytes each, lowest byte first; base64 in the JSON file |
| `gen_tokens` | the answer: `Tokens`, its ids, and `Strings`, their texts |
| `n_gen_tokens` | how many there are |
| `input_text` | the prompt for people, JSON only: a completion's text, or a chat as `### user:` and `### assistant:` |
| `generated` | the answer's text, JSON only |

An example:

```json
{{
  "prompt_hash": "7X8w705PtMn0m7WfcYiMjIGFdjNI9p5lSuwrZvxAcoM=",
  "n_gen_tokens": 3,
  "gen_tokens": {{"Tokens": [2871118705, 933488787, 604802540], "Strings": ["Hello ", "world", "!"]}},
  "input_text": "Say hello.",
  "generated": "Hello world!"
}}
```

## Table

```sql
CREATE TABLE {column} (
    id INTEGER PRIMARY KEY,
    prompt_hash BLOB NOT NULL,
    gen_tokens JSON NOT NULL,
    n_gen_tokens INTEGER NOT NULL
);
```

```sql
SELECT n_gen_tokens, gen_tokens FROM {column} WHERE prompt_hash = x'...';
```

## Characteristics

Each answer of a conversation gives two rows: one for the human's text alone, as a text completion, and one for the
whole conversation so far, as a chat.

* Source records used: {records}
* Rows generated: {rows}
"""
