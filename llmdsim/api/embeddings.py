"""
``/v1/embeddings`` and ``/pooling``: what is asked for, and vectors to answers in each ``encoding_format``.
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Mapping, Sequence
from itertools import accumulate, chain
from typing import Any, NamedTuple

from llmdsim.api.encoding import octets
from llmdsim.api.parts import dumps
from llmdsim.api.pooled import Head, listing
from llmdsim.api.sampling import given, refuse
from llmdsim.config import Config
from llmdsim.sim.vectors import TASKS, Values

MOST_DIMENSIONS = 8192
MOST_VALUES = 1 << 23  # in one answer, which is built in memory
# What the one model that vLLM's pooling server has can do: it embeds.
EMBED_TASKS = ("embed", "token_embed")
NO_PLUGIN = (
    "No IOProcessor plugin installed. Please refer to the documentation and to the "
    "'prithvi_geospatial_mae_io_processor' offline inference example for more details."
)

Vectors = Sequence["Values | list[Values]"]


class Kind(NamedTuple):
    """What an answer calls its items, and the field of their values."""

    object: str
    field: str


EMBEDDING = Kind("embedding", "embedding")
POOLING = Kind("pooling", "data")


class Packed(NamedTuple):
    """A whole answer; ``metadata`` is the header that tells what the bytes of a binary one mean."""

    body: bytes
    content_type: bytes = b"application/json"
    metadata: bytes | None = None


def dimensions(asked: int | None, config: Config, model: str) -> int:
    """How long the vectors are; strict vLLM has no model here that could shorten them. Raises Fault(BAD_REQUEST)."""
    if asked is None:
        return config.default_embedding_dimensions
    if config.strict:
        raise refuse(
            f"Model '{model}' does not support Matryoshka embeddings; dimensions must be unset "
            f"(received dimensions={asked})."
        )
    most = max(MOST_DIMENSIONS, config.default_embedding_dimensions)
    if asked < 1:
        raise refuse("dimensions must be at least 1")
    if asked > most:
        raise refuse(f"dimensions must be at most {most}, got {asked}")
    return asked


def pooling_task(body: Mapping[str, Any], config: Config) -> str:
    """What ``/pooling`` shall do. Raises Fault(BAD_REQUEST) for what the model cannot."""
    if "data" in body and "input" not in body and "messages" not in body:
        raise refuse(NO_PLUGIN)
    task: str = given(body, "task", "embed")
    known = EMBED_TASKS if config.strict else TASKS
    if task not in known:
        raise refuse(f"Unsupported task: {task!r} Supported tasks: {list(known)}")
    return task


def activated(body: Mapping[str, Any], config: Config, task: str) -> bool:
    """Whether values are normalized: labels always, embeddings in strict mode, and whatever the body wants."""
    # The older simulator's vectors have no fixed length, and its users know their values.
    wanted: bool = given(body, "use_activation", config.strict or "classify" in task)
    return wanted


def check_size(count: int, length: int) -> None:
    """Refuse what would not fit into memory: ``count`` vectors of ``length`` values."""
    if count * length > MOST_VALUES:
        raise refuse(f"The answer would have {count * length} values (at most {MOST_VALUES})")


def packed(kind: Kind, head: Head, vectors: Vectors, sizes: Sequence[int], body: Mapping[str, Any]) -> Packed:
    """The answer to a body; ``sizes`` are the tokens of each prompt."""
    return _FORMATS[given(body, "encoding_format", "float")](kind, head, vectors, sizes, body)


def _floats(kind: Kind, head: Head, vectors: Vectors, sizes: Sequence[int], body: Mapping[str, Any]) -> Packed:
    return _items(kind, head, vectors, sizes)


def _base64(kind: Kind, head: Head, vectors: Vectors, sizes: Sequence[int], body: Mapping[str, Any]) -> Packed:
    return _items(kind, head, [b64encode(_octets(values, body)).decode() for values in vectors], sizes)


def _items(kind: Kind, head: Head, values: Sequence[Any], sizes: Sequence[int]) -> Packed:
    data = [{"index": i, "object": kind.object, kind.field: each} for i, each in enumerate(values)]
    return Packed(dumps(listing(head, data, sum(sizes))))


def _bytes_only(kind: Kind, head: Head, vectors: Vectors, sizes: Sequence[int], body: Mapping[str, Any]) -> Packed:
    return Packed(b"".join([_octets(values, body) for values in vectors]), b"application/octet-stream")


def _bytes(kind: Kind, head: Head, vectors: Vectors, sizes: Sequence[int], body: Mapping[str, Any]) -> Packed:
    pieces = [_octets(values, body) for values in vectors]
    ends = [*accumulate(map(len, pieces))]
    dtype, endianness = _layout(body)
    data = [
        {
            "index": i,
            "embed_dtype": dtype,
            "endianness": endianness,
            "start": end - len(piece),
            "end": end,
            "shape": _shape(values),
        }
        for i, (piece, end, values) in enumerate(zip(pieces, ends, vectors, strict=True))
    ]
    usage = {"prompt_tokens": sum(sizes), "total_tokens": sum(sizes)}
    metadata = {"id": head.id, "created": head.created, "model": head.model, "data": data, "usage": usage}
    return Packed(b"".join(pieces), b"application/octet-stream", json.dumps(metadata).encode())


_FORMATS = {"float": _floats, "base64": _base64, "bytes": _bytes, "bytes_only": _bytes_only}


def _layout(body: Mapping[str, Any]) -> tuple[str, str]:
    return given(body, "embed_dtype", "float32"), given(body, "endianness", "native")


def _octets(values: Any, body: Mapping[str, Any]) -> bytes:
    flat = list(chain.from_iterable(values)) if len(_shape(values)) == 2 else values
    return octets(flat, *_layout(body))


def _shape(values: Any) -> list[int]:
    return [len(values), len(values[0])] if isinstance(values[0], list) else [len(values)]
