"""
``/v2/embed``: Cohere's way of asking for embeddings.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from llmdsim.api.encoding import octets
from llmdsim.api.gated import COMPONENTS
from llmdsim.api.parts import dumps
from llmdsim.api.pooled import Head, Reading
from llmdsim.api.sampling import given, refuse
from llmdsim.config import Config
from llmdsim.sim.request import Conversation, Prompt
from llmdsim.sim.vectors import Values

REQUEST = "CohereEmbedRequest"
_NULL = {"type": "null"}
_INT = {"anyOf": [{"type": "integer"}, _NULL]}
_TEXT = {"anyOf": [{"type": "string"}, _NULL]}
_TEXTS = {"anyOf": [{"type": "array", "items": {"type": "string"}}, _NULL]}
_TYPES = {"type": "array", "items": {"type": "string", "enum": ["float", "binary", "ubinary", "base64"]}}
_URL = {"anyOf": [{"type": "object", "additionalProperties": {"type": "string"}}, _NULL]}


def _model(required: Sequence[str] = (), **fields: Any) -> dict[str, Any]:
    return {"type": "object", "properties": fields, "required": list(required)}


_PART = _model(["type"], type={"type": "string", "enum": ["text", "image_url"]}, text=_TEXT, image_url=_URL)
_INPUT = _model(["content"], content={"type": "array", "items": _PART})
COMPONENTS[REQUEST] = _model(
    model=_TEXT,
    input_type=_TEXT,
    texts=_TEXTS,
    images=_TEXTS,
    inputs={"anyOf": [{"type": "array", "items": _INPUT}, _NULL]},
    output_dimension=_INT,
    embedding_types={"anyOf": [_TYPES, _NULL]},
    truncate={"type": "string", "enum": ["NONE", "START", "END"]},
    max_tokens=_INT,
    priority={"type": "integer"},
)


def prompts(body: Mapping[str, Any], config: Config, model: str) -> tuple[Prompt, ...]:
    """What a checked body asks about; at least one prompt."""
    kind, texts, inputs = body.get("input_type"), body.get("texts"), body.get("inputs")
    if body.get("images") is not None:
        raise refuse(f"{model} is not a multimodal model")
    if texts is None and inputs is None:
        raise refuse("One of texts, images, or inputs must be provided")
    if kind is not None and config.strict:
        raise refuse(f"Unsupported input_type {kind!r}. This model does not define any input_type task instructions.")
    found = tuple(map(_conversation, inputs or ())) if texts is None else tuple(texts)
    if not found:
        raise refuse("You must pass at least one prompt")
    return found


def reading(body: Mapping[str, Any], config: Config) -> Reading:
    """How the prompts are read: Cohere cuts what is too long, unless it is told not to."""
    side = given(body, "truncate", "END")
    if side == "NONE":
        return Reading()
    window = config.max_model_len
    return Reading(keep=min(given(body, "max_tokens", window), window), left=side == "START")


def embedded(head: Head, vectors: Sequence[Values], tokens: int, body: Mapping[str, Any]) -> bytes:
    """The answer: every vector in each of the wanted types."""
    wanted = body.get("embedding_types") or ["float"]
    answer = {
        "id": head.id,
        "embeddings": {name: [write(each) for each in vectors] for name, write in _WRITERS.items() if name in wanted},
        "texts": body.get("texts"),
        "meta": {"api_version": {"version": "2"}, "billed_units": {"input_tokens": tokens, "image_tokens": 0}},
        "response_type": "embeddings_by_type",
    }
    return dumps({name: value for name, value in answer.items() if value is not None})


def _conversation(wanted: Mapping[str, Any]) -> Conversation:
    return Conversation([{"role": "user", "content": wanted["content"]}], (), False)


def _bits(values: Values) -> list[int]:
    """Signs, eight to a byte, the first one in the highest bit."""
    if len(values) % 8:
        raise refuse(f"Embedding dimension {len(values)} is not divisible by 8, required for binary embedding types.")
    signs = "".join(["1" if value >= 0 else "0" for value in values])
    return [*int(signs, 2).to_bytes(len(values) // 8, "big")]


_WRITERS: dict[str, Callable[[Values], Any]] = {
    "float": lambda values: values,
    "binary": lambda values: [byte - 128 for byte in _bits(values)],
    "ubinary": _bits,
    "base64": lambda values: b64encode(octets(values, "float32", "little")).decode(),
}
