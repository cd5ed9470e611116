"""
The ``llmdsim-dataset`` command: the order of the work.
"""

from __future__ import annotations

import json
import os
import sqlite3
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from typing import Any, TextIO
from urllib.parse import quote

import attrs

from llmdsim import __version__
from llmdsim.builder.conversations import Record, read
from llmdsim.builder.options import Options, parse, server_options, wrong
from llmdsim.builder.outputs import ENDINGS, About, write_card, write_json, write_sqlite
from llmdsim.builder.work import Work
from llmdsim.builder.writing import Writer
from llmdsim.download import DownloadError, fetch
from llmdsim.progress import Log, Progress, progress
from llmdsim.simulated import Simulated
from llmdsim.tokenizer import choose, read_template

HUB = "https://huggingface.co"
SAVED_EVERY = 200  # records


def main(argv: Sequence[str] | None = None) -> int:
    """Build a dataset; the exit status is 0, or 1 after one line that says what is wrong."""

    def log(text: str) -> None:
        sys.stderr.write(f"llmdsim-dataset: {text}\n")

    options = parse(sys.argv[1:] if argv is None else argv, log)
    problem = wrong(options)
    if problem:
        log(f"invalid configuration: {problem}")
        return 1
    try:
        rows = build(options, os.environ, log, sys.stderr)
    except KeyboardInterrupt:
        log("interrupted; the same command goes on from here")
        return 130
    except (ValueError, OSError, sqlite3.Error, DownloadError) as error:
        log(" ".join(str(error).split()))
        return 1
    log(f"{rows} rows in {options.output('.sqlite3')}")
    return 0


def build(options: Options, environ: Mapping[str, str], log: Log, stream: TextIO) -> int:
    """
    Write the three files; how many rows they have.

    What is interrupted goes on when the same is asked for again. Raises ValueError, OSError and DownloadError.
    """
    Path(options.output_path).mkdir(parents=True, exist_ok=True)
    source = _download(options, environ, log) if options.hf_repo else Path(options.local_path, options.input_file)
    records = read(source, options.max_records)
    tokenizer = choose(
        model=options.model,
        tokenizer=options.tokenizer,
        force_simulated=options.force_dummy_tokenizer,
        environ=environ,
        chat_template=options.chat_template,
        log=log,
    )
    writer = Writer(tokenizer, options.default_chat_template_kwargs, log)
    purpose = _purpose(options, source, [type(tokenizer).__name__, tokenizer.vocab_size, tokenizer.eos])
    with closing(Work(options.output(".work"), purpose)) as work:
        _tokenize(records, writer, work, progress("Tokenized", len(records), "records", log, stream, work.records))
        rows = _publish(options, work, "simulated" if isinstance(tokenizer, Simulated) else "the model's own")
    if options.hf_repo:
        source.unlink()
    return rows


def _tokenize(records: Sequence[Record], writer: Writer, work: Work, shown: Progress) -> None:
    with closing(shown):
        for record in records[work.records :]:
            work.add(writer.rows(record))
            shown.add(1)
            if work.records % SAVED_EVERY == 0:
                work.save()
    work.save()


def _publish(options: Options, work: Work, tokenizer: str) -> int:
    """Write all files under other names first; how many rows they have."""
    count = work.count()
    if not count:
        work.drop()
        raise ValueError("the input has no answer to learn: no rows")
    unfinished = {ending: options.output(f"{ending}.tmp") for ending in ENDINGS}
    write_sqlite(unfinished[".sqlite3"], options.table_name, work.rows())
    write_json(unfinished[".json"], work.rows())
    write_card(unfinished[".md"], _about(options, tokenizer, work.records, count))
    for ending, path in unfinished.items():
        path.replace(options.output(ending))
    work.drop()
    return count


def _about(options: Options, tokenizer: str, records: int, rows: int) -> About:
    return About(
        name=options.output_file,
        model=options.model,
        tokenizer=tokenizer,
        options=server_options(options),
        source=_source(options),
        table=options.table_name,
        records=records,
        rows=rows,
    )


def _source(options: Options) -> str:
    if options.hf_repo:
        return f"[{options.hf_repo}]({HUB}/datasets/{options.hf_repo}), file `{options.input_file}`"
    return f"The file `{Path(options.input_file).name}`"


def _purpose(options: Options, source: Path, tokenizer: Sequence[Any]) -> str:
    """What tells one piece of work from another: whatever its rows depend on."""
    said = attrs.asdict(options) | {"output_path": "", "output_file": "", "table_name": ""}
    said["chat_template"] = read_template(options.chat_template)
    depends = json.dumps([__version__, tokenizer, said], sort_keys=True)
    return sha256(depends.encode() + sha256(source.read_bytes()).digest()).hexdigest()


def _download(options: Options, environ: Mapping[str, str], log: Log) -> Path:
    endpoint = environ.get("HF_ENDPOINT") or HUB
    token = environ.get("HF_TOKEN") if endpoint == HUB else None
    secrets = {"Authorization": f"Bearer {token}"} if token else {}
    path = options.output(".input")
    url = f"{endpoint}/datasets/{options.hf_repo}/resolve/main/{quote(options.input_file)}"
    fetch(url, path, log, check=lambda path: None, secrets=secrets)
    return path
