"""
What one row of a dataset holds, read and written as the older simulator's tool does.

A row answers one prompt: the hash of the prompt's tokens, and the tokens of the answer as JSON.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from hashlib import sha256
from typing import Any

import orjson

from llmdsim.sim.fnv import fnv1a
from llmdsim.sim.messages import content_text
from llmdsim.sim.request import Conversation, Prompt, Tokens

COLUMNS = {"id": "INTEGER", "prompt_hash": "BLOB", "gen_tokens": "JSON", "n_gen_tokens": "INTEGER"}
TABLE = "llmd"
OLDER_ROLES = ("user", "assistant")
LARGEST = 0xFFFFFFFF  # an id has 32 bits


def quoted(name: str) -> str:
    """A name as SQL writes it, whatever is in it."""
    return '"' + name.replace('"', '""') + '"'


def prompt_hash(ids: Sequence[int]) -> bytes | None:
    """SHA-256 of the ids, four bytes each, lowest first; None where an id does not fit into four bytes."""
    try:
        return sha256(struct.pack(f"<{len(ids)}I", *ids)).digest()
    except struct.error:
        return None


def hashes(prompt: Prompt, ids: Sequence[int]) -> Iterator[bytes]:
    """What a row for this prompt may be found under: its tokens' hash first, then the older one of its text."""
    hash = prompt_hash(ids)
    if hash is not None:
        yield hash
    text = older_text(prompt)
    if text is not None:
        yield sha256(text.encode("utf-8", "replace")).digest()


def older_text(prompt: Prompt) -> str | None:
    """The text that the simulator's version 0.6 hashed; None for a prompt of ids."""
    if isinstance(prompt, str):
        return f"### user:\n{prompt}\n"
    if isinstance(prompt, Conversation):
        return older_chat(prompt.messages)
    return None


def older_chat(messages: Iterable[Mapping[str, Any]]) -> str:
    """A chat as that version wrote it."""
    return "".join(f"### {_older_role(message)}:\n{content_text(message)}\n" for message in messages)


def _older_role(message: Mapping[str, Any]) -> str:
    role = message.get("role") if isinstance(message, Mapping) else None
    return str(role) if role in OLDER_ROLES else "unknown"


def write_tokens(tokens: Tokens) -> bytes:
    """``gen_tokens`` as Go marshals it."""
    return orjson.dumps({"Tokens": list(tokens.ids), "Strings": list(tokens.texts)})


def read_tokens(raw: Any, decode: Callable[[Sequence[int]], str]) -> Tokens:
    """
    The answer that a ``gen_tokens`` holds, of any age: an object of ids and texts, or a plain array of texts.

    ``decode`` gives ids without texts theirs. Raises ValueError.
    """
    ids, texts = _members(orjson.loads(raw))
    if not all(type(id) is int and 0 <= id <= LARGEST for id in ids):
        raise ValueError("a token's id is no integer of 32 bits")
    if not all(type(text) is str for text in texts):
        raise ValueError("a token's text is no string")
    if ids and texts and len(ids) != len(texts):
        raise ValueError(f"{len(ids)} ids, but {len(texts)} texts")
    return Tokens(ids or [*map(fnv1a, texts)], texts or [decode([id]) for id in ids])


def _members(value: Any) -> tuple[list[Any], list[Any]]:
    if isinstance(value, list):
        return [], value
    if not isinstance(value, dict):
        raise ValueError("neither an object nor an array")
    members = {key.lower(): member for key, member in value.items()}  # as Go reads its own
    if not members.keys() & {"tokens", "numbers", "strings"}:
        raise ValueError("an object without Tokens and Strings")
    ids, texts = members.get("tokens") or members.get("numbers") or [], members.get("strings") or []
    if not isinstance(ids, list) or not isinstance(texts, list):
        raise ValueError("Tokens or Strings is no array")
    return ids, texts
