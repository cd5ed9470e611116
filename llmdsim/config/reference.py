"""The table of flags for people: the text of ``--help`` and the page ``docs/flags.rst``."""

from __future__ import annotations

import json
import shutil
import textwrap
from collections.abc import Iterable, Iterator
from itertools import groupby

from llmdsim.config import ignored
from llmdsim.config.argv import MANY, SWITCH
from llmdsim.config.flags import Flag

_INDENT = 8
_OPENING = """\
Flags
=====

.. Written by ``python -m llmdsim.config > docs/flags.rst``; edit the tables in ``llmdsim/*_flags.py`` instead.

Each flag is also a key of the YAML file given with ``--config``. A flag on the command line beats its environment
variable, which beats the file, which beats the default. ``--name value`` and ``--name=value`` are the same, and so
are ``_`` and ``-``. A toggle is turned off with ``--no-name`` or ``--name=false``, and where it is called
``enable-x`` with ``--disable-x``. A list takes all words up to the next flag. A duration is written as in Go
(``1.5s``, ``250us``), or as a number of milliseconds. An integer may end in ``k`` (1000) or ``K`` (1024) and so on.
A member of a JSON flag may be given by itself: ``--name.member value``. The first word that belongs to no flag is the
model, so ``llmdsim serve MODEL --port 8000`` does what ``vllm serve`` does.
"""


def usage(flags: Iterable[Flag], width: int = 0) -> str:
    """The text of ``--help``; without a width, the terminal's."""
    width = width or min(shutil.get_terminal_size((100, 24)).columns, 120)
    lines = ["Usage: llmdsim [serve] [MODEL] [flags]", "  -h, --help: this text; --version: the version"]
    for group, rows in groupby(flags, lambda row: row.group):
        lines += ["", f"{group}:"]
        for row in rows:
            lines += [f"  {_syntax(row)}", *_wrapped(_sentence(row), width)]
    closing = "All other flags of vLLM 0.33 are accepted and ignored. Durations: 1.5s, 250us, or milliseconds."
    return "\n".join([*lines, "", *textwrap.wrap(closing, width)]) + "\n"


def _wrapped(sentence: str, width: int) -> list[str]:
    margin = " " * _INDENT
    return textwrap.wrap(sentence, max(width, 40), initial_indent=margin, subsequent_indent=margin)


def _syntax(row: Flag) -> str:
    if row.kind.takes == SWITCH:
        return f"--[no-]{row.name}"
    word = row.kind.name if "|" in row.kind.name else row.kind.name.upper()
    return f"--{row.name} WORD ..." if row.kind.takes == MANY else f"--{row.name} {word}"


def _sentence(row: Flag) -> str:
    return "; ".join([row.help, *_remarks(row)]) + _default(row, " [{}]")


def _remarks(row: Flag) -> Iterator[str]:
    if row.env:
        yield f"environment: {row.env}"
    if row.live:
        yield "may change while serving"
    if row.later:
        yield "without effect in this release"


def _default(row: Flag, form: str) -> str:
    """The default as it would be written, unless it is nothing."""
    shown = row.kind.show(row.default)
    if shown in (None, "", False):
        return ""
    return form.format(shown if isinstance(shown, str) else json.dumps(shown))


def manual(flags: Iterable[Flag]) -> str:
    """The reference of all flags, in reStructuredText."""
    parts = [_OPENING]
    for group, rows in groupby(flags, lambda row: row.group):
        parts += [f"\n{group}\n{'-' * len(group)}\n", *map(_entry, rows)]
    parts.append(_idle("Accepted and ignored", [*ignored.IGNORED, *ignored.LOGGING]))
    parts.append(_idle("Removed or deprecated, ignored", ignored.RETIRED))
    return "".join(parts)


def _entry(row: Flag) -> str:
    text = row.help[0].upper() + ". ".join([row.help, *(note[0].upper() + note[1:] for note in _remarks(row))])[1:]
    kind = row.kind.name.replace("|", "``, ``")
    kind = f"``{kind}``" if "``" in kind else kind
    head = f"\n``--{row.name}`` ({kind}{_default(row, ', default ``{}``')})"
    return f"{head}\n{textwrap.fill(text, 118, initial_indent='    ', subsequent_indent='    ')}.\n"


def _idle(heading: str, names: Iterable[str]) -> str:
    listed = textwrap.fill(", ".join(f"``--{name}``" for name in sorted(names)), 118, break_on_hyphens=False)
    return f"\n{heading}\n{'-' * len(heading)}\n\n{listed}\n"
