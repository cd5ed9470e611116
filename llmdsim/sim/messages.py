"""
Chat messages as text: what echo mode repeats, and what is tokenized where a model has no chat template.

Messages are taken as JSON has them; whatever has an unexpected shape contributes nothing and never fails.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from zlib import crc32

TEXT = (None, "text", "input_text", "output_text")
IMAGE = ("image_url", "input_image")


def content_text(message: Mapping[str, Any]) -> str:
    """The text blocks of a message and ``image: URL`` for its images, one a line; other media are silent."""
    return _lines(message, _image)


def prompt_text(message: Mapping[str, Any]) -> str:
    """The same as a prompt has it: an image in a ``data:`` URL is its checksum, for no model reads base64."""
    return _lines(message, _glimpse)


def plain_text(message: Mapping[str, Any]) -> str:
    """The text blocks of a message, one a line."""
    return "\n".join(text for text in map(text_of, blocks(message)) if text is not None)


def calls_text(message: Mapping[str, Any]) -> str:
    """The tool calls of a message, each as ``[NAME(ARGUMENTS)]``."""
    functions = [_object(call.get("function")) for call in _objects(_object(message).get("tool_calls"))]
    return "".join(f"[{_string(f.get('name'))}({_arguments(f.get('arguments'))})]" for f in functions)


def echo_text(message: Mapping[str, Any]) -> str:
    """What echo mode answers to a message: its content, then its tool calls."""
    return content_text(message) + calls_text(message)


def transcript(messages: Sequence[Mapping[str, Any]]) -> str:
    """A chat as ``### ROLE(TOOL_CALL_ID): CONTENT[NAME(ARGUMENTS)]`` lines: the prompt where there is no template."""
    return "".join(f"### {_speaker(_object(m))}: {prompt_text(m)}{calls_text(m)}\n" for m in messages)


def blocks(message: Mapping[str, Any]) -> list[Any]:
    """The content of a message as a list of blocks: strings and objects."""
    content = _object(message).get("content")
    if isinstance(content, (str, Mapping)):
        return [content]
    return list(content) if isinstance(content, (list, tuple)) else []


def text_of(block: Any) -> str | None:
    """The text of a text block or bare string; None for any other block."""
    if isinstance(block, str):
        return block
    text = _object(block).get("text")
    return text if isinstance(text, str) and _object(block).get("type") in TEXT else None


def _lines(message: Mapping[str, Any], image: Callable[[Any], str | None]) -> str:
    return "\n".join(line for block in blocks(message) for line in (text_of(block), image(block)) if line is not None)


def _glimpse(block: Any) -> str | None:
    line = _image(block)
    if line is None or not line.startswith("image: data:"):
        return line
    kind, _, data = line.partition(",")
    return f"{kind},{crc32(data.encode(errors='surrogatepass')):08x}"


def _image(block: Any) -> str | None:
    if _object(block).get("type") not in IMAGE:
        return None
    image = block.get("image_url")
    url = image.get("url") if isinstance(image, Mapping) else image
    return f"image: {url}" if isinstance(url, str) and url else None


def _speaker(message: Mapping[str, Any]) -> str:
    call = _string(message.get("tool_call_id"))
    return _string(message.get("role")) + (f"({call})" if call else "")


def _arguments(value: Any) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    except RecursionError:  # orjson reads deeper than json writes
        return ""


def _string(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _objects(value: Any) -> list[Mapping[str, Any]]:
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, (list, tuple)) else []
