"""
Request bodies against vLLM's own schema: read as FastAPI reads them, checked and refused as pydantic does.

The schema is compiled once a component; the rules of single parameters beyond their type are the dialects'.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from http import HTTPStatus
from typing import Any

import orjson

from llmdsim.api.compiling import component, openapi
from llmdsim.api.gated import UNIONS
from llmdsim.api.invalid import Error, Loc, invalid, problem
from llmdsim.api.oddities import filled
from llmdsim.api.scalars import Check
from llmdsim.api.shapes import no_dict, union
from llmdsim.faults import INVALID_BODY, Fault

__all__ = ["check", "check_any", "document", "invalid", "read_json"]

_BODY: Loc = ("body",)
_UNREADABLE = "There was an error parsing the body"
# Every byte as itself where it is a digit, else as a blank: orjson makes a float of an integer beyond 64 bits.
_DIGITS = bytes(48 if 48 <= byte <= 57 else 32 for byte in range(256))
_LONG = b"0" * 19
_ITERATED = frozenset(("ChatCompletionRequest", "TokenizeChatRequest", "BatchChatCompletionRequest"))
# Statuses that vLLM sends and its document keeps silent about.
_SENT = {
    "/invocations": ("404",),
    "/v1/responses/{response_id}": ("400", "404"),
    "/v1/responses/{response_id}/cancel": ("400", "404"),
}
_REFUSED = {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/ErrorResponse"}}}}
_CALLS = "ChatCompletionMessageFunctionToolCallParam", "ChatCompletionMessageCustomToolCallParam"


def read_json(raw: bytes, content_type: str | None) -> Any:
    """The value of a JSON body; Fault (400) for another media type, an empty body and bad JSON, with vLLM's texts."""
    media_type = (content_type or "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise invalid(["Unsupported Media Type: Only 'application/json' is allowed"])
    if not raw:
        raise _missing()
    if _LONG not in raw.translate(_DIGITS):
        try:
            return orjson.loads(raw)
        except orjson.JSONDecodeError:
            pass
    return _read_slowly(raw)


def check(name: str, body: object) -> dict[str, Any]:
    """
    The body of a component (``"ChatCompletionRequest"``), coerced as pydantic does; the same object where nothing was.

    ``name`` may also be a union that vLLM has a name for: ``"EmbeddingRequest"``.  Raises Fault (400) for a body that
    vLLM would refuse.
    """
    return check_any(UNIONS.get(name, (name,)), body)


def check_any(names: Sequence[str], body: object) -> dict[str, Any]:
    """The body as the first of these components that takes it; Fault with the errors of all, in their order."""
    if body is None:
        raise _missing()
    try:
        return _checked(names, body)
    except RecursionError:
        raise Fault(INVALID_BODY, _UNREADABLE) from None


def document(paths: Iterable[str]) -> dict[str, Any]:
    """
    vLLM's OpenAPI document restricted to these paths, in its own order; paths that it does not know are left out.

    Refusals that are sent and that it does not mention are added.
    """
    whole, wanted = openapi(), frozenset(paths)
    kept = {path: _honest(item, _SENT.get(path, ())) for path, item in whole["paths"].items() if path in wanted}
    schemas = whole["components"]["schemas"]
    found: set[str] = set()
    _follow(kept, schemas, found)
    return {**whole, "paths": kept, "components": {"schemas": {n: s for n, s in schemas.items() if n in found}}}


def _honest(item: dict[str, Any], statuses: Sequence[str]) -> dict[str, Any]:
    """A path's item, whose operations answer these statuses too."""
    sent = {status: {"description": HTTPStatus(int(status)).phrase, **_REFUSED} for status in statuses}
    return {method: {**told, "responses": {**told["responses"], **sent}} for method, told in item.items()}


def _checked(names: Sequence[str], body: object) -> dict[str, Any]:
    errors: list[Error] = []
    for name in names:
        mine: list[Error] = []
        value: dict[str, Any] = component(name)(body, _BODY, mine)
        if mine and type(body) is dict:
            # Only now, for speed: what vLLM adds to a body matters to nothing but its errors.
            mine.clear()
            value = component(name)(filled(name, body), _BODY, mine)
        if not mine and name in _ITERATED:
            _iterate(value["messages"], mine)
        if not mine:
            return value
        errors += mine
    raise invalid(errors)


def _iterate(messages: list[Any], errors: list[Error]) -> None:
    """Look at what pydantic has left for later: the items of iterables, up to the first wrong one."""
    for message in messages:
        if type(message) is list:  # a batch of conversations
            _iterate(message, errors)
            continue
        content = message.get("content")
        if type(content) is str and len(message) == 2:
            continue
        _take(message.get("tool_calls") or (), _call, errors)
        if type(content) is not str:
            _take(content or (), _part if type(content) is list else _no_part, errors)


def _take(items: Iterable[Any], item: Check, errors: list[Error]) -> None:
    for index, value in enumerate(items):
        if errors:
            return
        item(value, (*_BODY, index), errors)  # an iterator does not know where it stands


def _call(value: Any, loc: Loc, errors: list[Error]) -> Any:
    return union([((name,), component(name, True)) for name in _CALLS])(value, loc, errors)


def _part(value: Any, loc: Loc, errors: list[Error]) -> Any:
    return value if type(value) in (dict, str) else _no_part(value, loc, errors)


def _no_part(value: Any, loc: Loc, errors: list[Error]) -> Any:
    errors.append(no_dict(loc, value))
    return value


def _missing() -> Fault:
    return invalid([problem("missing", _BODY, "Field required", None)])


def _read_slowly(raw: bytes) -> Any:
    """What FastAPI itself calls: it has the texts and positions of errors, and takes NaN."""
    try:
        value = json.loads(raw)
        if b"\\u" in raw:
            json.dumps(value, ensure_ascii=False).encode()  # half a surrogate pair is no text
    except json.JSONDecodeError as e:
        raise invalid([problem("json_invalid", (*_BODY, e.pos), "JSON decode error", {}, error=e.msg)]) from None
    except (ValueError, RecursionError):  # not UTF-8, too many digits, too deep
        raise Fault(INVALID_BODY, _UNREADABLE) from None
    return value


def _follow(part: Any, schemas: dict[str, Any], found: set[str]) -> None:
    for key, value in part.items() if isinstance(part, dict) else enumerate(part):
        if key == "$ref":
            name = value.rpartition("/")[2]
            if name not in found:
                found.add(name)
                _follow(schemas[name], schemas, found)
        elif isinstance(value, (dict, list)):
            _follow(value, schemas, found)
