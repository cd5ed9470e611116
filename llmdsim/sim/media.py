"""
Features of media parts, made up: a hash and a stretch of the prompt's tokens for each image, audio and video.

They are the older simulator's, so whoever compares hashes across both finds the same.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from llmdsim.sim.fnv import fnv1a
from llmdsim.sim.messages import blocks

PREFIXES = {"image": "img", "audio": "audio", "video": "video"}
# Type of a part -> its modality, the field that holds it, and the key of the content where that is an object.
_PARTS = {
    "image_url": ("image", "image_url", "url"),
    "input_image": ("image", "image_url", "url"),
    "input_audio": ("audio", "input_audio", "data"),
    "audio_url": ("audio", "audio_url", "url"),
    "video_url": ("video", "video_url", "url"),
}


class Medium(NamedTuple):
    """One media part: ``content`` is its URL or its data, as the client wrote it."""

    modality: str
    content: str


def media(messages: Sequence[Mapping[str, Any]]) -> list[Medium]:
    """The media parts of all messages, in order; empty ones are passed over."""
    found = (_medium(block) for message in messages for block in blocks(message))
    return [medium for medium in found if medium is not None]


def features(found: Sequence[Medium], tokens: int, payload: bool = True) -> dict[str, dict[str, list[Any]]] | None:
    """
    What a prompt of so many tokens tells of its media, each list in their order; None where there are none.

    ``payload`` adds ``kwargs_data``, what an engine without the media would work on (base64).
    """
    if not found:
        return None
    hashes = list(_hashes(found))
    span = max(tokens // len(found), 1)
    shown = {
        "mm_hashes": _grouped(found, hashes),
        "mm_placeholders": _grouped(found, [_place(i * span, span, tokens) for i in range(len(found))]),
    }
    if payload:
        shown["kwargs_data"] = _grouped(found, [b64encode(each.encode()).decode() for each in hashes])
    return shown


def spans(found: Sequence[Medium], tokens: int) -> list[tuple[str, int, int]]:
    """Identifier, offset and length in tokens of each media part of a prompt of so many tokens."""
    span = max(tokens // len(found), 1) if found else 0
    places = (_place(i * span, span, tokens) for i in range(len(found)))
    return [(name, place["offset"], place["length"]) for name, place in zip(_hashes(found), places, strict=True)]


def _hashes(found: Sequence[Medium]) -> Iterator[str]:
    counts = dict.fromkeys(PREFIXES, 0)
    for medium in found:
        yield f"sim_{PREFIXES[medium.modality]}_{counts[medium.modality]}_{fnv1a(medium.content):x}"
        counts[medium.modality] += 1


def _place(wanted: int, span: int, tokens: int) -> dict[str, int]:
    offset = max(min(wanted, tokens - 1), 0)
    return {"offset": offset, "length": max(min(span, tokens - offset), 1)}


def _grouped(found: Sequence[Medium], values: Sequence[Any]) -> dict[str, list[Any]]:
    groups: dict[str, list[Any]] = {}
    for medium, value in zip(found, values, strict=True):
        groups.setdefault(medium.modality, []).append(value)
    return groups


def _medium(block: Any) -> Medium | None:
    kind = block.get("type") if isinstance(block, Mapping) else None
    if not isinstance(kind, str) or kind not in _PARTS:
        return None
    modality, field, key = _PARTS[kind]
    value = block.get(field)
    content = value.get(key) if isinstance(value, Mapping) else value
    return Medium(modality, content) if isinstance(content, str) and content else None
