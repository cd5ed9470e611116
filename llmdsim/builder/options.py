"""
The options of ``llmdsim-dataset``: how they are written, and what is wrong with them.

The texts are those of the older simulator's tool.
"""

from __future__ import annotations

import json
import shlex
from argparse import SUPPRESS, ArgumentParser, ArgumentTypeError
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from llmdsim import __version__
from llmdsim.builder.outputs import ENDINGS
from llmdsim.progress import Log
from llmdsim.rows import TABLE

IGNORED = ("render-url", "render-timeout", "mm-render-timeout")


@attrs.frozen
class Options:
    """The options of one build, named as its flags."""

    model: str = ""
    tokenizer: str = ""
    force_dummy_tokenizer: bool = False
    chat_template: str = ""
    default_chat_template_kwargs: Mapping[str, Any] = attrs.field(factory=dict)
    hf_repo: str = ""
    local_path: str = ""
    input_file: str = ""
    output_path: str = "."
    output_file: str = "inference-sim-dataset"
    table_name: str = TABLE
    max_records: int = 10000

    def output(self, ending: str) -> Path:
        """One of the files that are written."""
        return Path(self.output_path) / f"{self.output_file}{ending}"


def wrong(options: Options) -> str:
    """What is wrong with options, or nothing."""
    exists = next((path for path in map(options.output, ENDINGS) if path.exists()), None)
    for broken, text in (
        (not options.model, "--model is not defined"),
        (not options.hf_repo and not options.local_path, "either --hf-repo or --local-path must be specified"),
        (options.hf_repo and options.local_path, "specify only one of --hf-repo or --local-path"),
        (options.hf_repo and not options.input_file, "--hf-repo defined but --file is empty"),
        (options.local_path and not options.input_file, "--local-path defined but --file is empty"),
        (not options.table_name, "--table-name is empty"),
        (options.max_records < 0, "--max-records cannot be negative"),
        (exists and not options.output(".work").exists(), f"output file already exists: {exists}"),
    ):
        if broken:
            return text
    return ""


def server_options(options: Options) -> str:
    """What changes the tokens of a prompt, as a server's command line says it."""
    template = options.default_chat_template_kwargs
    words = ["--force-dummy-tokenizer"] if options.force_dummy_tokenizer else []
    for name, value in (
        ("tokenizer", options.tokenizer),
        ("chat-template", options.chat_template),
        ("default-chat-template-kwargs", json.dumps(template, sort_keys=True) if template else ""),
    ):
        words += [f"--{name}", shlex.quote(value)] if value else []
    return "".join(f" {word}" for word in words)


def parse(argv: Sequence[str], log: Log) -> Options:
    """The options that a command line gives; argparse ends the process where it cannot be read, or asks for help."""
    parser = ArgumentParser(
        "llmdsim-dataset", description="Make a dataset for llmdsim of ShareGPT conversations.", allow_abbrev=False
    )
    for flag, help in _HELP.items():
        field = attrs.fields_dict(Options)[flag.replace("-", "_")]
        more = [f"--{alias}" for alias in _ALIASES.get(flag, ())]
        if field.default is False:
            parser.add_argument(f"--{flag}", *more, action="store_true", help=help)
        else:
            parser.add_argument(f"--{flag}", *more, dest=field.name, type=_KINDS.get(flag, str), help=help)
    for flag in IGNORED:
        parser.add_argument(f"--{flag}", help=SUPPRESS)
    parser.add_argument("--version", action="version", version=__version__)
    given = {name: value for name, value in vars(parser.parse_args(argv)).items() if value is not None}
    for flag in IGNORED:
        if given.pop(flag.replace("-", "_"), None):
            log(f"--{flag} is ignored: the prompts are tokenized here")
    return Options(**given)


def _members(written: str) -> Mapping[str, Any]:
    try:
        value = json.loads(written)
    except ValueError as error:
        raise ArgumentTypeError(f"not JSON: {error}") from None
    if not isinstance(value, dict):
        raise ArgumentTypeError("expected a JSON object")
    return value


_KINDS: Mapping[str, Callable[[str], Any]] = {"max-records": int, "default-chat-template-kwargs": _members}
_ALIASES = {"input-file": ("file",), "default-chat-template-kwargs": ("chat-template-kwargs",)}
_HELP = {
    "model": "the model that will be served (required)",
    "tokenizer": "directory or name of its tokenizer, as for the server",
    "force-dummy-tokenizer": "use the simulated tokenizer, as for the server",
    "chat-template": "file or text of a Jinja template, as for the server",
    "default-chat-template-kwargs": "JSON object of variables for the chat template, as for the server",
    "local-path": "directory of the input file",
    "hf-repo": "Hugging Face dataset OWNER/NAME to download the input file from, instead",
    "input-file": "JSON array, or JSON objects one a line: {'conversations': [{'from': 'human', 'value': ...}, ...]}",
    "output-path": "directory of the dataset [.]",
    "output-file": "its name without ending [inference-sim-dataset]",
    "table-name": f"SQLite table [{TABLE}]",
    "max-records": "conversations to read [10000]",
}
