"""
Which source a server has: the prompt's echo, recorded answers, or preset sentences.

Files are downloaded and opened before anything is served; what that takes is imported only where there are any.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred

from llmdsim.config import Config
from llmdsim.dataset import Echo, Presets
from llmdsim.sim.author import Draft, Source
from llmdsim.sim.plan import Tokenizer
from llmdsim.sim.request import Prompt, Request, Tokens

if TYPE_CHECKING:
    from llmdsim.sqlite import Run, Table

Log = Callable[[str], None]
SHORTEST = 20  # tokens: a model's answers reach small limits, which strict clients rely on


class ByModel:
    """A source for some models, by the names that are shown, and one for all others."""

    filler = False

    def __init__(self, sources: Mapping[str, Source], others: Source) -> None:
        self._sources = sources
        self._others = others

    def draft(
        self, request: Request, prompt: Prompt, tokens: Tokens, limit: int, rng: Random
    ) -> Draft | Deferred[Draft]:
        """What the source of the request's model says."""
        source = self._sources.get(request.model.name, self._others)
        return source.draft(request, prompt, tokens, limit, rng)

    def compose(self, length: int, rng: Random) -> Tokens:
        """Text that was not recorded."""
        return self._others.compose(length, rng)


def choose_source(
    config: Config,
    tokenizer: Tokenizer,
    *,
    run: Run,
    at_end: Callable[[Callable[[], None]], object],
    log: Log,
    warn: Log,
) -> Source:
    """
    The source of a configuration. Raises ValueError, one line, where what was asked for cannot be had.

    ``run`` calls a function in the one thread that may read files; ``at_end`` is given what closes them when that
    thread has ended. A file that somebody is writing is not used, and that is the warning.
    """
    if config.mode == "echo":
        return Echo(tokenizer.encode)
    # The length model would often stay below a small limit.
    presets = Presets(tokenizer.encode, shortest=SHORTEST if config.strict else 1)
    if not config.dataset_path or config.mm_encoder_only:
        return presets
    from llmdsim.sqlite import Recorded, at_once

    tables = {name: _table(config, path, log, warn) for name, path in _files(config).items()}
    sources: dict[str, Source] = {}
    for name, table in tables.items():
        if table is not None:
            where = at_once if config.dataset_in_memory else run
            sources[name] = Recorded(table, presets.compose, tokenizer.decode, where)
            at_end(table.close)
    return sources[""] if "" in sources else ByModel(sources, presets) if sources else presets


def _files(config: Config) -> dict[str, Path]:
    """The files by the names of their models; one for all models is under the empty name."""
    value = config.dataset_path
    parts = [part.partition("=") for part in value.split(",")]
    if config.dataset_url or not all(equals for _, equals, _ in parts) or Path(value).exists():
        return {"": Path(value).expanduser()}
    shown = dict.fromkeys(config.served_model_name, config.display_name)
    return {shown.get(name, name): Path(path).expanduser() for name, _, path in parts}


def _table(config: Config, path: Path, log: Log, warn: Log) -> Table | None:
    """The table of a file; None, with a warning, where somebody is writing it."""
    from llmdsim.sqlite import Locked, open_copy, open_file

    _download(config.dataset_url, path, log)
    open_it = open_copy if config.dataset_in_memory else open_file
    try:
        table = open_it(path, config.dataset_table_name)
    except Locked as problem:
        warn(f"Dataset: {problem}; preset sentences are used instead")
        return None
    place = "in memory" if config.dataset_in_memory else "in its file"
    log(f"Dataset: {path}, {len(table.rows.ids)} rows, {place}")
    return table


def _download(url: str, path: Path, log: Log) -> None:
    if not url:
        return
    from llmdsim.download import DownloadError, fetch

    try:
        fetch(url, path, log)
    except DownloadError as problem:
        raise ValueError(str(problem)) from problem
